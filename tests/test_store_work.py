"""Extractions in progress: records whole or absent, two commits of one shard, what gives way to what."""

import errno
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from pipeline.digest import seal, sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.commit import read_json, write_json
from pipeline.store.key import SHORT, FeatureSpace, Recipe
from pipeline.store.shard import ShardRows, shard_bytes
from pipeline.store.statindex import ROW
from pipeline.store.work import Record, WorkFolder, list_work

SPACE = FeatureSpace("torchvision/tiny", "0" * 64, "input:fc", "none", {"mean": [0.5]}, "float32", "float32", (4,))
RECIPE = Recipe("reference", "torch 2", "cpu", 2, 4, 8)
PLAN = "ab" * 32


def make_rows(seed: int = 0, n: int = 5) -> ShardRows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    return ShardRows(features, rng.integers(0, 256, (n, 32), np.uint8), np.array([0, 0, 1, 0, 0], np.uint8))


def make_stats(n: int = 4) -> np.ndarray:
    rows = np.zeros(n, ROW)
    rows["inode"], rows["digest"] = np.arange(n), 7
    return rows


def commit(work: WorkFolder, number: int = 0, seed: int = 0, **changes) -> Record:
    options = {
        "bad": {2: "cannot be decoded"},
        "stats": make_stats(),
        "computed": 4,
        "reused": 0,
        "facts": {"seconds": 0.5},
        "equal": {},
        "stale": None,
    }
    return work.commit(number, SPACE, make_rows(seed), **{**options, **changes})


@pytest.fixture
def work(tmp_path):
    folder = WorkFolder(tmp_path, PLAN)
    folder.pin(SPACE, RECIPE, {"source": "photos"})
    return folder


def test_work_not_started_has_no_recipe_no_records_and_no_folder(tmp_path):
    folder = WorkFolder(tmp_path, PLAN)
    assert folder.pinned() is None
    assert folder.record(0) is None
    assert folder.records() == []
    assert list(tmp_path.iterdir()) == []
    assert list_work(tmp_path) == []


def test_the_first_recipe_holds_for_all_who_join(tmp_path, work):
    assert work.pinned() == RECIPE
    other = replace(RECIPE, batch_size=2, threads=1)
    assert WorkFolder(tmp_path, PLAN).pin(SPACE, other, {}) == RECIPE
    assert WorkFolder(tmp_path, PLAN).pinned() == RECIPE


def test_a_folder_of_another_plan_with_the_same_short_name_is_refused(tmp_path, work):
    other = PLAN[:SHORT] + "0" * (64 - SHORT)
    with pytest.raises(CacheError, match="another extraction") as caught:
        WorkFolder(tmp_path, other).pinned()
    assert str(work.path) in caught.value.hint


def test_a_damaged_plan_is_refused(work):
    path = work.path / "plan.json"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data.replace(b"reference", b"referents"))
    with pytest.raises(CacheError, match=r"plan\.json is damaged"):
        work.pinned()


def test_a_committed_shard_comes_back_with_its_record(work):
    made = commit(work, 3)
    found = work.record(3)
    for name in ("shard", "sha256", "size", "rows", "computed", "reused", "bad", "facts"):
        assert getattr(found, name) == getattr(made, name)
    assert (found.stats == make_stats()).all()
    assert (found.shard, found.rows, found.bad) == (3, 5, {2: "cannot be decoded"})
    assert found.facts["seconds"] == 0.5
    assert {"host", "created"} <= set(found.facts)
    rows = work.read_shard(found, SPACE)
    assert rows.features.tobytes() == make_rows().features.tobytes()
    assert work.shard_path(found).name == f"{sha256_bytes(shard_bytes(SPACE, make_rows()))}.h5"


def test_records_come_in_order_and_say_which_are_missing(work):
    for number in (12, 0, 3):
        commit(work, number, seed=number)
    assert [record.shard for record in work.records()] == [0, 3, 12]
    assert work.record(1) is None


def test_a_shard_committed_twice_is_one_shard_and_the_first_record_stays(work, caplog):
    first = commit(work, facts={"turn": 1})
    second = commit(work, facts={"turn": 2})
    assert second.facts["turn"] == 1
    assert second.sha256 == first.sha256
    assert len(list((work.path / "shards").iterdir())) == 1
    assert not caplog.records


