"""What a cache promises after a crash, checked on real files.

Imports neither torch nor anything else that is slow to start.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from works import FRUIT, PHOTOS, RECIPE, RELABELLED, SPACE, Promise, Work

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.catalog import entry_folders
from pipeline.store.entry import open_entry
from pipeline.store.rows import index_rows
from pipeline.store.shard import ShardRows
from pipeline.store.statindex import StatIndex
from pipeline.store.verified import read_verified
from pipeline.store.verify import find_changed, find_damage
from pipeline.store.work import WorkFolder, list_work

WORKS = (FRUIT, RELABELLED)
Held = dict[tuple[Any, ...], Any]


def fold(held: Held, promise: Promise) -> Held:
    """Return what is promised after one more promise."""
    what, name, value = promise
    if what == "hold":
        return {**held, name: value}
    return {key: kept for key, kept in held.items() if key[: len(name)] != name}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings: what is damaged is said in them, thousands of times."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def complaints(root: Path, held: Held, *, thorough: bool = True) -> list[str]:
    """Return what is wrong with a cache of which `held` was promised.

    Bytes are compared always, with `thorough` they are also parsed, which takes most of the time.
    """
    try:
        with quiet():
            wrong = [*_entries(root, held, thorough), *_plans(root, held, thorough), *_memory(root)]
            return [*wrong, *_aside(root, held), *_files(root, held), *(_rows(root) if thorough else ())]
    except Exception as error:  # noqa: BLE001 - whatever comes is the answer
        return [f"{type(error).__name__}: {error}"]


def _entries(root: Path, held: Held, thorough: bool) -> Iterator[str]:
    """An entry is whole or absent, and holds nothing else; one that was promised is there."""
    folders = entry_folders(root)
    for folder in folders:
        work = next((work for work in WORKS if work.name == folder.name), None)
        if work is None:
            yield f"an entry {folder.name} that nobody made"
            continue
        if ("damaged", work.name) in held and ("entry", work.name) not in held:
            continue
        try:
            entry = open_entry(folder)
        except CacheError as error:
            yield f"entry is seen but not whole: {error.message}"
            continue
        damage = find_damage(entry) if thorough else find_changed(entry)
        yield from (f"entry is seen but not whole: {item.path.name} {item.reason}" for item in damage)
        if entry.manifest["id"] != work.id or [item["sha256"] for item in entry.shards] != _digests(work):
            yield "entry holds something else than was published"
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
        if ("damaged", work.name) in held:  # mended in its place: what a killed process left goes with `cache prune`
            files = [file for file in files if "/.tmp-" not in f"/{file}"]
        if files != sorted(entry_files(work)):
            yield f"entry holds the files {files}"
    for kind, *name in held:
        if kind == "entry" and root / name[0] not in folders:
            yield "a published entry is lost"


def entry_files(work: Work) -> dict[str, bytes | None]:
    """Return the files of an entry, with their bytes where equal work makes equal ones."""
    shards = {f"shards/{number:05d}.h5": data for number, data in enumerate(work.bytes)}
    return {"entry.json": None, "samples.h5": work.table_bytes, "skipped.csv": work.ledger, **shards}


def _digests(work: Work) -> list[str]:
    return [sha256_bytes(data) for data in work.bytes]


def _plans(root: Path, held: Held, thorough: bool) -> Iterator[str]:
    """What was pinned and committed is there; a record that is seen has its bytes."""
    list_work(root)
    for work in WORKS:
        folder = WorkFolder(root, work.plan)
        try:
            pinned = folder.pinned()
        except CacheError as error:
            yield f"plan is seen but damaged: {error.message}"
            continue
        leaving, damaged = ("leaving", work.plan) in held, ("damaged", work.name) in held
        # What one process commits while another that has published the entry removes the work is in the entry.
        published = leaving and ("entry", work.name) in held
        if pinned != RECIPE and (pinned is not None or (("plan", work.plan) in held and not published)):
            yield f"the pinned recipe is {pinned}"
        seen = {record.shard: record for record in folder.records()}
        for number, record in seen.items():
            promised = ("commit", work.plan, number) in held and not published
            try:
                data = read_verified(folder.shard_path(record), record.sha256, record.size)
            except CacheError as error:
                if promised or not (leaving or damaged):
                    yield f"a record has no bytes: {error.message}"
                continue
            if data != work.bytes[number] or (thorough and not _holds(folder.read_shard(record, SPACE), work, number)):
                yield f"shard {number} has other rows"
        lost = [name[1] for kind, *name in held if (kind, name[0]) == ("commit", work.plan) and name[1] not in seen]
        yield from (f"committed shard {number} is lost" for number in lost if not published)


def _holds(rows: ShardRows, work: Work, number: int) -> bool:
    wanted = work.shards[number]
    return rows.features.tobytes() == wanted.features.tobytes() and bool((rows.digests == wanted.digests).all())


def _memory(root: Path) -> Iterator[str]:
    """The stat index is the old one, the new one or empty, and knows nothing wrong."""
    true = {row["inode"]: row["digest"].tobytes() for work in WORKS for row in work.stats}
    known = StatIndex.load(root, PHOTOS).rows
    if {len(known)} - {0} - {len(work.stats) for work in WORKS} - {sum(len(work.stats) for work in WORKS)}:
        yield f"the stat index has {len(known)} rows"
    if any(true.get(row["inode"]) != row["digest"].tobytes() for row in known):
        yield "the stat index knows a wrong digest"


def _rows(root: Path) -> Iterator[str]:
    """Rows that are found in the cache are right."""
    index = index_rows(root, SPACE, recipe=RECIPE, engine_only=True)
    for rows in {id(rows): rows for work in WORKS for rows in work.shards}.values():
        features = np.zeros_like(rows.features)
        had = index.fetch(index.find(rows.digests), rows.digests, features)
        if had[rows.status == 1].any() or (features[had] != rows.features[had]).any():
            yield "a row found in the cache is wrong"


def _files(root: Path, held: Held) -> Iterator[str]:
    """A file holds one of the things it may hold, None for absent."""
    for (kind, *name), allowed in held.items():
        if kind == "reads":
            path = root.parent / name[0]
            if (path.read_bytes() if path.exists() else None) not in allowed:
                yield f"{path.name} is lost or torn"


def _aside(root: Path, held: Held) -> Iterator[str]:
    """What was set aside lies there, and not where it lay."""
    for (kind, *name), data in held.items():
        if kind == "aside":
            there = root / name[1]
            if not there.is_file() or there.read_bytes() != data:
                yield "a damaged file that was set aside is lost"
            before = root / name[0]
            if before.is_file() and before.read_bytes() == data:
                yield "a damaged file that was set aside is back"
