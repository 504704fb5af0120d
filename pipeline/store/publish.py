"""A finished entry put in its place: its folder appears whole or not at all."""

import contextlib
import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import sha256_bytes, sha256_file
from pipeline.errors import CacheError
from pipeline.store.commit import (
    disk_errors,
    publish_link,
    remove_folder,
    sync_folder,
    temporary_folder,
    temporary_name,
    write_json,
    write_new,
)
from pipeline.store.entry import MANIFEST, SAMPLES, SHARDS, SKIPPED, Entry, open_entry
from pipeline.store.key import SHORT, SPLITS
from pipeline.store.manifest import FORMAT, FORMAT_VERSION
from pipeline.store.samples import SampleTable
from pipeline.store.verify import find_damage

IN_MEMORY = 1_000_000
"""Samples in a table that is built in memory; a larger one is written where it belongs."""
TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
"""What renaming a folder to a name that is not free answers."""


def publish_entry(
    root: Path,
    body: dict[str, Any],
    shards: Sequence[Path],
    table: SampleTable,
    skipped: bytes,
    *,
    replace: bool = False,
) -> Entry:
    """Put an entry under `root`: durable `shards` are linked, everything else is written.

    Args:
        root: the cache root.
        body: the manifest's fields, without those that follow from the other arguments.
        shards: the files that `body["shards"]` describes, in order.
        table: the sample table.
        skipped: the ledger of unusable images.
        replace: whether an entry of the same id that is there and whole gives way.

    Returns:
        The entry, as it was when it had its place: another process may remove it at any time.

    Raises:
        FileNotFoundError: if a shard is gone.
        CacheError: if the disk is full or cannot be written.
    """
    goal = root / str(body["id"])[:SHORT]
    with temporary_folder(root) as folder, disk_errors(goal, 0):
        _fill(folder, body, shards, table, skipped)
        return _put(folder, goal, replace=replace)


def _put(folder: Path, goal: Path, *, replace: bool) -> Entry:
    """Give a filled folder its name. Return its entry, or the whole one that has the name and stays unless `replace`.

    The name is tried before anything is moved away: what another process puts there meanwhile is looked at first.
    """
    gone: list[Path] = []
    entry = dataclasses.replace(open_entry(folder), path=goal)
    try:
        while not _renamed(folder, goal):
            there = None if replace else _whole(goal)
            if there is not None:
                entry = there
                break
            gone.append(temporary_name(goal))
            with contextlib.suppress(FileNotFoundError):
                os.rename(goal, gone[-1])
            replace = False  # what comes after is as new as this one
        sync_folder(goal.parent)  # also for a name that another process has given just now
    except BaseException:
        if gone and not goal.exists():
            with contextlib.suppress(OSError):
                os.rename(gone[0], goal)
        raise
    for path in gone:
        remove_folder(path)
    return entry


def _renamed(folder: Path, goal: Path) -> bool:
    try:
        os.rename(folder, goal)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return False
    return True


def _whole(path: Path) -> Entry | None:
    try:
        entry = open_entry(path)
    except CacheError:
        return None
    return None if find_damage(entry) else entry


def _fill(folder: Path, body: dict[str, Any], shards: Sequence[Path], table: SampleTable, skipped: bytes) -> None:
    """Write all files of an entry, the manifest last. No name is seen before the folder has its own."""
    (folder / SHARDS).mkdir()
    for number, path in enumerate(shards):
        publish_link(path, folder / SHARDS / f"{number:05d}.h5", sync=False)
    sync_folder(folder / SHARDS)
    samples = _write_samples(folder / SAMPLES, table)
    write_new(folder / SKIPPED, skipped)
    write_json(folder / MANIFEST, complete_manifest(body, table, samples, skipped), replace=False)
    sync_folder(folder)


def _write_samples(path: Path, table: SampleTable) -> dict[str, Any]:
    """Write a sample table. Return what a manifest says of its bytes."""
    if len(table) <= IN_MEMORY:
        data = table.to_bytes()
        write_new(path, data)
        return described(data)
    table.write(path)
    path.chmod(0o444)  # as `write_new` leaves its files
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def described(data: bytes) -> dict[str, Any]:
    """Return what a manifest says of a file's bytes."""
    return {"sha256": sha256_bytes(data), "bytes": len(data)}


def complete_manifest(
    body: dict[str, Any], table: SampleTable, samples: dict[str, Any], skipped: bytes
) -> dict[str, Any]:
    """Return a manifest's fields with those that follow from the sample table, what is said of it, and the ledger."""
    counts = np.bincount(table.splits[table.usable], minlength=len(SPLITS)).tolist()
    return {
        **body,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "rows": int(table.usable.sum()),
        "samples_listed": len(table),
        "splits": {name: count for name, count in zip(SPLITS, counts, strict=True) if count},
        "samples": samples,
        "skipped": {
            **described(skipped),
            "count": len(table) - int(table.usable.sum()),
        },
    }
