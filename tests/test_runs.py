"""Runs: numbered folders, whole or absent, found by what a user types, damage seen."""

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.digest import is_sealed, seal
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.runs import (
    check_name,
    find_run,
    list_runs,
    open_run,
    read_evaluations,
    record_evaluation,
    save_run,
)

BODY = {"cache": "0" * 64, "metrics": {"top1": 12.3456, "loss": 0.5}, "classes": ["apple", "beet"]}
FILES = {"head.safetensors": b"weights", "head.json": b"{}"}


def save(root: Path, name: str = "", **changes):
    return save_run(root, name, {**BODY, **changes}, FILES)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("name", ["", "a", "My-run_1.2", "0001", "x" * 80])
def test_plain_names_are_accepted(name):
    check_name(name)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-x", "a b", "é", "x" * 81, "a\n", "a\0"], ids=ascii)
def test_names_that_are_no_plain_file_names_are_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(UsageError, match="run name"):
        save(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_a_run_comes_back_as_it_was_saved(tmp_path):
    made = save(tmp_path / "runs", "first")
    assert made.id == "0001-first"
    found = open_run(made.path)
    assert found.body == made.body
    assert {key: found.body[key] for key in BODY} == BODY
    assert (found.body["format"], found.body["format_version"]) == ("pipeline-run", 1)
    assert is_sealed(found.body)
    assert names(made.path) == ["head.json", "head.safetensors", "run.json"]
    assert (made.path / "head.safetensors").read_bytes() == b"weights"


def test_runs_are_numbered_in_order(tmp_path):
    assert [save(tmp_path, name).id for name in ("", "b", "", "a")] == ["0001", "0002-b", "0003", "0004-a"]
    assert [run.id for run in list_runs(tmp_path)] == ["0001", "0002-b", "0003", "0004-a"]


def test_a_number_once_passed_is_not_taken_again_while_later_runs_stay(tmp_path):
    first, _ = save(tmp_path), save(tmp_path)
    first.path.rename(tmp_path.with_name("moved-away"))
    assert save(tmp_path).id == "0003"


def test_processes_that_save_at_the_same_time_all_have_their_run(tmp_path):
    barrier, made = threading.Barrier(6), []

    def work(number: int) -> None:
        barrier.wait()
        made.append((number, save(tmp_path, worker=number).id))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == [f"{number:04d}" for number in range(1, 7)]
    assert all(find_run(tmp_path, name).body["worker"] == number for number, name in made)


def test_runs_of_different_names_saved_at_the_same_time_have_different_numbers(tmp_path, monkeypatch):
    rename = os.rename

    def race(source, goal):
        monkeypatch.setattr(os, "rename", rename)
        save(tmp_path, "theirs")
        rename(source, goal)

    monkeypatch.setattr(os, "rename", race)
    save(tmp_path, "mine")
    assert sorted(name.split("-")[0] for name in names(tmp_path)) == ["0001", "0002"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_run_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch, call):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CacheError, match="the disk is full"):
        save(tmp_path)
    assert names(tmp_path) == ["0001"]


def test_a_run_whose_numbers_are_not_finite_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="cannot take the digest"):
        save(tmp_path, metrics={"loss": float("nan")})
    assert names(tmp_path) == []


def test_a_run_is_found_by_prefix_full_id_path_and_latest(tmp_path):
    for name in ("one", "two", "three"):
        save(tmp_path, name)
    assert find_run(tmp_path, "0002").id == "0002-two"
    assert find_run(tmp_path, "0003-th").id == "0003-three"
    assert find_run(tmp_path, "two").id == "0002-two"
    assert find_run(tmp_path, "latest").id == "0003-three"
    assert find_run(tmp_path / "elsewhere", str(tmp_path / "0001-one")).id == "0001-one"


def test_an_ambiguous_prefix_names_what_it_fits_and_an_exact_id_wins(tmp_path):
    for _ in range(2):
        save(tmp_path)
    save(tmp_path).path.rename(tmp_path / "0001-copy")
    with pytest.raises(DataError, match=r"'000' is not unique: 0001, 0001-copy, 0002"):
        find_run(tmp_path, "000")
    assert find_run(tmp_path, "0001").id == "0001"


def test_a_name_given_twice_is_not_unique_and_ids_come_first(tmp_path):
    for name in ("twice", "twice", "0001"):
        save(tmp_path, name)
    with pytest.raises(DataError, match=r"'twice' is not unique: 0001-twice, 0002-twice"):
        find_run(tmp_path, "twice")
    assert find_run(tmp_path, "0001").id == "0001-twice"


@pytest.mark.parametrize("name", ["0009", "two", "latest", ""])
def test_an_unknown_run_says_how_to_make_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"no run {name!r} under .*; there is nothing") as caught:
        find_run(tmp_path / "runs", name)
    assert "train-head" in caught.value.hint


def test_an_unknown_run_says_what_there_is(tmp_path):
    save(tmp_path, "one")
    with pytest.raises(DataError, match="there is 0001-one") as caught:
        find_run(tmp_path, "0001-oen")
    assert caught.value.hint.startswith("Did you mean '0001-one'?")


def test_a_cache_entry_in_place_of_a_run_is_told_its_runs(tmp_path):
    save_run(tmp_path, "mine", {"cache": {"id": "77c0ffee00000000"}}, {})
    save(tmp_path, "another")
    with pytest.raises(DataError, match="no run '77c0'") as caught:
        find_run(tmp_path, "77c0")
    assert caught.value.hint == "77c0 is a cache entry: name a run of it, 0001-mine"


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "00\0", "\0", "0001\0", "\udcff", "..", "/"], ids=ascii)
def test_a_name_that_no_file_can_have_is_simply_unknown(tmp_path, name):
    save(tmp_path / "runs")
    with pytest.raises(DataError, match="no run"):
        find_run(tmp_path / "runs", name)


