"""The sample table: what travels with features but is not computed from pixels; and the ledger of unusable images."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.csvtext import csv_text
from pipeline.errors import CacheError
from pipeline.sources.source import UNLABELLED
from pipeline.store.columns import Column, read_columns, write_columns, write_columns_file
from pipeline.store.key import SPLITS
from pipeline.store.shard import BAD, USABLE
from pipeline.store.verified import REPAIR
from pipeline.textcolumn import ColumnBuilder, TextColumn, bytes_text, text_bytes

FORMAT, FORMAT_VERSION = "pipeline-samples", 1
COLUMNS = ("id", "image_sha256", "label", "split", "status")
OPTIONAL = ("group",)
"""Columns that only some tables have."""
OUTSIDE = re.compile(rb"(?:\A|(?<=\0))(/[^\0]*|(?:[^\0]*/)?\.\.(?:/[^\0]*)?)\0")
"""An id, of many that a NUL ends each, that is absolute or has a folder `..` in it."""
SPAN = 1 << 16
"""Rows whose ids are Python objects at the same time."""


@dataclass(frozen=True)
class SampleTable:
    """One row a sample, in source order."""

    ids: Sequence[str]
    """A TextColumn, where there can be many."""
    digests: np.ndarray
    """Image digests (n, 32) uint8, zeros where the file could not be read."""
    labels: np.ndarray
    """Positions in the entry's class names (n,) int64; all -1 where it has none."""
    splits: np.ndarray
    """Positions in SPLITS (n,) int8."""
    status: np.ndarray
    """USABLE or BAD (n,) uint8."""
    groups: Sequence[str] | None = None
    """What must stay on one side of a split: a patient, a scene, a burst. None where the source names none."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def usable(self) -> np.ndarray:
        """Which samples have features (n,) bool."""
        return np.asarray(self.status == USABLE)

    def to_columns(self) -> dict[str, np.ndarray]:
        """Return the table as arrays by name, as files hold it."""
        return {
            name: column.fixed() if isinstance(column, TextColumn) else column
            for name, column in self._columns().items()
        }

    def _columns(self) -> dict[str, Column]:
        return {
            "id": _fixed(self.ids),
            "image_sha256": self.digests.astype(np.uint8, copy=False),
            "label": self.labels.astype("<i8", copy=False),
            "split": self.splits.astype(np.int8, copy=False),
            "status": self.status.astype(np.uint8, copy=False),
            **({"group": _fixed(self.groups)} if self.groups is not None else {}),
        }

    @classmethod
    def from_columns(cls, columns: dict[str, np.ndarray], classes: int, where: str) -> "SampleTable":
        """Build from `to_columns`'s arrays, which may come from anywhere.

        Raises:
            CacheError: naming `where`, if shapes, types or values are not those of a table with so many classes.
        """
        n = len(columns["status"])
        wanted = {
            "image_sha256": ((n, 32), np.dtype("u1")),
            "label": ((n,), np.dtype("<i8")),
            "split": ((n,), np.dtype("i1")),
            "status": ((n,), np.dtype("u1")),
        }
        for name, (shape, dtype) in wanted.items():
            if columns[name].shape != shape or columns[name].dtype != dtype:
                raise CacheError(f"{where}: {name} is not a dataset {shape} {dtype}", REPAIR)
        for name in ("id", *(name for name in OPTIONAL if name in columns)):
            if columns[name].shape != (n,) or columns[name].dtype.kind != "S":
                raise CacheError(f"{where}: {name} is not a dataset ({n},) of fixed-length text", REPAIR)
        first_label = 0 if classes else UNLABELLED
        for name, least, most in (
            ("label", first_label, classes - 1),
            ("split", 0, len(SPLITS) - 1),
            ("status", 0, BAD),
        ):
            if n and not least <= int(columns[name].min()) <= int(columns[name].max()) <= most:
                raise CacheError(f"{where}: {name} holds values that are not between {least} and {most}", REPAIR)
        ids = _texts(columns, "id", where)
        outside = next(filter(None, map(OUTSIDE.search, ids.blocks())), None)
        if outside is not None:
            raise CacheError(f"{where}: id {bytes_text(outside[1])!r} leads out of its source", REPAIR)
        groups = _texts(columns, "group", where) if "group" in columns else None
        digests, labels, splits, status = (columns[name].copy() for name in COLUMNS[1:])
        return cls(ids, digests, labels, splits, status, groups)

    def to_bytes(self) -> bytes:
        """Return the table as the bytes of an HDF5 file."""
        return write_columns(_attributes(), self._columns())

    def write(self, path: Path) -> None:
        """Write what `to_bytes` returns to a new file, not synced, without holding it."""
        write_columns_file(path, _attributes(), self._columns())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, classes: int, where: str = "the sample table") -> "SampleTable":
        """Read what `to_bytes` returned; `data` must have been verified.

        Raises:
            CacheError: if it is no such table, or has labels that are not below `classes`.
        """
        attributes, columns = read_columns(data, COLUMNS, where, OPTIONAL)
        if (attributes.get("format"), attributes.get("format_version")) != (FORMAT, FORMAT_VERSION):
            raise CacheError(f"{where} is not a version {FORMAT_VERSION} {FORMAT} file", REPAIR)
        if attributes.get("split_names") != list(SPLITS):
            raise CacheError(f"{where} numbers its splits otherwise: {attributes.get('split_names')}", REPAIR)
        return cls.from_columns(columns, classes, where)


def _attributes() -> dict[str, Any]:
    return {
        "format": FORMAT.encode(),
        "format_version": np.int64(FORMAT_VERSION),
        "split_names": np.array(SPLITS, dtype="S"),
    }


def _fixed(texts: Sequence[str]) -> Column:
    """Return texts as a column, or as fixed-length bytes (n,)."""
    if isinstance(texts, TextColumn):
        return texts
    encoded = [text_bytes(text) for text in texts]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def _texts(columns: dict[str, np.ndarray], name: str, where: str) -> TextColumn:
    """Return the column `name`, fixed-length bytes (n,), as texts."""
    column, texts = columns[name], ColumnBuilder()
    try:
        for first in range(0, len(column), SPAN):
            for data in column[first : first + SPAN].tolist():
                texts.append_bytes(data)
        return TextColumn.built(texts)
    except ValueError as error:
        raise CacheError(f"{where}: {name}: {error}", REPAIR) from error


def skipped_csv(ids: Sequence[str], reasons: dict[int, str]) -> bytes:
    """Return the ledger of unusable images: `id,reason`, one line each."""
    rows = ((ids[row], reasons[row]) for row in sorted(reasons))
    return csv_text(("id", "reason"), rows).encode("utf-8", "surrogateescape")


def read_skipped(data: bytes) -> list[dict[str, str]]:
    """Return the lines of a ledger as dicts of `id` and `reason`."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
