"""The modelled disk itself: what may be left of a few changes is exactly what the model says."""

import random

import pytest
from powerloss import BLOCK, DISK, Disk, Names, Op, Sync, Write, drawn, extremes, make_tree, single_losses

FILE, FOLDER = 1, 2
CREATE = Names(((DISK, "a", FILE),))
WRITE = Write(FILE, 0, b"x" * (2 * BLOCK))
FILE_SYNCED, DISK_SYNCED = Sync(FILE, (), 0), Sync(DISK, (), 0)


def states(*ops: Op, draws: int = 400) -> set[tuple[tuple[str, bytes | None], ...]]:
    """All states found after some changes of an empty disk: paths with bytes, or None for folders."""
    disk = Disk(names={DISK: {}})
    for op in ops:
        disk.apply(op)
    rng = random.Random(0)
    trees = [*extremes(disk), *single_losses(disk), *(drawn(disk, rng) for _ in range(draws))]
    return {tuple(sorted((path, data) for path, (_, data) in tree.items())) for tree in trees}


def names(*ops: Op) -> set[tuple[str, ...]]:
    return {tuple(path for path, _ in state) for state in states(*ops)}


def test_a_file_not_synced_is_absent_empty_torn_or_whole():
    found = states(CREATE, WRITE)
    contents = {dict(state).get("a") for state in found}
    assert {None, b"", b"x" * 1024, bytes(1024), b"x" * 512, b"x" * 512 + bytes(512)} <= contents
    assert bytes(512) + b"x" * 512 in contents
    assert any(len(data or b"") not in (0, 512, 1024) for data in contents)


def test_fsync_of_a_file_makes_its_bytes_durable_and_not_its_name():
    assert states(CREATE, WRITE, FILE_SYNCED) == {(), (("a", b"x" * 1024),)}


def test_fsync_of_a_folder_makes_names_durable_and_not_bytes():
    assert names(CREATE, WRITE, DISK_SYNCED) == {("a",)}
    assert (("a", bytes(1024)),) in states(CREATE, WRITE, DISK_SYNCED)


def test_both_make_a_file_durable_until_it_is_written_again():
    assert states(CREATE, WRITE, FILE_SYNCED, DISK_SYNCED) == {(("a", b"x" * 1024),)}
    again = states(CREATE, WRITE, FILE_SYNCED, DISK_SYNCED, Write(FILE, 512, b"y" * 512))
    contents = {dict(state)["a"] for state in again}
    assert {b"x" * 1024, b"x" * 512 + b"y" * 512} <= contents
    assert b"y" * 512 + b"x" * 512 not in contents


@pytest.mark.parametrize("old", [None, 3], ids=["free", "taken"])
def test_a_rename_may_leave_the_old_name_the_new_one_both_or_neither(old):
    before = () if old is None else (Names(((DISK, "b", old),)),)
    found = names(CREATE, *before, DISK_SYNCED, Names(((DISK, "a", None), (DISK, "b", FILE))))
    assert found == ({("a",), ("b",), ("a", "b"), ()} if old is None else {("a", "b"), ("b",)})


def test_a_rename_between_folders_needs_both_synced():
    moved = (CREATE, Names(((DISK, "d", FOLDER),), FOLDER), DISK_SYNCED)
    moved += (Names(((DISK, "a", None), (FOLDER, "b", FILE))),)
    assert names(*moved, DISK_SYNCED) == {("d",), ("d", "d/b")}
    assert names(*moved, Sync(FOLDER, (), 0)) == {("d", "d/b"), ("a", "d", "d/b")}
    assert names(*moved, Sync(FOLDER, (), 0), DISK_SYNCED) == {("d", "d/b")}


def test_what_lies_in_a_folder_is_lost_with_its_name():
    made = (Names(((DISK, "d", FOLDER),), FOLDER), Names(((FOLDER, "a", FILE),)), Sync(FOLDER, (), 0))
    assert names(*made) == {(), ("d", "d/a")}


def test_a_file_linked_twice_is_one_file(tmp_path):
    disk = Disk(names={DISK: {}})
    for op in (CREATE, WRITE, Names(((DISK, "b", FILE),))):
        disk.apply(op)
    make_tree(disk.tree(*disk.newest()), tmp_path)
    assert (tmp_path / "a").samefile(tmp_path / "b")