def test_an_id_is_no_folder_that_happens_to_lie_here(tmp_path, monkeypatch):
    made, other = save(tmp_path / "runs", "first"), save(tmp_path / "other", "second")
    monkeypatch.chdir(tmp_path)
    for name in ("0", "0001", "0001-first", "latest"):
        shutil.copytree(other.path, name)
        assert find_run(Path("runs"), name).body == made.body
    save(tmp_path / "runs")
    with pytest.raises(DataError, match="not unique"):
        find_run(Path("runs"), "0")
    assert find_run(Path("runs"), "./0").body == other.body


def test_the_ten_thousandth_run_is_the_latest(tmp_path):
    save(tmp_path).path.rename(tmp_path / "9999")
    assert save(tmp_path).id == "10000"
    assert find_run(tmp_path, "latest").id == "10000"


def test_a_run_that_was_not_published_is_not_listed(tmp_path):
    save(tmp_path).path.rename(tmp_path / ".tmp-123-00000000")
    assert list_runs(tmp_path) == []


def rewrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def test_every_value_of_a_run_changed_is_seen(tmp_path):
    made = save(tmp_path)
    for change in ({"metrics": {"top1": 99.0, "loss": 0.5}}, {"new": 1}, {"sha256": "0" * 64}, {"cache": "1" * 64}):
        rewrite(made.path / "run.json", json.dumps({**made.body, **change}).encode())
        with pytest.raises(DataError, match=r"run\.json is damaged"):
            open_run(made.path)
    rewrite(made.path / "run.json", json.dumps({key: made.body[key] for key in BODY}).encode())
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        open_run(made.path)


def test_a_changed_byte_of_a_run_never_changes_its_content(tmp_path):
    made = save(tmp_path)
    path = made.path / "run.json"
    data = path.read_bytes()
    path.unlink()
    rng = np.random.default_rng(0)
    seen = 0
    places = rng.permutation(len(data))[:250].tolist()
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])
        try:
            assert open_run(made.path).body == made.body  # white space between values may differ
        except DataError:
            seen += 1
    assert seen > 0.8 * len(places)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"1" * 5000], ids=lambda data: data[:4].hex()
)
def test_a_run_that_we_did_not_write_is_refused(tmp_path, data):
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001" / "run.json").write_bytes(data)
    with pytest.raises(DataError, match=r"run\.json"):
        open_run(tmp_path / "0001")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"12.3456", b"12e3456"),
        lambda data: data.replace(b"12.3456", b"NaN"),
        lambda data: b"[" * 100_000,
    ],
    ids=["one byte, infinite", "nan", "deep"],
)
def test_a_run_with_numbers_that_are_not_finite_or_too_deep_is_damaged(tmp_path, change):
    made = save(tmp_path)
    rewrite(made.path / "run.json", change((made.path / "run.json").read_bytes()))
    with pytest.raises(DataError, match=r"run\.json"):
        open_run(made.path)


@pytest.mark.parametrize("change", [{"format": "pipeline-entry"}, {"format_version": 2}])
def test_a_run_of_another_format_is_refused(tmp_path, change):
    made = save(tmp_path)
    body = {key: value for key, value in made.body.items() if key != "sha256"}
    rewrite(made.path / "run.json", json.dumps(seal({**body, **change})).encode())
    with pytest.raises(DataError):
        open_run(made.path)


def test_damaged_runs_and_other_folders_are_not_listed(tmp_path):
    first, second = save(tmp_path), save(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_bytes(b"")
    rewrite(second.path / "run.json", b"{}")
    assert [run.id for run in list_runs(tmp_path)] == [first.id]
    assert list_runs(tmp_path / "nothing") == []


def test_a_damaged_run_asked_for_is_named(tmp_path):
    rewrite(save(tmp_path).path / "run.json", b"{}")
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        find_run(tmp_path, "latest")


def test_evaluations_are_kept_by_name_the_newest_of_each(tmp_path):
    run = save(tmp_path)
    assert read_evaluations(run) == {}
    record_evaluation(run, "test", {"top1": 0.5})
    record_evaluation(run, "val", {"top1": 0.25})
    record_evaluation(run, "test", {"top1": 0.75})
    found = read_evaluations(run)
    assert {name: body["top1"] for name, body in found.items()} == {"test": 0.75, "val": 0.25}
    assert open_run(run.path).body == run.body
    assert not list(run.path.glob(".tmp-*"))


def test_damaged_evaluations_are_left_out(tmp_path):
    run = save(tmp_path)
    record_evaluation(run, "test", {"top1": 0.5})
    record_evaluation(run, "val", {"top1": 0.5})
    path = run.path / "evaluation-val.json"
    rewrite(path, path.read_bytes().replace(b"0.5", b"0.6"))
    (run.path / "evaluation-cut.json").write_bytes(b'{"top1": ')
    assert list(read_evaluations(run)) == ["test"]


@pytest.mark.parametrize("data", [b"[]", b'{"top1": NaN, "sha256": ""}'], ids=["list", "nan"])
def test_evaluations_that_we_did_not_write_are_left_out(tmp_path, data):
    run = save(tmp_path)
    (run.path / "evaluation-odd.json").write_bytes(data)
    assert read_evaluations(run) == {}
