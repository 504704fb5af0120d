"""What a cache can do without: chosen by last use, counted once, removed under readers without harm."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from entries import RECIPE, SPACE, everything, make_entry, make_rows, overwrite

import pipeline
from pipeline.errors import CacheError
from pipeline.store.catalog import last_used, mark_used
from pipeline.store.diff import diff_entries
from pipeline.store.entry import Entry
from pipeline.store.prune import disk_usage, find_rubbish, plan_pruning
from pipeline.store.statindex import ROW
from pipeline.store.verify import find_damage, set_aside
from pipeline.store.work import WorkFolder

DAY = 86400.0
HOUR = 1 / 24
NAMES = ("new", "old", "older", "oldest")


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "cache"


def aged(path: Path, days: float) -> Path:
    """Let a file or folder look as if it was touched so many days ago."""
    at = time.time() - days * DAY
    os.utime(path, (at, at), follow_symlinks=False)
    return path


@pytest.fixture
def entries(root) -> dict[str, Entry]:
    """Four entries, used 1, 10, 40 and 400 days ago; the one made last is not the one used last."""
    found = {}
    for place, (name, days) in enumerate(zip(NAMES, (1, 10, 40, 400), strict=True)):
        found[name] = make_entry(root, seeds=range(100 * place, 100 * place + 12))
        aged(found[name].path, days)
        aged(found[name].path / "entry.json", 500 - days)
    return found


def going(pruning) -> set[str]:
    return {entry.id for entry in pruning.entries}


def ids(entries: dict[str, Entry], *names: str) -> set[str]:
    return {entries[name].id for name in names}


def used(root: Path) -> int:
    """Bytes of all files below `root`, each counted once however many names it has."""
    found = [path.lstat() for path in root.rglob("*") if not path.is_dir()]
    return sum({item.st_ino: item.st_size for item in found}.values())


def touched(path: Path, days: float) -> Path:
    path.write_bytes(b"x")
    return aged(path, days)


def unfinished(root: Path, plan: str, days: float) -> Path:
    """Work in progress that was last touched so many days ago."""
    work = WorkFolder(root, plan)
    work.pin(SPACE, RECIPE, {"source": "photos"})
    stats = np.empty(0, ROW)
    work.commit(0, SPACE, make_rows([7]), bad={}, stats=stats, computed=1, reused=0, facts={}, equal={}, stale=None)
    for path in [work.path, *work.path.rglob("*")]:
        aged(path, days)
    return work.path


# --- which entries go ---


def test_without_options_no_entry_goes_however_old(root, entries):
    unfinished(root, "ab" * 32, days=1000)
    pruning = plan_pruning(root)
    assert (pruning.entries, pruning.unfinished, pruning.rubbish, pruning.bytes) == ([], [], [], 0)


@pytest.mark.parametrize(
    ("days", "names"), [(0.5, NAMES), (5, NAMES[1:]), (30, NAMES[2:]), (399, NAMES[3:]), (401, ())]
)
def test_entries_go_by_their_last_use_and_not_by_when_they_were_made(root, entries, days, names):
    assert going(plan_pruning(root, older_than=days * DAY)) == ids(entries, *names)


@pytest.mark.parametrize("keep", range(6))
def test_keep_alone_leaves_those_used_last(root, entries, keep):
    assert going(plan_pruning(root, keep=keep)) == ids(entries, *NAMES[keep:])


@pytest.mark.parametrize("wish", [{"older_than": 0.0}, {"max_size": 0}, {"older_than": 0.0, "max_size": 0}])
def test_keep_protects_whatever_else_is_said(root, entries, wish):
    assert going(plan_pruning(root, **wish)) == ids(entries, *NAMES)
    assert going(plan_pruning(root, keep=3, **wish)) == ids(entries, "oldest")
    assert going(plan_pruning(root, keep=4, **wish)) == set()


def test_max_size_removes_the_longest_unused_until_the_rest_fits(root, entries):
    for kept in range(5):
        fits = disk_usage([entries[name] for name in NAMES[:kept]])
        assert going(plan_pruning(root, max_size=fits)) == ids(entries, *NAMES[kept:])
        if kept:
            assert going(plan_pruning(root, max_size=fits - 1)) == ids(entries, *NAMES[kept - 1 :])


def test_max_size_counts_shards_that_entries_share_once(root):
    one = make_entry(root)
    two = make_entry(root, labels=[0] * 20)
    assert one.shard_path(0).samefile(two.shard_path(0))
    alone, both = disk_usage([one]), disk_usage([one, two])
    shards = sum(shard["bytes"] for shard in one.shards)
    assert both == used(root)
    assert both < 2 * alone - shards + 500
    assert going(plan_pruning(root, max_size=both)) == set()
    assert len(going(plan_pruning(root, max_size=both - 1))) == 1


def test_age_and_size_together_remove_what_either_does(root, entries):
    three = disk_usage([entries[name] for name in NAMES[:3]])
    assert going(plan_pruning(root, older_than=30 * DAY, max_size=three)) == ids(entries, "older", "oldest")
    assert going(plan_pruning(root, older_than=300 * DAY, max_size=three - 1)) == ids(entries, "older", "oldest")


def test_of_entries_used_at_the_same_moment_the_one_made_last_stays(root):
    made = [make_entry(root, seeds=range(10 * place, 10 * place + 4)) for place in range(4)]
    for place, entry in enumerate(made):
        os.utime(entry.path, ns=(10**18, 10**18))
        os.utime(entry.path / "entry.json", ns=(10**18 + place, 10**18 + place))
    assert going(plan_pruning(root, keep=1)) == {entry.id for entry in made[:3]}


def test_a_copy_of_an_entry_beside_it_has_a_last_use_of_its_own(root, entries):
    copy = Path(shutil.copytree(entries["new"].path, root / f"{entries['new'].id}-copy"))
    aged(copy, 100)
    pruning = plan_pruning(root, older_than=90 * DAY)
    assert {entry.path for entry in pruning.entries} == {copy, entries["oldest"].path}
    pruning.carry_out()
    assert find_damage(entries["new"]) == []


def test_an_entry_whose_manifest_is_damaged_is_left_to_verify(root, entries):
    overwrite(entries["oldest"].path / "entry.json", b"{}")
    assert going(plan_pruning(root, keep=0)) == ids(entries, *NAMES[:3])
    assert plan_pruning(root / "nowhere", keep=0).entries == []


# --- what becomes free ---


@pytest.mark.parametrize("wish", [{"older_than": 0.0}, {"older_than": 15 * DAY}, {"keep": 1}, {"keep": 5}, {}], ids=str)
def test_the_bytes_that_become_free_are_those_that_were_said(root, entries, wish):
    for name in ("old", "oldest"):  # each shares its shards with one that has other labels
        place = 100 * NAMES.index(name)
        aged(make_entry(root, seeds=range(place, place + 12), labels=[1] * 12).path, 20)
    before = used(root)
    pruning = plan_pruning(root, **wish)
    pruning.carry_out()
    assert before - used(root) == pruning.bytes
    assert bool(pruning.bytes) == bool(wish)
    assert not any(entry.path.exists() for entry in pruning.entries)


def test_shards_that_another_entry_shares_stay_and_are_not_counted(root):
    one, two = make_entry(root), make_entry(root, labels=[0] * 20)
    aged(two.path, 100)
    shards = sum(shard["bytes"] for shard in two.shards)
    pruning = plan_pruning(root, older_than=DAY)
    assert pruning.bytes == disk_usage([two]) - shards
    pruning.carry_out()
    assert find_damage(one) == []
    assert len(pipeline.open_cache(one.path)) == 20


def test_shards_that_somebody_linked_elsewhere_do_not_become_free(root, tmp_path):
    entry = make_entry(root)
    shutil.copytree(entry.path, tmp_path / "backup", copy_function=os.link)
    assert plan_pruning(root, keep=0).bytes == 0
    shutil.rmtree(tmp_path / "backup")
    assert plan_pruning(root, keep=0).bytes == used(root)


def test_an_entry_that_is_a_link_to_elsewhere_is_not_removed_there(root, tmp_path):
    elsewhere = make_entry(tmp_path / "elsewhere")
    before = everything(elsewhere.path)
    root.mkdir()
    (root / elsewhere.id).symlink_to(elsewhere.path)
    plan_pruning(root, keep=0).carry_out()
    assert elsewhere.path.is_dir()
    assert everything(elsewhere.path) == before


# --- leftovers, quarantine, unfinished work ---


def test_leftovers_of_killed_processes_go_once_nobody_can_be_writing_them(root, entries):
    work = unfinished(root, "ab" * 32, days=1)
    folders = [root, root / "plans", root / "index", work, work / "records", work / "shards"]
    folders += [entries["new"].path, entries["new"].path / "shards"]
    old, others = set(), set()
    for folder in folders:
        folder.mkdir(exist_ok=True)
        old.add(touched(folder / ".tmp-1-old", 1.1 * HOUR))
        others.add(touched(folder / ".tmp-1-young", 0.9 * HOUR))
        others |= {touched(folder / name, 900) for name in ("README.md", ".hidden", "tmp-1", ".tmp")}
    pruning = plan_pruning(root)
    assert set(pruning.rubbish) == old
    pruning.carry_out()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in others)


def test_a_folder_in_which_a_file_is_being_written_is_no_leftover(root):
    for name in (".tmp-1-busy", ".tmp-1-left"):
        (root / name).mkdir(parents=True)
        (root / name / "00000.h5").write_bytes(b"x")
    aged(root / ".tmp-1-left" / "00000.h5", 1)
    for name in (".tmp-1-busy", ".tmp-1-left"):
        aged(root / name, 1)
    assert find_rubbish(root) == [root / ".tmp-1-left"]


def test_leftovers_stay_whatever_is_asked_for_while_they_are_young(root, entries):
    (root / ".tmp-1-import").mkdir()
    assert plan_pruning(root, older_than=0.0, keep=0, max_size=0).rubbish == []


def test_links_among_the_leftovers_are_removed_and_not_followed(root, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"x")
    root.mkdir()
    (root / ".tmp-1-folder").symlink_to(kept)
    aged(root / ".tmp-1-folder", 1)
    plan_pruning(root).carry_out()
    assert sorted(tmp_path.rglob("*")) == [root, kept, kept / "file"]


def test_what_was_set_aside_goes_with_its_bytes(root, entries):
    (root / "file").write_bytes(bytes(1234))
    set_aside(root, root / "file")
    set_aside(root, entries["old"].path)
    before = used(root)
    pruning = plan_pruning(root)
    assert len(pruning.rubbish) == 2
    pruning.carry_out()
    assert before - used(root) == pruning.bytes > 1234
    assert list((root / "quarantine").iterdir()) == []


def test_what_was_set_aside_a_moment_ago_is_not_old_because_its_bytes_are(root):
    root.mkdir()
    (root / "file").write_bytes(b"damaged")
    set_aside(root, aged(root / "file", 400))
    assert plan_pruning(root, older_than=30 * DAY).rubbish == []
    time.sleep(0.1)
    assert len(plan_pruning(root, older_than=0.05).rubbish) == 1


def test_unfinished_work_goes_by_its_age_only(root, entries):
    old, young = unfinished(root, "ab" * 32, days=50), unfinished(root, "cd" * 32, days=50)
    aged(next((young / "records").iterdir()), 2)
    assert plan_pruning(root, keep=0, max_size=0).unfinished == []
    pruning = plan_pruning(root, older_than=30 * DAY, keep=9)
    assert pruning.unfinished == [old]
    assert plan_pruning(root, older_than=DAY).unfinished == [old, young]
    before = used(root)
    pruning.carry_out()
    assert (old.exists(), young.exists()) == (False, True)
    assert before - used(root) == pruning.bytes


@pytest.mark.parametrize("damage", [lambda path: overwrite(path, b"{}"), Path.unlink], ids=["damaged", "missing"])
def test_work_whose_plan_cannot_be_read_does_not_take_space_for_ever(root, damage):
    work = unfinished(root, "ab" * 32, days=50)
    damage(work / "plan.json")
    for path in [work, *work.rglob("*")]:
        aged(path, 50)
    pruning = plan_pruning(root, older_than=30 * DAY)
    pruning.carry_out()
    assert not work.exists()


# --- planning and removing ---


def test_planning_changes_nothing(root, entries):
    unfinished(root, "ab" * 32, days=50)
    before = everything(root), {name: last_used(entry) for name, entry in entries.items()}
    plan_pruning(root, older_than=0.0, max_size=0)
    assert before == (everything(root), {name: last_used(entry) for name, entry in entries.items()})


def test_what_another_process_removed_meanwhile_is_no_error(root, entries):
    pruning = plan_pruning(root, keep=0)
    shutil.rmtree(entries["old"].path)
    pruning.carry_out()
    assert list(root.iterdir()) == []


def test_what_may_not_be_removed_is_said(root, entries, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    pruning = plan_pruning(root, keep=0)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(CacheError, match="cannot write"):
        pruning.carry_out()


def test_a_reader_of_an_entry_that_is_removed_gets_right_rows_or_an_error(root):
    entry = make_entry(root, seeds=range(96))
    wanted = make_rows(range(96)).features
    reading = entry.read_shards()
    first, rows = next(reading)
    plan_pruning(root, keep=0).carry_out()
    assert (rows.features == wanted[first : first + 8]).all()
    with pytest.raises(CacheError, match=r"shards.*\.h5 is missing"):
        for first, rows in reading:
            assert (rows.features == wanted[first : first + 8]).all()


def test_reading_while_it_is_pruned_gives_all_rows_or_an_error(root):
    made = make_entry(root.parent / "made", seeds=range(96))
    wanted = make_rows(range(96)).features
    pipeline.open_cache(made.path)  # which imports torch
    started = time.perf_counter()
    pipeline.open_cache(made.path)
    longest = 3 * (time.perf_counter() - started)
    outcomes = []
    for delay in np.linspace(0, min(longest, 0.3), 20):
        entry = Path(shutil.copytree(made.path, root / made.id))
        removing = threading.Timer(delay, plan_pruning(root, keep=0).carry_out)
        removing.start()
        try:
            outcomes.append(bool((pipeline.open_cache(entry).x.numpy() == wanted).all()))
        except CacheError:
            outcomes.append(None)
        removing.join()
        assert not entry.exists()
    assert False not in outcomes


# --- last use ---


def test_reading_an_entry_is_using_it(root, entries):
    pipeline.open_cache(entries["oldest"].id, cache_dir=root)
    assert time.time() - last_used(entries["oldest"]) < 60
    assert going(plan_pruning(root, older_than=30 * DAY)) == ids(entries, "older")


def test_looking_at_an_entry_is_not_using_it(root, entries):
    before = last_used(entries["old"])
    find_damage(entries["old"])
    diff_entries(entries["old"], entries["new"])
    disk_usage(entries.values())
    assert last_used(entries["old"]) == before


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_an_entry_that_cannot_be_written_is_read_all_the_same(root, entries, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "utime", refuse)
    mark_used(entries["old"])
    assert len(pipeline.open_cache(entries["old"].path)) == 12
