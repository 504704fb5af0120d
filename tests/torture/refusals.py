"""What a reader of the cache must refuse, one check each: quick, for the detector of faults built into the store.

A check gets a cache of its own that holds a finished entry and work in progress, and fails by raising.
Imports neither torch nor anything else that is slow to start.
"""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from works import FRUIT, PHOTOS, RECIPE, RELABELLED, SPACE, commit, extract

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.commit import write_json
from pipeline.store.entry import open_entry
from pipeline.store.rows import RowIndex, ShardRef
from pipeline.store.samples import SampleTable
from pipeline.store.single import export_single, import_single
from pipeline.store.statindex import StatIndex, index_path
from pipeline.store.verify import find_changed, find_damage
from pipeline.store.work import WorkFolder

FLIPS = 12
"""Bits turned in each file."""
PATIENCE = 5
"""Seconds after which a pipe is waited for."""


def prepare(root: Path) -> None:
    """Make a finished entry, a stat index, and work in progress with one shard committed."""
    extract(root, FRUIT)
    work = WorkFolder(root, RELABELLED.plan)
    work.pin(SPACE, RECIPE, {"source": PHOTOS})
    commit(work, RELABELLED, 0, {})


def readers(root: Path) -> dict[Path, Callable[[], Any]]:
    """Return what reads each file; all of them raise CacheError or return nothing if it is damaged."""
    entry, work = root / FRUIT.name, WorkFolder(root, RELABELLED.plan)
    record = work.record(0)
    assert record is not None
    shards = {
        entry / "shards" / f"{number:05d}.h5": lambda number=number: open_entry(entry).read_shard(number)
        for number in range(3)
    }
    return {
        entry / "entry.json": lambda: open_entry(entry),
        entry / "samples.h5": lambda: open_entry(entry).read_samples(),
        entry / "skipped.csv": lambda: open_entry(entry).read_skipped_bytes(),
        **shards,
        work.path / "plan.json": work.pinned,
        work.path / "records" / "00000.json": lambda: work.record(0),
        work.shard_path(record): lambda: work.read_shard(record, SPACE),
        index_path(root, PHOTOS): lambda: list(StatIndex.load(root, PHOTOS).rows),
    }


def refused(read: Callable[[], Any], what: str) -> None:
    try:
        found = read()
    except CacheError:
        return
    if found is not None and found != []:
        raise AssertionError(f"accepted: {what}")


def overwrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def reseal(path: Path, **changes: Any) -> None:
    """Give a sealed document other values, as somebody might who knows the format."""
    body = {key: value for key, value in json.loads(path.read_bytes()).items() if key != "sha256"}
    write_json(path, {**body, **changes}, replace=True)


