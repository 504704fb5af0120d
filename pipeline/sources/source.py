"""What a source is: samples in a fixed order, each with an id, a label, a split and a way to its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

UNLABELLED = -1
TRAIN, VAL, TEST = 0, 1, 2
"""Splits as numbers; `store.key.SPLITS` holds their names in this order."""


@dataclass(frozen=True)
class FilePayload:
    """An encoded image in a regular file."""

    path: str


@dataclass(frozen=True)
class ArrayPayload:
    """A decoded image: uint8 (h, w) or (h, w, 3)."""

    array: np.ndarray


Payload = FilePayload | ArrayPayload


@dataclass(frozen=True)
class Listing:
    """All samples of a source, a column a field, in source order."""

    ids: Sequence[str]
    """Stable and unique: relative paths or indices. No NUL."""
    labels: np.ndarray
    """(n,) int64, positions in `classes`."""
    splits: np.ndarray
    """(n,) int8."""
    classes: tuple[str, ...]
    stats: np.ndarray | None = None
    """(n, 4) int64 for files: inode, size, mtime and ctime in nanoseconds. None where there are no files."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know: files passed over, empty classes."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> "Listing":
        """Return the listing of some rows (m,) int64, in their order."""
        ids = [self.ids[row] for row in rows.tolist()]
        stats = None if self.stats is None else self.stats[rows]
        return Listing(ids, self.labels[rows], self.splits[rows], self.classes, stats, self.notes)


class Source(Protocol):
    """A place that labelled images come from."""

    @property
    def spec(self) -> str:
        """What opens this source again: `resolve.open_source(spec)`."""

    @property
    def folder(self) -> str | None:
        """The real path of the folder that holds the files, None for arrays: names the stat index."""

    def describe(self) -> dict[str, Any]:
        """Return plain JSON fields that name the source: part of the plan, recorded in the manifest."""

    def listing(self) -> Listing:
        """List all samples. Files are not opened."""

    def payload(self, sample_id: str) -> Payload:
        """Return the way to a sample's pixels."""
