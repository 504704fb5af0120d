"""From the output of any layer to one row an image.

What a tensor is, is told by its shape, for square images and batches of b:

- (b, d): features already; nothing to pool.
- (b, c, h, w) if the last two axes are equal, (b, h, w, c) if the second and third are: a map. Pools run over h, w.
- (b, t, d): tokens. The first ones are the network's prefix tokens (class, distillation, registers) if the others
  make a square, as the patches of a square image do; a tensor that is a square by itself has no prefix.
"""

import math
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

POOLS = ("avg", "max", "cls", "cls+avg", "none")
"""`cls` is the first token, `cls+avg` both in a row of 2d; averages and maxima leave prefix tokens out."""


def default_pool(shape: tuple[int, ...]) -> str:
    """Return what a tensor (b, …) is pooled with when nothing was asked for."""
    return "avg" if len(shape) > 2 else "none"


def pool(features: "Tensor", how: str, prefix_tokens: int) -> "Tensor":
    """Return (b, d) of a map or of tokens, or with `none` the tensor as it is.

    Raises:
        UsageError: if the shape does not allow it, saying the shape.
    """
    if how == "none":
        return features
    if features.ndim == 4 and how in ("avg", "max"):
        return _pool_map(features, how)
    if features.ndim == 3:
        return _pool_tokens(features, how, prefix_tokens)
    raise UsageError(
        f"--pool {how} does not go with an output of shape {tuple(features.shape[1:])} an image",
        "avg and max pool maps and tokens, cls and cls+avg tokens; --pool none takes it as it is.",
    )


def _pool_map(features: "Tensor", how: str) -> "Tensor":
    from torch.nn import functional

    _, second, third, fourth = features.shape
    if (second == third) == (third == fourth):
        raise UsageError(
            f"an output of shape {tuple(features.shape[1:])} an image: channels first or last?",
            "Take it as it is with --pool none.",
        )
    if second == third:
        features = features.permute(0, 3, 1, 2)
    # The module that networks pool with, so that the bits are theirs.
    pooled = functional.adaptive_avg_pool2d if how == "avg" else functional.adaptive_max_pool2d
    return pooled(features, 1).flatten(1)


def _pool_tokens(features: "Tensor", how: str, prefix_tokens: int) -> "Tensor":
    import torch

    count = features.shape[1]
    prefix = next((n for n in (prefix_tokens, 0) if count > n and math.isqrt(count - n) ** 2 == count - n), None)
    if prefix is None:
        raise UsageError(
            f"{count} tokens an image are neither a square nor {prefix_tokens} prefix tokens and a square",
            "Take them as they are with --pool none.",
        )
    if how in ("cls", "cls+avg") and not prefix:
        raise UsageError(f"{count} tokens an image without a class token among them", "Use --pool avg.")
    tokens = features[:, prefix:]
    if how == "max":
        return tokens.amax(1)
    if how == "cls":
        return features[:, 0]
    average = tokens.mean(1)
    return average if how == "avg" else torch.cat([features[:, 0], average], 1)
