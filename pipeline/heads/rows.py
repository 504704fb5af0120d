"""What solvers need of features: rows (n, d) in a fixed order, passed over in chunks, in memory or streamed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from pipeline.heads.head import CHUNK_ROWS, Head
from pipeline.heads.viewed import ViewedRows
from pipeline.streaming import StreamedRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Rows(Protocol):
    """Feature rows; a tensor (n, d) has all of this, and so has a stream."""

    @property
    def shape(self) -> Sequence[int]:
        """(n, d)."""

    @property
    def device(self) -> "torch.device":
        """Where chunks are."""

    def __len__(self) -> int: ...

    def split(self, size: int, /) -> "Iterable[Tensor]":
        """Return consecutive chunks (size, d), the last perhaps smaller."""


R = TypeVar("R", bound=Rows)

CHUNK_MAPS = 256
"""Rows that are no vectors, read of a stream at once: each may be a megabyte."""


def pick(x: R, rows: np.ndarray) -> R:
    """Return some rows (m,), of views the plain ones; of a stream their positions must rise.

    No copy where these are all, in order.
    """
    import torch

    if len(rows) == len(x) and bool((np.diff(rows) > 0).all()):
        return x
    found: Any
    if isinstance(x, StreamedRows):
        found = x.select(rows)
    elif isinstance(x, ViewedRows):
        found = x.plain.index_select(0, torch.from_numpy(np.ascontiguousarray(rows)).to(x.device))
    else:
        assert isinstance(x, torch.Tensor)
        found = x.index_select(0, torch.from_numpy(np.ascontiguousarray(rows)).to(x.device))
    return found  # type: ignore[no-any-return]


def chunks(x: Rows, y: "Tensor", rows: "Tensor", size: int = CHUNK_ROWS) -> "Iterator[tuple[Tensor, Tensor]]":
    """Yield features (m, d) and labels (m,) of some rows, a chunk at a time: no more than that is copied."""
    if isinstance(x, StreamedRows):
        yield from zip(x.select(rows.cpu().numpy()).split(size), y[rows].split(size), strict=True)
        return
    import torch

    x = x.plain if isinstance(x, ViewedRows) else x
    assert isinstance(x, torch.Tensor)
    for part in rows.split(size):
        yield x.index_select(0, part), y.index_select(0, part)


def scores_of(x: Rows, weight: "Tensor", bias: "Tensor") -> "Tensor":
    """Return the float32 scores (n, c) of features (n, d) by a linear layer (c, d), (c,), a chunk at a time."""
    import torch

    weight, bias = weight.float().T, bias.float()
    return torch.cat([torch.addmm(bias, chunk.float(), weight) for chunk in x.split(CHUNK_ROWS)])


def logits_of(head: Head, x: Rows) -> np.ndarray:
    """Return a head's float32 logits (n, c) of features (n, d), or of rows (n, *row_shape) that it takes."""
    size = CHUNK_ROWS if len(x.shape) == 2 else CHUNK_MAPS
    return np.concatenate([head.logits(chunk).numpy() for chunk in x.split(size)])
