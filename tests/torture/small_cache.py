"""A cache root with one file of every kind in it, a few kilobytes in all, and a reader for each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import CacheError
from pipeline.store.entry import Entry, open_entry
from pipeline.store.key import FeatureSpace, Recipe, entry_id
from pipeline.store.publish import publish_entry
from pipeline.store.samples import SampleTable, skipped_csv
from pipeline.store.shard import ShardRows
from pipeline.store.statindex import ROW, StatIndex, index_path
from pipeline.store.work import Record, WorkFolder

SPACE = FeatureSpace("torchvision/tiny", "0" * 64, "input:fc", "none", {"mean": [0.5]}, "float32", "float32", (4,))
RECIPE = Recipe("reference", "torch 2", "cpu", 2, 4, 8)
CLASSES = ("apple", "beet")
PLAN = "ab" * 32
FOLDER = "/photos"
ROWS = 5
BAD_ROW = 2


def make_rows(seed: int = 0, n: int = ROWS) -> ShardRows:
    """`n` rows, one of them of an image that could not be used."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, *SPACE.row_shape)).astype(np.float32)
    status = (np.arange(n) == BAD_ROW).astype(np.uint8)
    features[status == 1] = 0
    return ShardRows(features, rng.integers(0, 256, (n, 32), np.uint8), status)


def make_table(parts: list[ShardRows]) -> SampleTable:
    """The sample table of these shards, with one name that is not ASCII and one that is no UTF-8."""
    n = sum(len(part.status) for part in parts)
    ids = [f"beet/{row:02d}.jpg" for row in range(n)]
    ids[:2] = ["grüße/日本.png", b"grr/\xff\xe9.jpg".decode("utf-8", "surrogateescape")]
    return SampleTable(
        ids[:n],
        np.concatenate([part.digests for part in parts]),
        np.arange(n) % len(CLASSES),
        (np.arange(n) % 3).astype(np.int8),
        np.concatenate([part.status for part in parts]),
    )


def make_stats(n: int = ROWS) -> np.ndarray:
    """Rows of a stat index."""
    rows = np.zeros(n, ROW)
    rows["inode"], rows["size"], rows["mtime"], rows["ctime"] = np.arange(n) + 10, 900, 10**18, 10**18
    rows["digest"] = make_rows(7, n).digests
    return rows


def make_body(digest: str, shards: list[Record]) -> dict[str, Any]:
    """The fields of a manifest that `publish_entry` does not find out by itself."""
    return {
        "id": digest,
        "space": SPACE.to_json(),
        "space_sha256": SPACE.sha256,
        "backbone": {"name": "torchvision/tiny", "weights": "none"},
        "source": {"kind": "folder", "spec": "photos"},
        "classes": list(CLASSES),
        "split_rule": None,
        "shards": [
            {"sha256": made.sha256, "bytes": made.size, "rows": made.rows, "recipe": RECIPE.to_json(), "facts": {}}
            for made in shards
        ],
        "recipe": RECIPE.to_json(),
        "versions": {},
        "command": "",
        "created": "2026-01-01T00:00:00+00:00",
    }


def commit(work: WorkFolder, number: int, rows: ShardRows, **changes: Any) -> Record:
    """Commit a shard of work in progress."""
    options = {"bad": {BAD_ROW: "no image"}, "stats": make_stats(), "computed": 4, "reused": 0, "facts": {}}
    return work.commit(number, SPACE, rows, **{**options, "equal": {}, "stale": None, **changes})


def make_entry(root: Path, seeds: list[int]) -> Entry:
    """Publish an entry with a shard for each seed."""
    parts = [make_rows(seed) for seed in seeds]
    table = make_table(parts)
    work = WorkFolder(root, "cd" * 32)
    work.pin(SPACE, RECIPE, {})
    shards = [commit(work, number, part) for number, part in enumerate(parts)]
    digest = entry_id(SPACE, CLASSES, table.ids, table.digests, table.labels, table.splits)
    reasons = {int(row): "cannot be decoded" for row in np.flatnonzero(table.status)}
    paths = [work.shard_path(made) for made in shards]
    entry = publish_entry(root, make_body(digest, shards), paths, table, skipped_csv(table.ids, reasons))
    work.discard()
    return entry


@dataclass(frozen=True)
class SmallCache:
    """A finished entry, work in progress with two records, and a stat index under one root."""

    root: Path
    entry: Entry
    work: WorkFolder
    records: list[Record]
    """The records as they were committed: what damaged files are read with."""

    def readers(self) -> dict[Path, Callable[[], Any]]:
        """How the package reads each file: a function that returns its content, or None if it is refused."""
        entry, work, shards = self.entry, self.work, {made.sha256: made for made in self.records}
        found: dict[Path, Callable[[], Any]] = {
            entry.path / "entry.json": lambda: open_entry(entry.path).manifest,
            entry.path / "samples.h5": lambda: plain(entry.read_samples()),
            entry.path / "skipped.csv": entry.skipped,
            work.path / "plan.json": work.pinned,
            index_path(self.root, FOLDER): lambda: StatIndex.load(self.root, FOLDER).rows.tobytes() or None,
        }
        for number in range(len(entry.shards)):
            found[entry.shard_path(number)] = lambda number=number: plain(entry.read_shard(number))
        for made in shards.values():
            found[work.shard_path(made)] = lambda made=made: plain(work.read_shard(made, SPACE))
        for made in self.records:
            path = work.path / "records" / f"{made.shard:05d}.json"
            found[path] = lambda made=made: plain(work.record(made.shard))
        files = {path for path in self.root.rglob("*") if path.is_file()}
        assert files == set(found), "every file has its reader"
        return {path: refusing(read) for path, read in sorted(found.items())}


def refusing(read: Callable[[], Any]) -> Callable[[], Any]:
    """Make a reader that returns None where `read` raises CacheError."""

    def reader() -> Any:
        try:
            return read()
        except CacheError:
            return None

    return reader


def plain(value: Any) -> Any:
    """Content as values that can be compared: arrays become their bytes. Where it lay in a file is no content."""
    if value is None:
        return None
    return {
        name: (item.shape, item.tobytes()) if isinstance(item, np.ndarray) else item
        for name, item in vars(value).items()
        if name != "offset"
    }


def make_cache(root: Path, seeds: tuple[int, ...] = (0,), work_seeds: tuple[int, ...] = (1, 1)) -> SmallCache:
    """Make the cache; equal seeds are equal shards, which lie on disk once."""
    entry = make_entry(root, list(seeds))
    work = WorkFolder(root, PLAN)
    work.pin(SPACE, RECIPE, {"source": "photos"})
    records = [commit(work, number, make_rows(seed)) for number, seed in enumerate(work_seeds)]
    StatIndex(make_stats()).save(root, FOLDER)
    return SmallCache(root, entry, work, records)


def overwrite(path: Path, data: bytes) -> None:
    """Replace a file, which may be read-only and have other names, by a new one."""
    path.unlink()
    path.write_bytes(data)


def other_space() -> FeatureSpace:
    """A space whose rows have the same shape."""
    return replace(SPACE, weights="1" * 64)
