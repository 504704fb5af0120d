"""Rows that hold the same picture: what a pair is, and those of one image digest."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.features import Features

Kind = Literal["exact", "copy", "mirrored", "twin", "unconfirmed"]


@dataclass(frozen=True)
class Pair:
    """Two rows of the features that hold the same picture, or nearly."""

    a: int
    b: int
    """Positions in the features, a < b."""
    kind: Kind
    """`exact`: one image digest. `copy`, `mirrored`: the same picture, by its pixels. `twin`: close features, another
    picture. `unconfirmed`: close features, no pixels to be had."""
    similarity: float
    """Cosine of the centred features, in [-1, 1]."""
    difference: float | None
    """Of the pixels, in [0, 1]; None where no picture was read."""


def exact_duplicates(features: Features) -> list[Pair]:
    """Return the rows of one image digest, each paired with the first of them, in source order.

    Features without digests have none.
    """
    if not len(features.digests):
        return []
    _, first = np.unique(features.images, return_index=True)
    earliest = first[features.images]
    again = np.flatnonzero(earliest != np.arange(len(features)))
    return [Pair(int(earliest[row]), int(row), "exact", 1.0, 0.0) for row in again]
