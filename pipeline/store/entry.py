"""A finished entry: manifest, sample table and shards in one folder that can be moved, copied or deleted."""

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.commit import read_json
from pipeline.store.key import SHORT, SPLITS, FeatureSpace, entry_id, id_bytes, id_text
from pipeline.store.shard import LIBVER, REPAIR, USABLE, ShardRows, read_shard

FORMAT = "pipeline-entry"
FORMAT_VERSION = 1
MANIFEST, SAMPLES, SKIPPED, SHARDS = "entry.json", "samples.h5", "skipped.csv", "shards"
READERS = 4
"""Shards read at the same time: hashing and reading release Python's lock."""


@dataclass(frozen=True)
class SampleTable:
    """One row a sample, in source order: what travels with features but is not computed from pixels."""

    ids: list[str]
    digests: np.ndarray
    """Image digests (n, 32) uint8, zeros where the file could not be read."""
    labels: np.ndarray
    """Positions in `classes` (n,) int64."""
    splits: np.ndarray
    """Positions in SPLITS (n,) int8."""
    status: np.ndarray
    """USABLE or BAD (n,) uint8."""

    def to_bytes(self) -> bytes:
        """Return the table as the bytes of an HDF5 file."""
        import h5py

        encoded = [id_bytes(sample_id) for sample_id in self.ids]
        width = max([1, *map(len, encoded)])
        with h5py.File.in_memory(libver=LIBVER) as file:
            file.attrs["format"] = np.bytes_("pipeline-samples")
            file.attrs["format_version"] = np.int64(FORMAT_VERSION)
            file.attrs["split_names"] = np.array([np.bytes_(name) for name in SPLITS])
            file.create_dataset("id", data=np.array(encoded, dtype=f"S{width}"))
            file.create_dataset("image_sha256", data=self.digests)
            file.create_dataset("label", data=self.labels.astype("<i8", copy=False))
            file.create_dataset("split", data=self.splits.astype(np.int8, copy=False))
            file.create_dataset("status", data=self.status.astype(np.uint8, copy=False))
            file.flush()
            return bytes(file.id.get_file_image())

    @classmethod
    def from_bytes(cls, data: bytes) -> "SampleTable":
        """Read what `to_bytes` returned; `data` must have been verified.

        Raises:
            CacheError: if it is no such table.
        """
        import h5py

        try:
            with h5py.File.in_memory(data) as file:
                return cls(
                    [id_text(value) for value in file["id"][:].tolist()],
                    file["image_sha256"][:],
                    file["label"][:],
                    file["split"][:],
                    file["status"][:],
                )
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise CacheError(f"not a sample table: {error}", REPAIR) from error


def skipped_csv(ids: list[str], reasons: dict[int, str]) -> bytes:
    """Return the ledger of unusable images: `id,reason`, one line each."""
    text = io.StringIO(newline="")
    # The csv module leaves a lone carriage return unquoted, which readers take for the end of a line.
    odd = any("\r" in ids[row] for row in reasons)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
    writer.writerow(["id", "reason"])
    writer.writerows([ids[row], reasons[row]] for row in sorted(reasons))
    return text.getvalue().encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Entry:
    """A finished entry on disk. Opening it reads the manifest only."""

    path: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        """The short id, as folders and commands use it."""
        return str(self.manifest["id"])[:SHORT]

    @property
    def digest(self) -> str:
        """The manifest's SHA-256: names these very bytes, shards included."""
        return str(self.manifest["sha256"])

    @cached_property
    def space(self) -> FeatureSpace:
        """The feature space of all rows."""
        return FeatureSpace.from_json(self.manifest["space"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels are positions in them."""
        return tuple(self.manifest["classes"])

    @property
    def rows(self) -> int:
        """Usable rows."""
        return int(self.manifest["rows"])

    @property
    def shards(self) -> list[dict[str, Any]]:
        """One dict a shard: `sha256`, `bytes`, `rows`."""
        shards: list[dict[str, Any]] = self.manifest["shards"]
        return shards

    def shard_path(self, number: int) -> Path:
        """Return where shard `number` lies."""
        return self.path / SHARDS / f"{number:05d}.h5"

    def read_shard(self, number: int) -> ShardRows:
        """Return a shard's rows, verified."""
        shard = self.shards[number]
        return read_shard(self.shard_path(number), shard["sha256"], shard["bytes"], self.space)

    def read_shards(self) -> Iterator[tuple[int, ShardRows]]:
        """Yield (first row, rows) of every shard in order, verified, a few of them read ahead."""
        first = 0
        with ThreadPoolExecutor(READERS) as pool:
            numbers = list(range(len(self.shards)))
            ahead = [pool.submit(self.read_shard, number) for number in numbers[:READERS]]
            for number in numbers:
                rows = ahead.pop(0).result()
                if number + READERS < len(numbers):
                    ahead.append(pool.submit(self.read_shard, number + READERS))
                yield first, rows
                first += len(rows.status)

    def read_samples(self) -> SampleTable:
        """Return the sample table, verified against the manifest and the entry's id."""
        path = self.path / SAMPLES
        table = SampleTable.from_bytes(self._verified(SAMPLES, self.manifest["samples"]["sha256"]))
        found = entry_id(self.space, self.classes, table.ids, table.digests, table.labels, table.splits)
        if found != self.manifest["id"]:
            raise CacheError(f"{path} does not belong to entry {self.id}", REPAIR)
        return table

    def skipped(self) -> list[dict[str, str]]:
        """Return the ledger of unusable images as dicts of `id` and `reason`."""
        data = self._verified(SKIPPED, self.manifest["skipped"]["sha256"])
        return list(csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))

    def _verified(self, name: str, sha256: str) -> bytes:
        """Return the bytes of one of the entry's small files, verified."""
        path = self.path / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise CacheError(f"{path} is missing", REPAIR) from None
        except OSError as error:
            raise CacheError(f"{path} cannot be read: {error.strerror}", REPAIR) from error
        if sha256_bytes(data) != sha256:
            raise CacheError(f"{path} is damaged: its bytes do not have the SHA-256 in {MANIFEST}", REPAIR)
        return data


def open_entry(path: Path) -> Entry:
    """Open the entry in folder `path`.

    Raises:
        CacheError: if there is none, its manifest is damaged, or it is of another version.
    """
    try:
        manifest = read_json(path / MANIFEST)
    except FileNotFoundError:
        raise CacheError(
            f"no cache entry at {path}: it has no {MANIFEST}", "`pipeline cache ls` shows what there is."
        ) from None
    if manifest.get("format") != FORMAT or manifest.get("format_version") != FORMAT_VERSION:
        raise CacheError(
            f"{path / MANIFEST} is {manifest.get('format')!r} version {manifest.get('format_version')!r}, "
            f"this package reads {FORMAT!r} version {FORMAT_VERSION}",
            "Extract again, or use the version of this package that wrote it.",
        )
    return Entry(path, manifest)


def usable(table: SampleTable) -> np.ndarray:
    """Return which samples have features (n,) bool."""
    return np.asarray(table.status == USABLE)
