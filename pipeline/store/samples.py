"""The sample table: what travels with features but is not computed from pixels; and the ledger of unusable images."""

import csv
import io
from dataclasses import dataclass

import numpy as np

from pipeline.errors import CacheError
from pipeline.store.columns import read_columns, write_columns
from pipeline.store.key import SPLITS, id_bytes, id_text
from pipeline.store.shard import BAD, USABLE
from pipeline.store.verified import REPAIR

FORMAT, FORMAT_VERSION = "pipeline-samples", 1
COLUMNS = ("id", "image_sha256", "label", "split", "status")


@dataclass(frozen=True)
class SampleTable:
    """One row a sample, in source order."""

    ids: list[str]
    digests: np.ndarray
    """Image digests (n, 32) uint8, zeros where the file could not be read."""
    labels: np.ndarray
    """Positions in the entry's class names (n,) int64."""
    splits: np.ndarray
    """Positions in SPLITS (n,) int8."""
    status: np.ndarray
    """USABLE or BAD (n,) uint8."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def usable(self) -> np.ndarray:
        """Which samples have features (n,) bool."""
        return np.asarray(self.status == USABLE)

    def to_columns(self) -> dict[str, np.ndarray]:
        """Return the table as arrays by name, as files hold it."""
        encoded = [id_bytes(sample_id) for sample_id in self.ids]
        width = max([1, *map(len, encoded)])
        return {
            "id": np.array(encoded, dtype=f"S{width}"),
            "image_sha256": self.digests.astype(np.uint8, copy=False),
            "label": self.labels.astype("<i8", copy=False),
            "split": self.splits.astype(np.int8, copy=False),
            "status": self.status.astype(np.uint8, copy=False),
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
        if columns["id"].shape != (n,) or columns["id"].dtype.kind != "S":
            raise CacheError(f"{where}: id is not a dataset ({n},) of fixed-length text", REPAIR)
        for name, most in (("label", classes - 1), ("split", len(SPLITS) - 1), ("status", BAD)):
            if n and not 0 <= int(columns[name].min()) <= int(columns[name].max()) <= most:
                raise CacheError(f"{where}: {name} holds values that are not between 0 and {most}", REPAIR)
        ids = [id_text(value) for value in columns["id"].tolist()]
        outside = next((name for name in ids if name[:1] == "/" or "\0" in name or ".." in name.split("/")), None)
        if outside is not None:
            raise CacheError(f"{where}: id {outside!r} leads out of its source", REPAIR)
        return cls(ids, *(columns[name].copy() for name in COLUMNS[1:]))

    def to_bytes(self) -> bytes:
        """Return the table as the bytes of an HDF5 file."""
        attributes = {
            "format": FORMAT.encode(),
            "format_version": np.int64(FORMAT_VERSION),
            "split_names": np.array(SPLITS, dtype="S"),
        }
        return write_columns(attributes, self.to_columns())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, classes: int, where: str = "the sample table") -> "SampleTable":
        """Read what `to_bytes` returned; `data` must have been verified.

        Raises:
            CacheError: if it is no such table, or has labels that are not below `classes`.
        """
        attributes, columns = read_columns(data, COLUMNS, where)
        if (attributes.get("format"), attributes.get("format_version")) != (FORMAT, FORMAT_VERSION):
            raise CacheError(f"{where} is not a version {FORMAT_VERSION} {FORMAT} file", REPAIR)
        if attributes.get("split_names") != list(SPLITS):
            raise CacheError(f"{where} numbers its splits otherwise: {attributes.get('split_names')}", REPAIR)
        return cls.from_columns(columns, classes, where)


def skipped_csv(ids: list[str], reasons: dict[int, str]) -> bytes:
    """Return the ledger of unusable images: `id,reason`, one line each."""
    text = io.StringIO(newline="")
    # The csv module leaves a lone carriage return unquoted, which readers take for the end of a line.
    odd = any("\r" in ids[row] for row in reasons)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
    writer.writerow(["id", "reason"])
    writer.writerows([ids[row], reasons[row]] for row in sorted(reasons))
    return text.getvalue().encode("utf-8", "surrogateescape")


def read_skipped(data: bytes) -> list[dict[str, str]]:
    """Return the lines of a ledger as dicts of `id` and `reason`."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
