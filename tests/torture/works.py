"""A tiny extraction: what `extract` does in the cache, in its order, but without images and without a network.

Imports neither torch nor anything else that is slow to start.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.entry import open_entry
from pipeline.store.key import SHORT, FeatureSpace, Recipe, entry_id
from pipeline.store.publish import publish_entry
from pipeline.store.rows import index_rows
from pipeline.store.samples import SampleTable, skipped_csv
from pipeline.store.shard import ShardRows, shard_bytes
from pipeline.store.statindex import ROW, StatIndex
from pipeline.store.verify import find_changed
from pipeline.store.work import Record, WorkFolder

PHOTOS = "/photos"
EXPORTED = b"an exported file" * 100
SPACE = FeatureSpace("torchvision/tiny", "0" * 64, "input:fc", "none", {"mean": [0.5]}, "float32", "float32", (4,))
RECIPE = Recipe("reference", "torch 2", "cpu", 2, 4, 5)
CLASSES = ("apple", "beet")

Promise = tuple[str, tuple[Any, ...], Any]
"""What is done with it (`hold` or `release`), its name, and its value; a release is of all names that begin so."""
OnPromise = Callable[[Promise], None]


def made_rows(seed: int, n: int = 5) -> ShardRows:
    """Rows of one shard; one image could not be used."""
    rng = np.random.default_rng(seed)
    status = np.zeros(n, np.uint8)
    status[seed % n] = 1
    features = rng.normal(size=(n, 4)).astype(np.float32)
    features[status == 1] = 0
    return ShardRows(features, rng.integers(0, 256, (n, 32), np.uint8), status)


@dataclass(frozen=True)
class Work:
    """An extraction: the seed of each of its shards, and a seed of its labels."""

    seeds: tuple[int, ...]
    labels: int = 0

    @property
    def plan(self) -> str:
        return sha256_bytes(repr(self).encode())

    @cached_property
    def shards(self) -> list[ShardRows]:
        return [made_rows(seed) for seed in self.seeds]

    @cached_property
    def bytes(self) -> list[bytes]:
        return [shard_bytes(SPACE, rows) for rows in self.shards]

    @cached_property
    def table(self) -> SampleTable:
        digests = np.concatenate([rows.digests for rows in self.shards])
        n = len(digests)
        rng = np.random.default_rng(self.labels)
        status = np.concatenate([rows.status for rows in self.shards])
        return SampleTable(
            [f"{row:02d}.jpg" for row in range(n)],
            digests,
            rng.integers(0, len(CLASSES), n),
            (np.arange(n) % 3).astype(np.int8),
            status,
        )

    @cached_property
    def table_bytes(self) -> bytes:
        return self.table.to_bytes()

    @cached_property
    def ledger(self) -> bytes:
        return skipped_csv(self.table.ids, dict.fromkeys(np.flatnonzero(self.table.status).tolist(), "damaged"))

    @cached_property
    def id(self) -> str:
        table = self.table
        return entry_id(SPACE, CLASSES, table.ids, table.digests, table.labels, table.splits)

    @property
    def name(self) -> str:
        """The entry's folder."""
        return self.id[:SHORT]

    @cached_property
    def stats(self) -> np.ndarray:
        """Stat index rows of its files; inodes tell which work they are from."""
        rows = np.zeros(len(self.table), ROW)
        rows["inode"] = np.arange(len(rows)) + 1000 * (1 + self.labels)
        rows["size"], rows["digest"] = rows["inode"] * 7, self.table.digests
        return rows

    def manifest(self) -> dict[str, Any]:
        facts = {"versions": {"torch": "2"}}
        recipe = RECIPE.to_json()
        return {
            "id": self.id,
            "space": SPACE.to_json(),
            "space_sha256": SPACE.sha256,
            "backbone": {"name": "torchvision/tiny", "weights": "none"},
            "source": {"kind": "folder", "spec": PHOTOS},
            "classes": list(CLASSES),
            "split_rule": None,
            "shards": [
                {"sha256": sha256_bytes(data), "bytes": len(data), "rows": 5, "recipe": recipe, "facts": facts}
                for data in self.bytes
            ],
            "recipe": recipe,
            "versions": {"torch": "2"},
            "command": "",
            "created": "2026-01-01T00:00:00+00:00",
        }


FRUIT = Work((0, 1, 0))
"""Two shards of equal bytes among three."""
RELABELLED = Work((1, 2), labels=1)
"""Shares a shard with FRUIT."""


def nothing(promise: Promise) -> None:
    """Promise nothing."""


def extract(root: Path, work: Work, promise: OnPromise = nothing, *, restart: bool = False) -> None:
    """Do what `extract` does, in its order; what is done already is taken."""
    folder = WorkFolder(root, work.plan)
    if restart:
        _leave(folder, promise)
    folder.pin(SPACE, RECIPE, {"source": PHOTOS})
    promise(("hold", ("plan", work.plan), RECIPE))
    index = index_rows(root, SPACE, recipe=RECIPE, engine_only=False)
    equal = {} if restart else index.paths_by_sha256()
    paths = []
    for number in range(len(work.seeds)):
        record = folder.record(number)
        try:
            done = record is not None and folder.read_shard(record, SPACE) is not None
        except CacheError:
            done = False
        if not done:
            record = commit(folder, work, number, equal, record)
            promise(("hold", ("commit", work.plan, number), sha256_bytes(work.bytes[number])))
        paths.append(folder.shard_path(record))
    if restart:
        promise(("release", ("entry", work.name), None))
    try:
        publish_entry(root, work.manifest(), paths, work.table, work.ledger, replace=restart)
    except FileNotFoundError:  # another process has published the entry and removed the shards
        if find_changed(open_entry(root / work.name)):
            raise
    promise(("hold", ("entry", work.name), None))
    StatIndex.load(root, PHOTOS).updated(work.stats).save(root, PHOTOS)
    promise(("hold", ("leaving", work.plan), None))
    _leave(folder, promise)


def _leave(folder: WorkFolder, promise: OnPromise) -> None:
    promise(("release", ("plan", folder.plan), None))
    promise(("release", ("commit", folder.plan), None))
    folder.discard()


def commit(
    folder: WorkFolder, work: Work, number: int, equal: Mapping[str, Path], stale: Record | None = None
) -> Record:
    """Commit a shard of `work`."""
    rows = work.shards[number]
    return folder.commit(
        number,
        SPACE,
        rows,
        bad=dict.fromkeys(np.flatnonzero(rows.status).tolist(), "damaged"),
        stats=work.stats[5 * number : 5 * number + 5],
        computed=4,
        reused=0,
        facts={"versions": {"torch": "2"}},
        equal=equal,
        stale=stale.sha256 if stale else None,
    )
