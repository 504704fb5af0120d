"""What a source is: samples in a fixed order, each with an id, a label, a split and a way to its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from pipeline.sources.facts import Stats
from pipeline.textcolumn import column_of

UNLABELLED = -1
"""The label of every sample of a source without classes."""
TRAIN, VAL, TEST = 0, 1, 2
"""Splits as numbers; `store.key.SPLITS` holds their names in this order."""


@dataclass(frozen=True)
class FilePayload:
    """An encoded image in a regular file, or in a part of one."""

    path: str
    span: tuple[int, int] | None = None
    """Offset and size in bytes of a member of an archive, None for the whole file."""


@dataclass(frozen=True)
class BytesPayload:
    """An encoded image in memory."""

    data: bytes


@dataclass(frozen=True)
class ArrayPayload:
    """A decoded image: uint8 (h, w) or (h, w, 3)."""

    array: np.ndarray


Payload = FilePayload | BytesPayload | ArrayPayload


@dataclass(frozen=True)
class Listing:
    """All samples of a source, a column a field, in source order."""

    ids: Sequence[str]
    """Stable and unique: relative paths or indices. No NUL. A TextColumn where there can be many."""
    labels: np.ndarray
    """(n,) int64, positions in `classes`; all UNLABELLED where there are none."""
    splits: np.ndarray
    """(n,) int8."""
    classes: tuple[str, ...]
    stats: Stats | None = None
    """Stat fields of files, taken when they are asked for. None where there are no files."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know: files passed over, empty classes."""
    groups: Sequence[str] | None = None
    """What must stay on one side of a split, one name a sample. None where the source names none. No NUL."""
    digests: np.ndarray | None = None
    """Image digests (n, 32) uint8 where listing the samples gives them; zeros for an image that cannot be read."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> "Listing":
        """Return the listing of some rows (m,) int64, in their order."""
        return replace(
            self,
            ids=column_of(self.ids).take(rows.tolist()),
            labels=self.labels[rows],
            splits=self.splits[rows],
            stats=None if self.stats is None else self.stats.take(rows),
            groups=None if self.groups is None else column_of(self.groups).take(rows.tolist()),
            digests=None if self.digests is None else self.digests[rows],
        )


class Source(Protocol):
    """A place that labelled images come from."""

    @property
    def spec(self) -> str:
        """What opens this source again, read as `describe` says: `resolve.open_source(spec)`."""

    @property
    def folder(self) -> str | None:
        """The real path of the folder that holds the files, None for arrays: names the stat index."""

    def describe(self) -> dict[str, Any]:
        """Return plain JSON fields that name the source and say how it is read: part of the plan and the manifest."""

    def listing(self) -> Listing:
        """List all samples. Files are not opened."""

    def payload(self, sample_id: str) -> Payload:
        """Return the way to a sample's pixels."""