def test_of_two_commits_with_other_bytes_the_first_is_kept_and_it_is_said(work, caplog):
    first = commit(work, seed=0)
    second = commit(work, seed=1)
    assert second.sha256 == first.sha256 == work.record(0).sha256
    assert "shard 0: another process committed other bytes" in caplog.text


def test_a_stale_record_gives_way(work):
    first = commit(work, seed=0)
    second = commit(work, seed=1, stale=first.sha256)
    assert second.sha256 != first.sha256
    assert work.record(0).sha256 == second.sha256
    assert work.read_shard(second, SPACE).features.tobytes() == make_rows(1).features.tobytes()


def test_a_record_that_is_stale_no_longer_stays(work):
    newer = commit(work, seed=1)
    assert commit(work, seed=2, stale="0" * 64).sha256 == newer.sha256


def test_equal_rows_in_two_shards_lie_on_disk_once(work):
    assert commit(work, 0).sha256 == commit(work, 1).sha256
    assert len(list((work.path / "shards").iterdir())) == 1
    assert [record.shard for record in work.records()] == [0, 1]


def test_every_changed_byte_of_a_record_is_seen_and_the_shard_is_made_again(work, caplog):
    commit(work)
    path = work.path / "records" / "00000.json"
    data = path.read_bytes()
    path.unlink()
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(data))[:250].tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])
        caplog.clear()
        assert work.record(0) is None
        assert "shard 0 is made again" in caplog.text
    assert work.records() == []
    assert commit(work).shard == 0
    assert work.record(0) is not None


def test_a_record_under_the_name_of_another_shard_does_not_count(work):
    commit(work, 0)
    shutil.copy(work.path / "records" / "00000.json", work.path / "records" / "00001.json")
    assert work.record(1) is None
    assert [record.shard for record in work.records()] == [0]


@pytest.mark.parametrize("change", [{"format": "pipeline-plan"}, {"format_version": 2}], ids=["format", "version"])
def test_a_record_of_another_format_does_not_count(work, change):
    commit(work)
    path = work.path / "records" / "00000.json"
    body = {key: value for key, value in read_json(path).items() if key != "sha256"}
    write_json(path, {**body, **change}, replace=True)
    assert work.record(0) is None


@pytest.mark.parametrize("change", [{"format_version": 2}, {"recipe": {"newer": 1}}], ids=["version", "recipe"])
def test_a_plan_of_another_version_is_refused(work, change):
    path = work.path / "plan.json"
    body = {key: value for key, value in read_json(path).items() if key != "sha256"}
    write_json(path, {**body, **change}, replace=True)
    with pytest.raises(CacheError):
        work.pinned()


def test_damaged_bytes_under_the_right_name_are_replaced(work):
    made = commit(work)
    for damage in (b"", b"x" * made.size):
        path = work.shard_path(made)
        path.unlink()
        path.write_bytes(damage)
        with pytest.raises(CacheError, match="damaged"):
            work.read_shard(made, SPACE)
        commit(work)
        assert work.read_shard(made, SPACE).status.tolist() == [0, 0, 1, 0, 0]


def twin_of(tmp_path, seed: int = 0):
    data = shard_bytes(SPACE, make_rows(seed))
    path = tmp_path / "twin.h5"
    path.write_bytes(data)
    return path, {sha256_bytes(data): path}


def test_bytes_that_lie_elsewhere_are_linked(tmp_path, work):
    path, equal = twin_of(tmp_path)
    assert work.shard_path(commit(work, equal=equal)).samefile(path)


