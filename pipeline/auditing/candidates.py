"""Rows with close features: the nearest of each by cosine, all rows against all, in blocks."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.progress import OnProgress, Progress, ignore

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 128
"""Principal components that the search uses: 60,000 rows then cost 0.5 TFLOP rather than 4.6."""
NEIGHBOURS = 30
SAMPLE = 4096
BLOCK = 512
"""Rows a block: its similarities to 60,000 rows take 123 MB."""
CHUNK = 4096


def close_pairs(
    x: "Tensor", *, floor: float, neighbours: int = NEIGHBOURS, on_progress: OnProgress = ignore
) -> tuple[np.ndarray, np.ndarray]:
    """Find pairs of rows with close features.

    Features after a ReLU all point into one corner, so that raw cosines are high for any two; without their mean
    they tell. The search is exact in the first `WIDTH` principal components.

    Args:
        x: features (n, *row_shape), float32 or float16.
        floor: the least similarity in these components.
        neighbours: later rows a row is paired with at most, closest first.
        on_progress: called after every block of rows.

    Returns:
        Pairs (m, 2) int64 with a < b, in order, and cosines (m,) float64 of the whole centred features.
    """
    import torch

    mean, axes = _principal_axes(x)
    short = torch.empty((len(x), axes.shape[1]))
    for first in range(0, len(x), CHUNK):
        part = slice(first, first + CHUNK)
        short[part] = torch.nn.functional.normalize((_flat(x[part]) - mean) @ axes, dim=1)
    found = [torch.empty((0, 2), dtype=torch.int64)]
    for first in range(0, len(x), BLOCK):
        found.append(_block_pairs(short, first, floor, neighbours))
        done = min(first + BLOCK, len(x))
        on_progress(Progress(done, len(x), computed=done))
    pairs = torch.cat(found)
    pairs = pairs[torch.argsort(pairs[:, 0] * len(x) + pairs[:, 1])]
    return pairs.numpy(), _cosines(x, mean, pairs).numpy()


def _block_pairs(short: "Tensor", first: int, floor: float, neighbours: int) -> "Tensor":
    """Return pairs (m, 2) of each row of a block and the later rows that are its nearest."""
    import torch

    block = short[first : first + BLOCK]
    near = block @ short[first:].T
    own = torch.ones((len(block), len(block)), dtype=torch.bool).tril()
    near[:, : len(block)].masked_fill_(own, -2.0)  # a row's pairs with earlier rows are theirs
    best, place = near.topk(min(neighbours, near.shape[1]), dim=1)
    row, rank = torch.nonzero(best >= floor, as_tuple=True)
    return torch.stack([row + first, place[row, rank] + first], dim=1)


def _principal_axes(x: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Return the mean (d,) and the first principal axes (d, at most WIDTH) of rows spread over `x`, float32."""
    import torch

    rows = torch.from_numpy(np.linspace(0, len(x) - 1, min(len(x), SAMPLE)).astype(np.int64))
    sample = _flat(x[rows])
    mean = sample.mean(dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the start of a randomised decomposition: the same axes each time
        _, _, axes = torch.svd_lowrank(sample - mean, q=min(WIDTH, *sample.shape))
    return mean, axes


def _cosines(x: "Tensor", mean: "Tensor", pairs: "Tensor") -> "Tensor":
    """Return cosines (m,) float64 of the centred features of pairs (m, 2)."""
    import torch

    chunks = [torch.empty(0, dtype=torch.float64)]
    for part in pairs.split(CHUNK):
        one, other = (_flat(x[part[:, side]]) - mean for side in (0, 1))
        chunks.append(torch.nn.functional.cosine_similarity(one, other).double())
    return torch.cat(chunks)


def _flat(x: "Tensor") -> "Tensor":
    return x.flatten(1).float()
