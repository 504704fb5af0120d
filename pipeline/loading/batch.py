"""What comes out of the loader: a batch of pixels, and what became of each image."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.loading.worker import BAD, KNOWN, OK


@dataclass(frozen=True)
class Loaded:
    """What became of one image: `outcome` is OK, KNOWN or BAD."""

    outcome: int
    digest: bytes | None
    facts: tuple[int, int, int, int] | None
    read_ns: int
    reason: str


@dataclass
class Batch:
    """Images of `rows`, in order; `pixels` (batch_size, h, w, 3) uint8 is shared memory until released.

    Places whose outcome is BAD are zero, those of KNOWN and those past the last row hold anything.
    """

    rows: list[int]
    pixels: np.ndarray
    sizes: np.ndarray
    """(batch_size, 2) uint16, (h, w) of images that came whole, in the upper left corner, else 0."""
    loaded: list[Loaded]
    slot: int


def loaded_from(item: list[Any]) -> Loaded:
    """Return what a worker answered of one image, in order of the fields."""
    outcome, digest, facts, read_ns, reason = item
    if outcome not in (OK, KNOWN, BAD):
        raise ValueError(f"a loading process answered {item!r}")
    return Loaded(outcome, digest and bytes.fromhex(digest), facts and tuple(facts), read_ns, reason)