def turned_bits(root: Path) -> None:
    rng = random.Random(0)
    for path, read in readers(root).items():
        data = path.read_bytes()
        places = [rng.randrange(len(data)) for _ in range(FLIPS)]
        damaged = [data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] for at in places]
        for wrong in (*damaged, b"", data[: len(data) // 2], data[:-1], data + b"\0"):
            overwrite(path, wrong)
            refused(read, f"{path.name} with other bytes")
            if path.parent.parent.name == FRUIT.name or path.suffix == ".csv":
                assert [item.path for item in find_changed(open_entry(root / FRUIT.name))] == [path], "damage not found"
        overwrite(path, data)
        assert read() is not None


def other_spellings(root: Path) -> None:
    for path, read in readers(root).items():
        if path.suffix == ".json":
            body, data = json.loads(path.read_bytes()), path.read_bytes()
            twice = data.replace(b"{", b'{\n "format": "x",', 1)
            for wrong in (data + b"\n", data.replace(b" ", b"  ", 1), json.dumps(body, indent=2).encode(), twice):
                overwrite(path, wrong)
                refused(read, f"{path.name} spelled in another way")
            overwrite(path, data)


def other_values(root: Path) -> None:
    for path, read in readers(root).items():
        if path.suffix == ".json":
            data = path.read_bytes()
            overwrite(path, json.dumps({**json.loads(data), "more": 1}, indent=1, ensure_ascii=True).encode() + b"\n")
            refused(read, f"{path.name} with another value and the old seal")
            overwrite(path, data)
            for changes in ({"format": "other"}, {"format_version": 2}):
                reseal(path, **changes)
                refused(read, f"{path.name} of another format")
            overwrite(path, data)


def other_names(root: Path) -> None:
    work, other = WorkFolder(root, RELABELLED.plan), RELABELLED.plan[:16] + "0" * 48
    shutil.copy(work.path / "records" / "00000.json", work.path / "records" / "00001.json")
    assert work.record(1) is None, "a record under the name of another shard"
    refused(WorkFolder(root, other).pinned, "the plan of another extraction")
    moved = root / "0123456789abcdef"
    os.rename(root / FRUIT.name, moved)
    refused(lambda: open_entry(moved), "an entry under the name of another")


def other_content(root: Path) -> None:
    """Files that are whole and sealed, but not of this entry."""
    folder = root / FRUIT.name
    entry = open_entry(folder)
    manifest = (folder / "entry.json").read_bytes()
    table = FRUIT.table
    swapped = SampleTable(table.ids, table.digests, 1 - table.labels, table.splits, table.status).to_bytes()
    overwrite(folder / "samples.h5", swapped)
    reseal(folder / "entry.json", samples=described(swapped))
    refused(open_entry(folder).read_samples, "the sample table of another entry")
    assert find_damage(open_entry(folder)), "the sample table of another entry is not found"
    overwrite(folder / "entry.json", manifest)
    for changes in (
        {"shards": entry.shards[:2]},
        {"samples_listed": 14},
        {"shards": [{**entry.shards[0], "rows": -5}, *entry.shards[1:]]},
        {"shards": [{**entry.shards[0], "sha256": "../" * 21 + "x"}, *entry.shards[1:]]},
        {"rows": 16},
        {"rows": True},
        {"splits": {"all": 15}},
        {"classes": [1, 2]},
        {"samples": {"sha256": "0" * 64}},
        {"source": {}},
    ):
        reseal(folder / "entry.json", **changes)
        refused(lambda: open_entry(folder), f"a manifest with {changes}")
        overwrite(folder / "entry.json", manifest)


def described(data: bytes) -> dict[str, Any]:
    return {"sha256": sha256_bytes(data), "bytes": len(data)}


def no_regular_files(root: Path) -> None:
    signal.alarm(PATIENCE)
    for path, read in readers(root).items():
        if path.suffix in (".stat", ".csv"):
            continue
        data = path.read_bytes()
        aside = path.rename(root / "aside")
        for make in ("link", "pipe", "folder"):
            if make == "link":
                path.symlink_to(aside)
            elif make == "pipe":
                os.mkfifo(path)
                refused(read, f"{path.name} that is an empty pipe")
                pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
                os.write(pipe, data)
            else:
                path.mkdir()
            refused(read, f"{path.name} that is no regular file")
            if path.parent.parent.name == FRUIT.name:
                assert find_changed(open_entry(root / FRUIT.name)), "no regular file is not found"
            path.rmdir() if make == "folder" else path.unlink()
            if make == "pipe":
                os.close(pipe)
        aside.rename(path)
    signal.alarm(0)


def near_digests(root: Path) -> None:
    """Two digests that share their first 8 bytes."""
    index = RowIndex(SPACE)
    path = root / FRUIT.name / "shards" / "00000.h5"
    shard = open_entry(root / FRUIT.name).shards[0]
    rows = FRUIT.shards[0]
    index.add(ShardRef(path, shard["sha256"], shard["bytes"], {}, {}), rows.digests, rows.status == 0)
    near = rows.digests.copy()
    near[:, 8:] ^= 1
    out = np.zeros_like(rows.features)
    assert not index.fetch(index.find(near), near, out).any(), "a row of another image"
    assert not out.any()
    assert (index.fetch(index.find(rows.digests), rows.digests, out) == (rows.status == 0)).all()


def exported_files(root: Path) -> None:
    """An exported file with other bytes is not imported."""
    path, other = root / "fruit.h5", root / "other"
    export_single(open_entry(root / FRUIT.name), path)
    data, rng = path.read_bytes(), random.Random(0)
    for at in [rng.randrange(len(data)) for _ in range(FLIPS)]:
        overwrite(path, data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        refused(lambda: import_single(path, other), "an exported file with other bytes")
    overwrite(path, data)
    assert not find_damage(import_single(path, other))


CHECKS = (
    turned_bits,
    other_spellings,
    other_values,
    other_names,
    other_content,
    no_regular_files,
    near_digests,
    exported_files,
)
