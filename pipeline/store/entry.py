"""A finished entry: manifest, sample table and shards in one folder that can be moved, copied or deleted."""

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import CacheError
from pipeline.store.commit import read_json
from pipeline.store.key import SHORT, FeatureSpace, entry_id
from pipeline.store.manifest import MAX_VALUES, check_manifest
from pipeline.store.samples import SampleTable, read_skipped
from pipeline.store.shard import ShardRows, read_shard
from pipeline.store.verified import REPAIR, read_verified

MANIFEST, SAMPLES, SKIPPED, SHARDS = "entry.json", "samples.h5", "skipped.csv", "shards"
ID_NAME = re.compile(rf"[0-9a-f]{{{SHORT}}}")
READERS = 4
"""Shards read at the same time: hashing and reading release Python's lock."""


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
    def dim(self) -> int:
        """Numbers in a row."""
        return math.prod(self.space.row_shape)

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
        rows = read_shard(self.shard_path(number), shard["sha256"], shard["bytes"], self.space)
        if len(rows.status) != shard["rows"]:
            raise CacheError(f"{self.shard_path(number)} has {len(rows.status):,} rows, not {shard['rows']:,}", REPAIR)
        return rows

    def check_sizes(self) -> None:
        """Compare the shards' sizes with the manifest's, before memory is set aside for their rows.

        Raises:
            CacheError: naming a shard that is missing, of another size, or too small for its rows.
        """
        for number, shard in enumerate(self.shards):
            path = self.shard_path(number)
            try:
                size = path.lstat().st_size
            except FileNotFoundError:
                raise CacheError(f"{path} is missing", REPAIR) from None
            except OSError as error:
                raise CacheError(f"{path} cannot be read: {error.strerror or error}", REPAIR) from error
            if size != shard["bytes"]:
                raise CacheError(f"{path} is damaged: {size:,} bytes where {shard['bytes']:,} were committed", REPAIR)
            if size < shard["rows"] * self.space.row_bytes:
                raise CacheError(f"{path} is too small for {shard['rows']:,} rows of its space", REPAIR)

    def read_shards(self, table: SampleTable | None = None) -> Iterator[tuple[int, ShardRows]]:
        """Yield (first row, rows) of every shard in order, verified, a few of them read ahead.

        Raises:
            CacheError: if a shard is missing or damaged, or its rows are not those that `table` lists there.
        """
        first = 0
        with ThreadPoolExecutor(READERS) as pool:
            numbers = list(range(len(self.shards)))
            ahead = [pool.submit(self.read_shard, number) for number in numbers[:READERS]]
            for number in numbers:
                rows = ahead.pop(0).result()
                if number + READERS < len(numbers):
                    ahead.append(pool.submit(self.read_shard, number + READERS))
                if table is not None:
                    self._check_listed(table, first, rows, last=number == numbers[-1])
                yield first, rows
                first += len(rows.status)

    def _check_listed(self, table: SampleTable, first: int, rows: ShardRows, *, last: bool) -> None:
        span = slice(first, first + len(rows.status))
        listed = np.array_equal(rows.digests, table.digests[span]) and np.array_equal(rows.status, table.status[span])
        if not listed or (last and span.stop != len(table)):
            raise CacheError(
                f"{self.path}: shard rows {first} to {span.stop} are not those of the sample table", REPAIR
            )

    def read_samples(self) -> SampleTable:
        """Return the sample table, verified against the manifest and the entry's id."""
        path = self.path / SAMPLES
        table = SampleTable.from_bytes(self._read(SAMPLES, self.manifest["samples"]), len(self.classes), str(path))
        found = entry_id(self.space, self.classes, table.ids, table.digests, table.labels, table.splits, table.groups)
        if found != self.manifest["id"]:
            raise CacheError(f"{path} does not belong to entry {self.id}", REPAIR)
        return table

    def id_in(self, space: FeatureSpace) -> str:
        """Return the id that an entry of the same samples has in another feature space, here or not."""
        if space == self.space:
            return self.id
        table = self.read_samples()
        whole = entry_id(space, self.classes, table.ids, table.digests, table.labels, table.splits, table.groups)
        return whole[:SHORT]

    def read_skipped_bytes(self) -> bytes:
        """Return the ledger of unusable images as it lies on disk, verified."""
        return bytes(self._read(SKIPPED, self.manifest["skipped"]))

    def skipped(self) -> list[dict[str, str]]:
        """Return the ledger of unusable images as dicts of `id` and `reason`."""
        return read_skipped(self.read_skipped_bytes())

    def _read(self, name: str, committed: dict[str, Any]) -> memoryview:
        return read_verified(self.path / name, committed["sha256"], committed["bytes"])


def open_entry(path: Path) -> Entry:
    """Open the entry in folder `path`.

    Raises:
        CacheError: if there is none, its manifest is damaged, or it is of another version.
    """
    try:
        manifest = read_json(path / MANIFEST, most_values=MAX_VALUES)
    except FileNotFoundError:
        raise CacheError(
            f"no cache entry at {path}: it has no {MANIFEST}", "`pipeline cache ls` shows what there is."
        ) from None
    check_manifest(manifest, str(path / MANIFEST))
    if ID_NAME.fullmatch(path.name) and path.name != manifest["id"][:SHORT]:
        raise CacheError(
            f"{path} holds entry {manifest['id'][:SHORT]}, not its own", "Was it renamed? Give it its name."
        )
    return Entry(path, manifest)
