"""Entries put in their place: whole or absent, the first of equal ones stays, damage gives way."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from small_cache import CLASSES, SPACE, make_body, make_rows, make_table, overwrite

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store import publish
from pipeline.store.commit import read_json, remove_folder
from pipeline.store.entry import Entry, open_entry
from pipeline.store.key import entry_id
from pipeline.store.publish import publish_entry
from pipeline.store.samples import skipped_csv
from pipeline.store.shard import shard_bytes
from pipeline.store.verify import find_damage
from pipeline.store.work import Record

PARTS = [make_rows(0), make_rows(1)]
TABLE = make_table(PARTS)
ID = entry_id(SPACE, CLASSES, TABLE.ids, TABLE.digests, TABLE.labels, TABLE.splits)
LEDGER = skipped_csv(TABLE.ids, {int(row): "cannot be decoded" for row in np.flatnonzero(TABLE.status)})


@pytest.fixture
def shards(tmp_path) -> list[Path]:
    """The shards as they lie elsewhere, durable."""
    paths = [tmp_path / f"made-{number}.h5" for number in range(len(PARTS))]
    for path, rows in zip(paths, PARTS, strict=True):
        path.write_bytes(shard_bytes(SPACE, rows))
    return paths


def body(shards: list[Path], **changes) -> dict:
    made = [
        Record(number, sha256_bytes(path.read_bytes()), path.stat().st_size, 5, 5, 0, {}, np.empty(0), {})
        for number, path in enumerate(shards)
    ]
    return {**make_body(ID, made), **changes}


def put(root: Path, shards: list[Path], *, replace: bool = False, **changes) -> Entry:
    return publish_entry(root, body(shards, **changes), shards, TABLE, LEDGER, replace=replace)


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_an_entry_is_there_with_all_its_files(tmp_path, shards):
    entry = put(tmp_path / "root", shards)
    assert entry.path == tmp_path / "root" / ID[:16]
    files = ("entry.json", "samples.h5", "shards/00000.h5", "shards/00001.h5", "skipped.csv")
    assert names(tmp_path / "root") == [f"{ID[:16]}/{name}" for name in files]
    assert find_damage(entry) == []
    assert entry.read_samples().ids == TABLE.ids
    assert entry.read_skipped_bytes() == LEDGER
    for number, rows in enumerate(PARTS):
        assert entry.read_shard(number).features.tobytes() == rows.features.tobytes()


def test_the_manifest_counts_what_the_table_holds(tmp_path, shards):
    manifest = put(tmp_path / "root", shards, command="extract photos").manifest
    assert (manifest["rows"], manifest["samples_listed"], manifest["skipped"]["count"]) == (8, 10, 2)
    assert manifest["splits"] == {"train": 4, "val": 2, "test": 2}
    assert manifest["command"] == "extract photos"
    assert (manifest["format"], manifest["format_version"]) == ("pipeline-entry", 1)


def test_shards_are_linked_and_stay_where_they_were(tmp_path, shards):
    entry = put(tmp_path / "root", shards)
    for number, path in enumerate(shards):
        assert entry.shard_path(number).samefile(path)


def test_shards_are_copied_where_links_are_refused(tmp_path, shards, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    entry = put(tmp_path / "root", shards)
    assert not entry.shard_path(0).samefile(shards[0])
    assert find_damage(entry) == []
    assert not [name for name in names(tmp_path / "root") if ".tmp-" in name]


def test_files_of_an_entry_may_not_be_written(tmp_path, shards):
    entry = put(tmp_path / "root", shards)
    for name in ("entry.json", "samples.h5", "skipped.csv"):
        assert (entry.path / name).stat().st_mode & 0o222 == 0


def test_a_whole_entry_stays_and_its_newer_equal_is_dropped(tmp_path, shards):
    first = put(tmp_path / "root", shards, command="first")
    before = (first.path / "samples.h5").stat().st_ino
    again = put(tmp_path / "root", shards, command="second")
    assert again.manifest["command"] == "first"
    assert (first.path / "samples.h5").stat().st_ino == before
    assert list((tmp_path / "root").iterdir()) == [first.path]


def test_a_whole_entry_gives_way_when_asked_to(tmp_path, shards):
    put(tmp_path / "root", shards, command="first")
    again = put(tmp_path / "root", shards, command="second", replace=True)
    assert again.manifest["command"] == "second"
    assert list((tmp_path / "root").iterdir()) == [again.path]


@pytest.mark.parametrize("name", ["entry.json", "samples.h5", "skipped.csv", "shards/00001.h5"])
@pytest.mark.parametrize("damage", [b"damaged", None], ids=["damaged", "missing"])
def test_a_damaged_entry_gives_way(tmp_path, shards, name, damage):
    there = put(tmp_path / "root", shards, command="first")
    if damage is None:
        (there.path / name).unlink()
    else:
        overwrite(there.path / name, damage)
    entry = put(tmp_path / "root", shards, command="second")
    assert entry.manifest["command"] == "second"
    assert find_damage(entry) == []
    assert list((tmp_path / "root").iterdir()) == [entry.path]


def test_an_empty_folder_in_its_place_gives_way(tmp_path, shards):
    (tmp_path / "root" / ID[:16]).mkdir(parents=True)
    assert find_damage(put(tmp_path / "root", shards)) == []


def test_a_shard_that_is_gone_leaves_nothing_behind(tmp_path, shards):
    described = body(shards)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError):
        publish_entry(tmp_path / "root", described, shards, TABLE, LEDGER)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_shard_that_is_gone_leaves_the_entry_there(tmp_path, shards):
    there = put(tmp_path / "root", shards)
    described = body(shards)
    shards[0].unlink()
    with pytest.raises(FileNotFoundError):
        publish_entry(tmp_path / "root", described, shards, TABLE, LEDGER, replace=True)
    assert list((tmp_path / "root").iterdir()) == [there.path]
    assert find_damage(open_entry(there.path)) == []


def test_the_manifest_is_written_when_all_else_is_there(tmp_path, shards, monkeypatch):
    seen = []

    def watched(path, text, *, replace):
        seen.append(sorted(file.name for file in path.parent.rglob("*") if file.is_file()))
        return write(path, text, replace=replace)

    write = publish.write_json
    monkeypatch.setattr(publish, "write_json", watched)
    put(tmp_path / "root", shards)
    assert seen == [["00000.h5", "00001.h5", "samples.h5", "skipped.csv"]]


@pytest.mark.parametrize("call", ["write", "fsync", "link", "rename", "mkdir"])
def test_a_failing_disk_leaves_whole_entries_or_none(tmp_path, shards, monkeypatch, call):
    """At every call in turn, and the next try succeeds."""
    root = tmp_path / "root"
    put(root, shards, command="first")
    works, real = 0, getattr(os, call)
    while True:
        left = [works]

        def fail(*arguments, left=left, **options):
            if not left[0]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            left[0] -= 1
            return real(*arguments, **options)

        monkeypatch.setattr(os, call, fail)
        try:
            put(root, shards, command="second", replace=True)
            break
        except CacheError as error:
            assert "cannot write" in error.message
        finally:
            monkeypatch.undo()
        visible = [path for path in root.iterdir() if not path.name.startswith(".")]
        assert all(find_damage(open_entry(path)) == [] for path in visible)
        if not visible:  # it had been moved aside when the disk failed
            put(root, shards, command="first")
        works += 1
    assert works >= 1
    assert open_entry(root / ID[:16]).manifest["command"] == "second"


def test_of_two_processes_the_one_that_comes_second_takes_what_is_there(tmp_path, shards, monkeypatch):
    """The other publishes between the look for an entry and the renaming."""
    rename, done = os.rename, []

    def race(source, goal):
        if not done and Path(goal).name == ID[:16]:
            done.append(True)
            put(tmp_path / "root", shards, command="other")
        return rename(source, goal)

    monkeypatch.setattr(os, "rename", race)
    entry = put(tmp_path / "root", shards, command="mine")
    assert done
    assert entry.manifest["command"] == "other"
    assert find_damage(entry) == []
    assert list((tmp_path / "root").iterdir()) == [entry.path]


def test_an_entry_moved_aside_goes_although_another_process_fills_its_place_first(tmp_path, shards, monkeypatch):
    there = put(tmp_path / "root", shards, command="first")
    overwrite(there.path / "samples.h5", b"damaged")
    rename, moved = os.rename, []

    def race(source, goal):
        if moved:
            monkeypatch.undo()
            put(tmp_path / "root", shards, command="other")
        if Path(source).name == ID[:16]:
            moved.append(goal)
        return rename(source, goal)

    monkeypatch.setattr(os, "rename", race)
    entry = put(tmp_path / "root", shards, command="mine")
    assert moved
    assert entry.manifest["command"] == "other"
    assert list((tmp_path / "root").iterdir()) == [entry.path]


@pytest.mark.parametrize("command", ["mine", "other"])
def test_an_entry_that_is_removed_as_soon_as_it_has_its_place_was_published(tmp_path, shards, monkeypatch, command):
    """By `cache prune` in another process; "other" is that of a third, which this one finds in its place."""
    sync = publish.sync_folder
    goal = tmp_path / "root" / ID[:16]
    if command == "other":
        put(tmp_path / "root", shards, command="other")

    def removed(folder):
        sync(folder)
        if folder == goal.parent and goal.exists():
            remove_folder(goal)

    monkeypatch.setattr(publish, "sync_folder", removed)
    entry = put(tmp_path / "root", shards, command="mine")
    assert (entry.path, entry.manifest["command"]) == (goal, command)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_manifest_that_cannot_be_read_is_never_published_as_whole(tmp_path, shards):
    with pytest.raises(CacheError):
        put(tmp_path / "root", shards, id="no id")
    with pytest.raises(CacheError):
        put(tmp_path / "root", shards, classes=[1, 2])


def test_the_manifest_on_disk_is_sealed(tmp_path, shards):
    entry = put(tmp_path / "root", shards)
    assert read_json(entry.path / "entry.json") == entry.manifest
