"""What a writer must leave alone, and what it must not leave behind, one check each, as in `refusals`.

Imports neither torch nor anything else that is slow to start.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from refusals import described, overwrite, refused
from works import FRUIT, RECIPE, RELABELLED, SPACE, commit, made_rows

from pipeline.store.catalog import entry_folders
from pipeline.store.commit import leftovers, publish_file, publish_link, replace_file, write_new
from pipeline.store.entry import open_entry
from pipeline.store.publish import publish_entry
from pipeline.store.statindex import StatIndex, stat_rows
from pipeline.store.verify import find_damage
from pipeline.store.work import WorkFolder


def taken_names(root: Path) -> None:
    """What has its name keeps it, and other names of a file that is replaced keep the old one."""
    path, twin = root / "taken", root / "twin"
    write_new(path, b"first")
    os.link(path, twin)
    try:
        write_new(path, b"second")
    except FileExistsError:
        pass
    else:
        raise AssertionError("write_new on a name that is taken")
    assert not publish_file(path, b"second")
    write_new(root / "third", b"third")
    assert not publish_link(root / "third", path)
    assert path.read_bytes() == b"first"
    with path.open("rb") as reader:
        replace_file(path, b"replaced")
        assert reader.read() == twin.read_bytes() == b"first", "changed in place"
    assert path.read_bytes() == b"replaced"
    assert not leftovers([root], -10), "a temporary file stays"


def two_writers(root: Path) -> None:
    """The first pin and the first commit hold; a record that is out of date gives way."""
    work = WorkFolder(root, RELABELLED.plan)
    assert WorkFolder(root, RELABELLED.plan).pin(SPACE, replace(RECIPE, threads=9), {}) == RECIPE
    first = work.record(0)
    rows = made_rows(7)
    options = {"bad": {}, "stats": FRUIT.stats[:0], "computed": 5, "reused": 0, "facts": {}, "equal": {}}
    assert work.commit(0, SPACE, rows, **options, stale=None).sha256 == first.sha256 == work.record(0).sha256
    assert work.commit(0, SPACE, rows, **options, stale=first.sha256).sha256 == work.record(0).sha256 != first.sha256
    path = root / "twin.h5"
    path.write_bytes(RELABELLED.bytes[1][:-1] + b"x")
    made = commit(work, RELABELLED, 1, {described(RELABELLED.bytes[1])["sha256"]: path})
    assert work.read_shard(made, SPACE).status.tolist() == RELABELLED.shards[1].status.tolist()
    overwrite(work.shard_path(made), path.read_bytes())
    commit(work, RELABELLED, 1, {})
    assert work.read_shard(made, SPACE).status.tolist() == RELABELLED.shards[1].status.tolist()


def failing_disk(root: Path) -> None:
    """A full disk, and one that cannot keep what was written, is said; nothing gets its name and nothing stays."""
    for call, code in (("write", errno.ENOSPC), ("fsync", errno.EIO), ("link", errno.EIO)):
        with failing(call, code) as calls:
            refused(lambda: publish_file(root / "new", b"data") or True, f"a {call} that fails")
            if call != "link":
                refused(lambda: replace_file(root / "new", b"data") or True, f"a {call} that fails")
        assert calls
        assert not (root / "new").exists(), f"a name in spite of a {call} that fails"
        assert not leftovers([root], -10), f"a temporary file after a {call} that fails"
    with failing("fsync", errno.EIO, of=stat.S_ISDIR):
        refused(lambda: publish_file(root / "new", b"data") or True, "a folder that cannot be synced")


@contextlib.contextmanager
def failing(call: str, code: int, of: Callable[[int], bool] | None = None) -> Iterator[list]:
    """Let a function of `os` fail, with `of` only on descriptors of such a mode; yields the calls that failed."""
    real, calls = getattr(os, call), []

    def fail(*arguments: Any, **options: Any) -> Any:
        if of is not None and not of(os.fstat(arguments[0]).st_mode):
            return real(*arguments, **options)
        calls.append(arguments)
        raise OSError(code, os.strerror(code))

    setattr(os, call, fail)
    try:
        yield calls
    finally:
        setattr(os, call, real)


def publishing(root: Path) -> None:
    """A whole entry stays, a damaged one is replaced, and one whose shard is gone does not appear."""
    folder = root / FRUIT.name
    shards = [root / f"{number}.h5" for number in range(3)]
    for path, data in zip(shards, FRUIT.bytes, strict=True):
        path.write_bytes(data)
    arguments = (FRUIT.manifest(), shards, FRUIT.table, FRUIT.ledger)
    before = folder.stat().st_ino
    publish_entry(root, *arguments)
    assert folder.stat().st_ino == before, "a whole entry was replaced"
    overwrite(folder / "samples.h5", b"damaged")
    publish_entry(root, *arguments)
    assert not find_damage(open_entry(folder)), "a damaged entry was not replaced"
    shutil.rmtree(folder)
    shards[1].unlink()
    try:
        publish_entry(root, *arguments)
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("published without a shard")
    assert not entry_folders(root)
    assert not leftovers([root], -10), "half an entry stays"


def fresh_files(root: Path) -> None:
    """A file as new as its reading is not remembered; of one that is, every stat field counts."""
    now = 10**18
    stats = np.array([[1, 2, now - 10**10, now - 10**10], [2, 2, now, now - 10**10], [3, 2, now - 10**10, now]])
    rows = stat_rows(stats, np.ones((3, 32), np.uint8), np.full(3, now))
    assert rows["inode"].tolist() == [1], "a file that may change unseen is remembered"
    index = StatIndex(rows)
    assert index.lookup(stats)[1].tolist() == [True, False, False]
    for column in range(4):
        other = stats[:1].copy()
        other[0, column] += 1
        assert not index.lookup(other)[1].any(), "a changed file is taken for the old one"


CHECKS = (taken_names, two_writers, failing_disk, publishing, fresh_files)
