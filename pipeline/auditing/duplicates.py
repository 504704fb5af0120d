"""Rows of a cache entry that hold the same picture."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.features import Features

Kind = Literal["exact", "copy", "mirrored", "twin", "unconfirmed"]
"""`copy`, `mirrored`: the same picture by its pixels; `twin`: close features, another one; `unconfirmed`: no pixels."""


@dataclass(frozen=True)
class Pair:
    """Two rows of the features that hold the same picture, or nearly."""

    a: int
    """Positions in the features, a < b."""
    b: int
    kind: Kind
    similarity: float
    """Cosine of the centred features."""
    difference: float | None
    """Of the pixels, in [0, 1]; None where no picture was read."""


def exact_duplicates(features: Features) -> list[Pair]:
    """Return the rows whose image has the digest of an earlier row's, each paired with the first of that digest."""
    if not len(features.digests):
        return []
    keys = np.ascontiguousarray(features.digests).view("V32").reshape(-1)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[which] != np.arange(len(keys)))
    return [Pair(int(first[which[row]]), int(row), "exact", 1.0, 0.0) for row in repeated]