def test_bytes_that_lie_elsewhere_are_copied_where_links_are_refused(tmp_path, work, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    path, equal = twin_of(tmp_path)
    made = commit(work, equal=equal)
    assert not work.shard_path(made).samefile(path)
    assert work.read_shard(work.record(0), SPACE).features.tobytes() == make_rows().features.tobytes()
    assert not [path for path in work.path.rglob(".tmp-*")]


@pytest.mark.parametrize("damage", [b"short", None], ids=["damaged", "gone"])
def test_a_twin_that_is_damaged_or_gone_is_not_linked(tmp_path, work, damage):
    path, equal = twin_of(tmp_path)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert work.read_shard(commit(work, equal=equal), SPACE).features.tobytes() == make_rows().features.tobytes()


def test_a_folder_removed_during_a_commit_is_made_again(work, monkeypatch):
    link, removed = os.link, []

    def discard_once(*arguments, **options):
        if not removed:
            removed.append(True)
            WorkFolder(work.path.parent.parent, PLAN).discard()
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", discard_once)
    made = commit(work)
    assert removed
    assert work.read_shard(work.record(0), SPACE).features.tobytes() == make_rows().features.tobytes()
    assert work.record(0).sha256 == made.sha256


def test_a_folder_that_is_always_removed_is_given_up(work, monkeypatch):
    def discard(*_, **__):
        shutil.rmtree(work.path)
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(os, "link", discard)
    with pytest.raises(FileNotFoundError):
        commit(work)


@pytest.mark.parametrize("allowed", [0, 1, 2, 3])
def test_a_full_disk_keeps_what_is_committed_and_no_record_without_bytes(work, monkeypatch, allowed):
    commit(work, 0)
    write, count = os.write, []

    def fill(descriptor, data):
        count.append(1)
        if len(count) > allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[: max(1, len(data) // 2)])

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(CacheError, match="disk is full"):
        commit(work, 1, seed=1)
    monkeypatch.undo()
    assert [record.shard for record in work.records()] == [0]
    assert not list(work.path.rglob(".tmp-*"))
    assert commit(work, 1, seed=1).sha256 == work.record(1).sha256


def test_discarded_work_is_gone_and_may_be_discarded_again(tmp_path, work):
    commit(work)
    work.discard()
    assert list((tmp_path / "plans").iterdir()) == []
    assert work.pinned() is None
    work.discard()


def test_work_in_progress_is_listed_with_its_count(tmp_path, work):
    commit(work, 0)
    commit(work, 4, seed=1)
    WorkFolder(tmp_path, "cd" * 32).pin(SPACE, RECIPE, {"source": "others"})
    broken = WorkFolder(tmp_path, "ef" * 32)
    broken.pin(SPACE, RECIPE, {})
    (broken.path / "plan.json").unlink()
    (broken.path / "plan.json").write_bytes(b"{}")
    first, second = list_work(tmp_path)
    assert (first["plan"], first["done"], first["path"], first["about"]) == (PLAN, 2, work.path, {"source": "photos"})
    assert (second["plan"], second["done"]) == ("cd" * 32, 0)
    assert first["recipe"] == RECIPE.to_json()
    assert FeatureSpace.from_json(first["space"]) == SPACE


def test_half_discarded_work_is_not_listed(tmp_path, work, monkeypatch):
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    work.discard()
    assert list_work(tmp_path) == []


def test_a_record_holds_nothing_but_plain_json():
    record = Record(1, "0" * 64, 10, 5, 4, 1, {3: "bad", 1: "worse"}, make_stats(), {"host": "here"})
    body = record.to_json()
    assert body["bad"] == [[1, "worse"], [3, "bad"]]
    assert seal(body)["sha256"]
    back = Record.from_json(body)
    assert back.bad == record.bad
    assert (back.stats == record.stats).all()


def test_no_shard_is_done_in_a_folder_that_goes_while_it_is_listed(tmp_path, monkeypatch):
    work = WorkFolder(tmp_path, PLAN)
    commit(work)

    def removing(listing):
        def listed(path="."):
            monkeypatch.undo()
            work.discard()
            return listing(path)

        return listed

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, removing(getattr(os, name)))
    assert work.records() == []


def test_a_commit_starts_over_when_its_folder_goes_as_it_is_made(tmp_path, monkeypatch):
    """Of 16 processes on one entry, each removes the folder when it is done."""
    work = WorkFolder(tmp_path, PLAN)
    work.pin(SPACE, RECIPE, {})
    mkdir, left = os.mkdir, [20]

    def race(path, *mode):
        mkdir(path, *mode)
        if left[0] and os.fspath(path).endswith("records"):
            left[0] -= 1
            work.discard()
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    work.discard()
    monkeypatch.setattr(os, "mkdir", race)
    record = commit(work)
    assert left == [0]
    assert [found.sha256 for found in work.records()] == [record.sha256]


@pytest.mark.parametrize("call", ["open", "listdir"])
def test_a_folder_that_cannot_be_opened_is_said(tmp_path, monkeypatch, call):
    work = WorkFolder(tmp_path, PLAN)
    commit(work)
    real = getattr(os, call)

    def fail(path, *arguments, **options):
        if str(path).endswith(("shards", "records")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CacheError, match="Input/output error"):
        commit(work) if call == "open" else work.records()
