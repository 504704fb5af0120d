"""Where rows of a feature space already lie: the key is the image digest, so names and order play no part."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import sha256_json
from pipeline.errors import CacheError
from pipeline.store.catalog import list_entries
from pipeline.store.entry import Entry
from pipeline.store.key import FeatureSpace, Recipe
from pipeline.store.record import Record
from pipeline.store.shard import USABLE, ShardRows, read_shard
from pipeline.store.work import WorkFolder, list_work

logger = logging.getLogger(__name__)

OPEN_SHARDS = 4
"""Verified shards kept in memory while rows are copied from them."""


@dataclass(frozen=True)
class ShardRef:
    """A committed shard somewhere under the cache root."""

    path: Path
    sha256: str
    size: int
    recipe: dict[str, Any]
    versions: dict[str, str]
    """Of the packages that computed it."""


Found = tuple[ShardRef, np.ndarray, np.ndarray]
"""A shard with the keys (m,) uint64 of its usable rows and their places in it (m,) int32: 12 bytes a row."""

DigestsOf = Callable[[Record], np.ndarray | None]


@dataclass(frozen=True)
class _Segment:
    """Rows sorted by key: `keys` (m,) uint64, `places` (m, 2) int32."""

    keys: np.ndarray
    places: np.ndarray


@dataclass
class RowIndex:
    """Finds rows by image digest: binary searches over the first 8 bytes of the digests, 16 bytes of memory a row.

    A place is (position in `shards`, row within the shard). `find` goes by the 8 bytes; `fetch` compares all 32
    with those in the shard itself before it takes a row. Rows are kept in sorted segments, which are merged when
    the last is as large as the one before, so that adding shard after shard stays cheap.
    """

    space: FeatureSpace
    shards: list[ShardRef] = field(default_factory=list)
    _segments: list[_Segment] = field(default_factory=list)
    _open: OrderedDict[int, ShardRows] = field(default_factory=OrderedDict)

    def add(self, ref: ShardRef, digests: np.ndarray, rows_usable: np.ndarray) -> None:
        """Add a shard with its digests (n, 32) and which rows are usable (n,); what is known already stays."""
        self.add_all([_found(ref, digests, rows_usable)])

    def add_all(self, shards: Sequence[Found]) -> None:
        """Add shards, sorted once; of equal rows the first counts."""
        keys = [keys for _, keys, _ in shards]
        places = [
            np.stack([np.full(len(rows), number, np.int32), rows], axis=1)
            for number, (_, _, rows) in enumerate(shards, len(self.shards))
        ]
        self.shards += [ref for ref, _, _ in shards]
        if shards:
            self._insert(np.concatenate(keys), np.concatenate(places))

    def _insert(self, keys: np.ndarray, places: np.ndarray) -> None:
        self._segments.append(_segment(keys, places))
        while len(self._segments) > 1 and len(self._segments[-1].keys) >= len(self._segments[-2].keys):
            last, before = self._segments.pop(), self._segments.pop()
            merged = _segment(np.concatenate([before.keys, last.keys]), np.concatenate([before.places, last.places]))
            self._segments.append(merged)

    @property
    def keys(self) -> np.ndarray:
        """The keys (m,) uint64 of all rows known: the first 8 bytes of their digests."""
        return np.concatenate([np.empty(0, np.uint64), *(segment.keys for segment in self._segments)])

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Return places (n, 2) int64 of `digests` (n, 32), -1 where a digest's first 8 bytes are not known."""
        places = np.full((len(digests), 2), -1, np.int64)
        keys = digest_keys(digests)
        for segment in self._segments:
            if len(segment.keys) and len(keys):
                at = np.minimum(np.searchsorted(segment.keys, keys), len(segment.keys) - 1)
                hit = (segment.keys[at] == keys) & (places[:, 0] < 0)
                places[hit] = segment.places[at[hit]]
        return places

    def fetch(self, places: np.ndarray, digests: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy rows at `places` (n, 2) into `out` (n, *row_shape). Return which were had (n,) bool.

        A row is had if its digest in the shard is the one in `digests` (n, 32). Rows of a shard that turns out to
        be damaged are not had, and not found again.
        """
        had = np.zeros(len(places), bool)
        for number in np.unique(places[:, 0][places[:, 0] >= 0]):
            rows = self._read(int(number))
            if rows is None:
                self.forget([int(number)])
                continue
            here = np.flatnonzero((places[:, 0] == number) & (places[:, 1] < len(rows.status)))
            there = places[here, 1]
            equal = (rows.digests[there] == digests[here]).all(axis=1)
            out[here[equal]] = rows.features[there[equal]]
            had[here[equal]] = True
        return had

    def forget(self, numbers: list[int]) -> None:
        """Leave out the rows of some shards from now on."""
        kept = [(segment, ~np.isin(segment.places[:, 0], numbers)) for segment in self._segments]
        self._segments = [_Segment(segment.keys[keep], segment.places[keep]) for segment, keep in kept]

    def _read(self, number: int) -> ShardRows | None:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        ref = self.shards[number]
        try:
            rows = read_shard(ref.path, ref.sha256, ref.size, self.space)
        except CacheError as error:
            logger.warning("%s; its rows are computed again", error.message)
            return None
        self._open[number] = rows
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)
        return rows

    def paths_by_sha256(self) -> dict[str, Path]:
        """Return the files of all shards known, by the SHA-256 of their bytes."""
        return {ref.sha256: ref.path for ref in self.shards}


def index_rows(
    root: Path,
    space: FeatureSpace,
    *,
    recipe: Recipe,
    engine_only: bool,
    work: WorkFolder | None = None,
    digests_of: DigestsOf | None = None,
) -> RowIndex:
    """Index all rows of `space` under `root`, of finished entries and of work in progress.

    Rows of the same recipe come first; with `engine_only` rows of another engine are left out. What cannot be
    read is left out with a warning: its rows are computed again. A shard of `work` is not read where `digests_of`
    knows its digests (n, 32) from its record.
    """
    found: list[Found] = []
    for entry in list_entries(root):
        if entry.manifest["space_sha256"] == space.sha256:
            found.extend(_entry_shards(entry))
    for body in list_work(root):
        if sha256_json(body["space"]) == space.sha256:
            if work is not None and body["plan"] == work.plan:
                found.extend(_work_shards(work, body, space, digests_of))
            else:
                found.extend(_work_shards(WorkFolder(root, body["plan"]), body, space, None))

    wanted = recipe.to_json()
    found.sort(key=lambda item: item[0].recipe != wanted)
    index = RowIndex(space)
    index.add_all([item for item in found if not engine_only or item[0].recipe["engine"] == recipe.engine])
    return index


def _entry_shards(entry: Entry) -> Iterator[Found]:
    """Yield an entry's shards with digests, from the sample table or, if that is damaged, from themselves."""
    samples = None
    try:
        samples = entry.read_samples()
    except CacheError as error:
        logger.warning("%s", error.message)
    first = 0
    for number, shard in enumerate(entry.shards):
        ref = ShardRef(
            entry.shard_path(number),
            shard["sha256"],
            shard["bytes"],
            shard["recipe"],
            shard["facts"].get("versions", {}),
        )
        span = slice(first, first + shard["rows"])
        first = span.stop
        if samples is not None:
            yield _found(ref, samples.digests[span], samples.usable[span])
            continue
        try:
            rows = entry.read_shard(number)
        except CacheError as error:
            logger.warning("%s; its rows are computed again", error.message)
            continue
        yield _found(ref, rows.digests, rows.status == USABLE)


def _work_shards(
    work: WorkFolder, body: dict[str, Any], space: FeatureSpace, digests_of: DigestsOf | None
) -> Iterator[Found]:
    for record in work.outlines():
        ref = ShardRef(
            work.shard_path(record), record.sha256, record.size, body["recipe"], record.facts.get("versions", {})
        )
        told = digests_of(record) if digests_of is not None else None
        if told is not None:
            yield _found(ref, told, record.usable)
            continue
        try:
            rows = work.read_shard(record, space)
        except CacheError as error:
            logger.warning("%s; its rows are computed again", error.message)
            continue
        yield _found(ref, rows.digests, rows.status == USABLE)


def _found(ref: ShardRef, digests: np.ndarray, usable: np.ndarray) -> Found:
    rows = np.flatnonzero(usable).astype(np.int32)
    return ref, digest_keys(digests[rows]), rows


def _segment(keys: np.ndarray, places: np.ndarray) -> _Segment:
    # np.unique keeps the first of equal keys, so earlier rows win. Of two digests that share 64 bits one is lost,
    # which costs a recomputation and never gives a wrong row: `fetch` compares all 32 bytes.
    unique, first = np.unique(keys, return_index=True)
    return _Segment(unique, places[first])


def digest_keys(digests: np.ndarray) -> np.ndarray:
    """Return the first 8 bytes of digests (n, 32) uint8 as big-endian numbers (n,) uint64."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
