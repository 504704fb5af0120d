"""`pipeline cache`: exit code, words, JSON, and what is left behind."""

import io
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import BACKBONE, SPACE, make_photos
from entries import SPACE as TINY
from entries import at, everything, flip, make_entry, overwrite, tamper

import pipeline
from pipeline.store.commit import write_json
from pipeline.store.entry import Entry, open_entry
from pipeline.store.verify import find_damage, set_aside

DAY = 86400.0
HOSTILE = "a\x1b[31m[red]\nb"


@pytest.fixture
def root(tmp_path) -> Path:
    """The cache root that commands find by default."""
    return tmp_path / "cache"


@pytest.fixture
def two(root) -> tuple[Entry, Entry]:
    """Two entries that share their shards; the second was made later and has other labels."""
    first = make_entry(root, bad={3}, source={"kind": "folder", "spec": "photos/first"}, command="pipeline extract a")
    second = make_entry(root, bad={3}, labels=[0] * 20, source={"kind": "folder", "spec": "photos/second"})
    for entry, age in ((first, 10), (second, 5)):
        os.utime(entry.path / "entry.json", (10**9 - age, 10**9 - age))
    return first, second


def used_before(entry: Entry, days: float) -> Entry:
    os.utime(entry.path, (time.time() - days * DAY,) * 2)
    return entry


def interrupted(photos: Path, **options) -> None:
    """Leave an extraction that is not finished."""

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.extract(str(photos), on_progress=stop, workers=1, **SPACE, **options)


def assert_one_line(result, code: int, said: str) -> None:
    assert result.code == code, result
    assert said in result.err
    assert result.err.count("error:") == 1
    assert "fault of this package" not in result.err
    assert "Traceback" not in result.err


# --- ls and info ---


def test_an_empty_cache_is_no_error(cli):
    result = cli("cache", "ls")
    assert (result.code, result.out) == (0, "")
    assert "no cache entries under cache yet" in result.err
    assert json.loads(cli("cache", "ls", "--json").out) == {"entries": [], "unfinished": [], "bytes_on_disk": 0}


def test_entries_are_listed_oldest_first_with_what_they_hold(cli, two):
    result = cli("cache", "ls")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == ["cache", two[0].id, two[1].id]
    for word in ("tiny", "19 x 4", "now", "first", "second"):
        assert word in result.out
    assert "2 entries" in result.err
    assert cli("cache", "ls", "-q").out.split() == [two[0].id, two[1].id]
    document = json.loads(cli("cache", "ls", "--json").out)
    listed = document["entries"][0]
    assert (listed["cache"], listed["path"], listed["rows"], listed["dim"]) == (two[0].id, f"cache/{two[0].id}", 19, 4)
    assert (listed["skipped"], listed["classes"], listed["splits"]) == (1, 3, {"train": 15, "test": 4})
    assert time.time() - listed["last_used"] < 60


def test_bytes_on_disk_count_shared_shards_once(cli, two, root):
    files = {path.stat().st_ino: path.stat().st_size for path in root.rglob("*") if path.is_file()}
    assert json.loads(cli("cache", "ls", "--json").out)["bytes_on_disk"] == sum(files.values())


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--source", "first"], [0]),
        (["--source", "PHOTOS"], [0, 1]),
        (["--source", "*second"], [1]),
        (["--source", "photos/?irst"], [0]),
        (["--source", "["], []),
        (["--backbone", "tin"], [0, 1]),
        (["--backbone", "ti?y"], [0, 1]),
        (["--backbone", "resnet*"], []),
        (["--space", TINY.sha256[:6].upper()], [0, 1]),
        (["--space", "zz"], []),
        (["--backbone", "tiny", "--source", "second"], [1]),
        (["--source", ""], [0, 1]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_entries_are_chosen_by_part_of_a_name_or_a_pattern(cli, two, options, found):
    result = cli("cache", "ls", "-q", *options)
    assert result.code == 0
    assert result.out.split() == [two[place].id for place in found]
    if not found:
        assert "that fit" in cli("cache", "ls", *options).err


def test_info_shows_what_made_an_entry(cli, two):
    result = cli("cache", "info", two[0].id[:6])
    assert result.code == 0
    for word in (two[0].id, "photos/first", "19 rows", "apple, beet, corn", "torchvision/tiny", TINY.sha256, "crop 32"):
        assert word in result.out
    assert "skipped.csv" in result.out
    assert "pipeline extract a" in result.out
    assert two[1].id in cli("cache", "info").out
    assert cli("cache", "info", "-q").out.strip() == two[1].id
    assert json.loads(cli("cache", "info", two[0].id, "--json").out)["manifest"] == two[0].manifest


def test_names_in_an_entry_cannot_speak_to_the_terminal(cli, root):
    odd = {"ids": [HOSTILE, *map(str, range(19))], "classes": (HOSTILE, "b"), "command": HOSTILE}
    first = make_entry(root, source={"kind": "folder", "spec": HOSTILE}, versions={"torch": HOSTILE}, **odd)
    second = make_entry(root, source={"kind": "folder", "spec": "b"}, classes=("a", "b"))
    for command in (["ls"], ["info", first.id], ["diff", first.id, second.id], ["verify"]):
        result = cli("cache", *command)
        assert result.code == 0, result
        assert "\x1b" not in result.out + result.err
    flip(first.path / "samples.h5")
    result = cli("cache", "verify", first.id)
    assert result.code == 4
    assert "\x1b" not in result.err


def test_unfinished_work_is_listed_and_removed(cli, photos):
    interrupted(photos)
    assert "not finished" in cli("cache", "ls").err
    (item,) = json.loads(cli("cache", "ls", "--json").out)["unfinished"]
    assert (item["source"], item["shards_done"]) == (str(photos), 0)
    assert cli("cache", "rm", "--unfinished").code == 2
    assert Path(item["path"]).is_dir()
    assert cli("cache", "rm", "--unfinished", "--yes").code == 0
    assert json.loads(cli("cache", "ls", "--json").out)["unfinished"] == []
    assert cli("cache", "rm", "--unfinished").code == 0  # nothing to ask about


def test_unfinished_work_whose_plan_is_damaged_is_removed_too(cli, photos):
    interrupted(photos)
    (folder,) = Path("cache/plans").iterdir()
    overwrite(folder / "plan.json", b"{}")
    assert cli("cache", "rm", "--unfinished", "--yes").code == 0
    assert not folder.exists()


# --- verify ---


def test_whole_entries_are_verified_each_in_a_line(cli, two, root):
    before = everything(root)
    result = cli("cache", "verify")
    assert (result.code, "2 entries verified" in result.out) == (0, True)
    for entry in two:
        assert f"{entry.id} whole: 3 shards, 19 rows" in result.err
    result = cli("cache", "verify", two[0].id[:8], "--json")
    (item,) = json.loads(result.out)["verified"]
    assert (item["cache"], item["damaged"], item["repaired"], item["recomputed"]) == (two[0].id, [], {}, None)
    assert cli("cache", "verify", "-q").err == ""
    assert everything(root) == before


def test_damage_is_named_and_left_where_it_is(cli, two, root):
    flip(two[0].shard_path(1))
    flip(two[1].path / "skipped.csv", 3)
    before = everything(root)
    result = cli("cache", "verify")
    assert_one_line(result, 4, "2 damaged files")
    assert "00001.h5" in result.err
    assert "skipped.csv" in result.err
    assert "--repair" in result.err
    error = json.loads(cli("cache", "verify", "--json").out)["error"]
    assert (error["kind"], "00001.h5" in error["message"], "--repair" in error["hint"]) == ("cache", True, True)
    assert everything(root) == before


def test_of_much_damage_a_little_is_named(cli, root):
    entry = make_entry(root, seeds=range(160))
    for number in range(20):
        flip(entry.shard_path(number))
    result = cli("cache", "verify")
    assert_one_line(result, 4, "20 damaged files")
    assert result.err.count(".h5") < 10


def test_repair_says_what_it_did(cli, two):
    flip(two[0].shard_path(1))
    result = cli("cache", "verify", "--repair")
    assert result.code == 0, result.err
    assert f"repaired cache/{two[0].id}/shards/00001.h5: linked from cache/{two[1].id}/shards/00001.h5" in result.err
    assert find_damage(two[0]) == []
    assert len(list(Path("cache/quarantine").iterdir())) == 1
    flip(two[0].shard_path(1))
    document = json.loads(cli("cache", "verify", "--repair", "--json").out)
    repaired = {item["cache"]: list(item["repaired"]) for item in document["verified"]}
    assert repaired == {two[0].id: [f"cache/{two[0].id}/shards/00001.h5"], two[1].id: []}


def test_what_cannot_be_repaired_is_said_and_left(cli, root):
    entry = make_entry(root, source={"kind": "folder", "spec": "gone"}, command="pipeline extract gone")
    flip(entry.shard_path(1))
    before = everything(root)
    result = cli("cache", "verify", "--repair")
    assert_one_line(result, 4, "00001.h5")
    assert "try:" in result.err
    assert everything(root) == before


@pytest.mark.parametrize("repair", [[], ["--repair"]], ids=["", "repair"])
def test_a_damaged_manifest_is_named_and_the_way_out_said(cli, two, root, repair):
    overwrite(two[0].path / "entry.json", b"{}")
    files = sorted(everything(root).values())
    for named in ([two[0].id], []):
        result = cli("cache", "verify", *named, *repair)
        assert_one_line(result, 4, "entry.json")
        assert "pipeline extract" in result.err
    assert sorted(everything(root).values()) == files


@pytest.mark.parametrize("repair", [[], ["--repair"]], ids=["", "repair"])
def test_a_damaged_manifest_is_named_however_often_it_is_asked(cli, two, repair):
    overwrite(two[0].path / "entry.json", b"{}")
    assert [cli("cache", "verify", *repair).code for _ in range(2)] == [4, 4]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    root = tmp_path_factory.mktemp("extracted")
    photos = make_photos(root / "photos", per_class=6)
    made = pipeline.extract(str(photos), cache_dir=root / "cache", batch_size=4, shard_rows=8, workers=1, **SPACE)
    return photos, Path(made.path)


def test_rows_are_computed_again_from_images_wherever_they_are(cli, extracted, tmp_path):
    photos, made = extracted
    entry = open_entry(Path(shutil.copytree(made, tmp_path / "cache" / made.name)))
    body = {name: value for name, value in entry.manifest.items() if name != "sha256"}
    write_json(entry.path / "entry.json", {**body, "source": {**body["source"], "spec": "gone"}}, replace=True)
    result = cli("cache", "verify", "--recompute", 4)
    assert_one_line(result, 3, "neither a folder here nor a data set")
    assert "--source" in result.err
    result = cli("cache", "verify", "--recompute", 4, "--source", photos, "--workers", 1)
    assert result.code == 0, result.err
    assert "4 rows computed again: 4 equal bit for bit, largest difference 0.0e+00" in result.err
    flip(entry.shard_path(2))
    assert cli("cache", "verify", "--repair").code == 4
    result = cli("cache", "verify", "--repair", "--source", photos, "--workers", 1)
    assert (result.code, "computed again from 2 images" in result.err) == (0, True)
    assert everything(entry.path / "shards") == everything(made / "shards")


def test_other_rows_than_the_images_give_are_an_error_of_the_cache(cli, extracted, tmp_path):
    _, made = extracted
    entry = open_entry(Path(shutil.copytree(made, tmp_path / "cache" / made.name)))
    tamper(entry, at(9, lambda row: row * np.float32(1.5)))
    assert cli("cache", "verify").code == 0
    result = cli("cache", "verify", "--recompute", 18, "--workers", 1)
    assert_one_line(result, 4, "rows computed again differ by up to")
    assert "most for beet/03.jpg" in result.err


@pytest.mark.parametrize(
    "options",
    [["--recompute", "-1"], ["--recompute", "x"], ["--recompute"], ["--recompute", "4", "--workers", "-3"]],
    ids=" ".join,
)
def test_wrong_options_of_verify_are_usage_errors(cli, extracted, options):
    assert_one_line(cli("cache", "verify", "--cache-dir", extracted[1].parent, *options), 2, "")


# --- diff ---


def test_diff_names_fields_and_samples(cli, root, two):
    other = make_entry(root, bad={3}, space=replace(TINY, layer="input:head"))
    result = cli("cache", "diff", two[0].id, other.id)
    assert result.code == 0
    (line,) = [line for line in result.out.splitlines() if line.startswith("space.layer")]
    assert line.split() == ["space.layer", "input:fc", "input:head"]
    assert "0 shards shared of 3 and 3; the content differs" in result.out
    result = cli("cache", "diff", two[0].id, two[1].id)
    assert "photos/first" in result.out
    assert "relabelled 13 samples: 0001.jpg, 0002.jpg, 0004.jpg, 0005.jpg, 0007.jpg, …" in result.out
    assert "3 shards shared of 3 and 3" in result.out


def test_diff_of_an_entry_with_itself_says_so(cli, two):
    result = cli("cache", "diff", two[0].id, two[0].path)
    assert (result.code, "the content is the same" in result.out) == (0, True)
    assert cli("cache", "diff", two[0].id, two[0].id, "-q").out == "same\n"
    assert cli("cache", "diff", two[0].id, two[1].id, "-q").out == "different\n"


def test_diff_as_json_has_all_of_it(cli, two):
    document = json.loads(cli("cache", "diff", two[0].id, two[1].id, "--json").out)
    assert (document["a"], document["b"], document["same_content"], document["shards_shared"]) == (
        *(entry.id for entry in two),
        *(False, 3),
    )
    assert {"field": "source.spec", "a": "photos/first", "b": "photos/second"} in document["fields"]
    assert len(document["samples"]["relabelled"]) == 13


@pytest.mark.parametrize("names", [["latest"], [], ["latest", "zz"], ["latest", "latest", "latest"]])
def test_diff_of_what_is_not_there_is_one_line(cli, two, names):
    assert_one_line(cli("cache", "diff", *names), 4 if "zz" in names else 2, "")


# --- rm and prune ---


@pytest.mark.parametrize("stdin", ["no terminal", "closed"])
@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["", "json"])
@pytest.mark.parametrize("command", [["rm", "latest"], ["prune", "--keep", "0"]], ids=["rm", "prune"])
def test_without_a_terminal_and_without_yes_nothing_is_removed(cli, two, root, monkeypatch, command, json_flag, stdin):
    overwrite(two[0].path / "skipped.csv", b"")
    set_aside(root, two[0].path / "skipped.csv")
    before = everything(root)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n") if stdin == "no terminal" else None)
    result = cli("cache", *command, *json_flag)
    assert result.code == 2
    assert "--yes" in result.out + result.err
    assert everything(root) == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
@pytest.mark.parametrize("command", [["rm", "latest"], ["prune", "--keep", "1"]], ids=["rm", "prune"])
def test_on_a_terminal_only_a_yes_removes(cli, two, monkeypatch, command, answer, gone):
    used_before(two[1], 3)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    result = cli("cache", *command)
    assert (result.code == 0) == gone
    assert (two[0].path.exists(), two[1].path.exists()) == (True, not gone)


@pytest.mark.parametrize("command", [["rm", "latest"], ["prune", "--keep", "0"]], ids=["rm", "prune"])
def test_programs_that_read_json_are_not_asked(cli, two, root, monkeypatch, command):
    before = everything(root)
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert cli("cache", *command, "--json").code == 2
    assert everything(root) == before


def test_rm_removes_what_is_named_and_leaves_what_is_shared(cli, two):
    result = cli("cache", "rm", two[0].id[:8], "--yes")
    assert (result.code, f"removed cache/{two[0].id}" in result.out) == (0, True)
    assert not two[0].path.exists()
    assert find_damage(two[1]) == []
    assert list(Path("cache").iterdir()) == [Path("cache") / two[1].id]


def test_rm_of_several_removes_all_or_none(cli, two):
    assert_one_line(cli("cache", "rm", two[0].id, "zz", "--yes"), 4, "'zz'")
    assert two[0].path.exists()
    document = json.loads(cli("cache", "rm", two[0].id, "latest", two[1].path, "--yes", "--json").out)
    assert {f"cache/{entry.id}" for entry in two} <= set(document["removed"])
    assert list(Path("cache").iterdir()) == []
    assert_one_line(cli("cache", "rm", "latest", "--yes"), 4, "no cache entry under cache yet")


def test_rm_of_a_link_to_an_entry_elsewhere_leaves_that(cli, root, tmp_path):
    elsewhere = make_entry(tmp_path / "elsewhere")
    root.mkdir()
    (root / elsewhere.id).symlink_to(elsewhere.path)
    assert cli("cache", "rm", elsewhere.id, "--yes").code == 0
    assert find_damage(elsewhere) == []
    assert list(root.iterdir()) == []


def test_a_dry_run_of_prune_says_all_and_removes_nothing(cli, two, root, photos):
    used_before(two[0], 40)
    interrupted(photos)
    (root / "file").write_bytes(bytes(1234))
    set_aside(root, root / "file")
    before = everything(root)
    for wish in (["--older-than", "0s"], ["--keep", "0"], ["--max-size", "0"], []):
        result = cli("cache", "prune", *wish, "--dry-run")
        assert (result.code, "would be removed" in result.out) == (0, True)
        assert "leftover cache/quarantine" in result.err
    result = cli("cache", "prune", "--older-than", "30d", "--dry-run", "--json")
    document = json.loads(result.out)
    assert (document["entries"], document["unfinished"], document["dry_run"]) == ([two[0].id], [], True)
    assert f"entry {two[0].id} · used 40 d ago · 19 rows of photos/first, torchvision/tiny" in result.err
    assert everything(root) == before


def test_prune_without_options_removes_leftovers_unasked(cli, two, root):
    used_before(two[0], 4000)
    (root / "file").write_bytes(bytes(1234))
    set_aside(root, root / "file")
    (root / ".tmp-1-import").mkdir()
    result = cli("cache", "prune")
    assert (result.code, "0 entries, 0 unfinished, 1 leftover removed: 1.2 kB" in result.out) == (0, True)
    assert list((root / "quarantine").iterdir()) == []
    assert (root / ".tmp-1-import").is_dir()
    assert all(entry.path.is_dir() for entry in two)


def test_prune_removes_what_it_says(cli, two, root):
    used_before(two[0], 40)
    size = sum(file.stat().st_size for file in two[0].path.iterdir() if file.is_file())
    document = json.loads(cli("cache", "prune", "--older-than", "4w", "--yes", "--json").out)
    assert (document["entries"], document["bytes"], document["dry_run"]) == ([two[0].id], size, False)
    assert (two[0].path.exists(), find_damage(two[1])) == (False, [])
    assert cli("cache", "prune", "--older-than", "4w", "--yes", "-q").out == ""
    assert cli("cache", "prune", "--keep", "0", "--yes", "-q").out.split() == [two[1].id]
    assert "0 entries" in cli("cache", "prune", "--keep", "0").out


def test_prune_keeps_what_was_read_just_now(cli, two):
    for entry in two:
        used_before(entry, 40)
    assert cli("train-head", two[0].id, "--epochs", 1).code == 0
    assert cli("cache", "prune", "--older-than", "30d", "--yes", "-q").out.split() == [two[1].id]


@pytest.mark.parametrize(
    "options",
    [
        *(["--older-than", age] for age in ("30", "d", "", "-5d", "5y", "30days", "1e3d", "nan", "inf", "5d5h", "٣")),
        *(["--max-size", size] for size in ("10XB", "", "-1", "-1GB", "GB", "nan", "1,5GB", "9" * 400 + "GB")),
        *(["--keep", keep] for keep in ("-1", "x", "1.5", "")),
        ["--keep"],
        ["latest"],
    ],
    ids=lambda options: " ".join(options)[:24],
)
def test_a_wrong_measure_is_a_usage_error_and_removes_nothing(cli, two, root, options):
    before = everything(root)
    assert_one_line(cli("cache", "prune", "--yes", *options), 2, "")
    assert everything(root) == before


@pytest.mark.parametrize("age", ["3456000s", "57600m", "960 h", "40D", "5.7w", " 40d "])
def test_ages_have_units(cli, two, age):
    used_before(two[0], 40.5)
    used_before(two[1], 39)
    assert cli("cache", "prune", "--older-than", age, "--dry-run", "-q").out.split() == [two[0].id]


@pytest.mark.parametrize(
    ("measure", "gone"), [("1MB", 0), ("1mib", 0), ("0.1kB", 2), ("100", 2), ("100 B", 2), ("0", 2)]
)
def test_sizes_have_units(cli, two, measure, gone):
    assert len(cli("cache", "prune", "--max-size", measure, "--dry-run", "-q").out.split()) == gone


# --- export and import ---


def test_an_entry_travels_as_one_file(cli, two):
    result = cli("cache", "export", two[0].id, "--single", "photos.h5")
    assert result.code == 0, result.err
    assert f"photos.h5  19 rows of {two[0].id}" in result.out
    assert "pipeline cache import photos.h5" in result.err
    result = cli("cache", "import", "photos.h5", "--cache-dir", "there")
    assert (result.code, f"cache {two[0].id}" in result.out, "verified" in result.out) == (0, True, True)
    assert f"pipeline train-head {two[0].id} --cache-dir there" in result.err
    assert everything(Path("there") / two[0].id) == everything(two[0].path)
    assert cli("cache", "import", "photos.h5", "--cache-dir", "there", "-q").out.strip() == two[0].id
    assert cli("train-head", "latest", "--cache-dir", "there", "--epochs", 1).code == 0


def test_export_takes_the_latest_and_tells_programs_what_it_wrote(cli, two):
    document = json.loads(cli("cache", "export", "--single", "a.h5", "--json").out)
    assert document == {"cache": two[1].id, "path": "a.h5", "bytes": Path("a.h5").stat().st_size, "rows": 19}
    document = json.loads(cli("cache", "export", "--npz", "a.npz", "--json").out)
    assert document == {"cache": two[1].id, "path": "a.npz", "bytes": Path("a.npz").stat().st_size, "rows": 19}
    with np.load("a.npz", allow_pickle=False) as arrays, h5py.File("a.h5") as file:
        assert (arrays["features"] == file["features"][:][file["status"][:] == 0]).all()
    document = json.loads(cli("cache", "import", "a.h5", "--json").out)
    assert document == {"cache": two[1].id, "path": f"cache/{two[1].id}", "rows": 19}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["export"], 2, "--single FILE.h5 or --npz FILE.npz"),
        (["export", "latest", "--single", "new.h5", "--npz", "new.npz"], 2, "one of them"),
        (["export", "--single", "there.h5"], 2, "there.h5 exists"),
        (["export", "--npz", "there.h5"], 2, "there.h5 exists"),
        (["export", "--single", "."], 2, "is a directory"),
        (["export", "--single", ""], 2, ""),
        (["export", "zz", "--single", "new.h5"], 4, "no cache entry 'zz'"),
        (["export", "--single", "there.h5/new.h5"], 4, "there.h5/new.h5"),
        (["export", "--npz", "there.h5/new.npz"], 4, "there.h5/new.npz"),
        (["export", "--single", "x" * 300], 4, "name too long"),
        (["import"], 2, "FILE"),
        (["import", "new.h5"], 4, "no file new.h5"),
        (["import", "there.h5"], 4, "there.h5 is not a file made by"),
        (["import", "."], 4, ""),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_of_export_and_import_are_one_line_and_leave_nothing(cli, two, tmp_path, arguments, code, said):
    Path(tmp_path / "there.h5").write_bytes(b"mine")
    before = everything(tmp_path)
    assert_one_line(cli("cache", *arguments), code, said)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", ["--single", "--npz"])
def test_a_damaged_entry_is_not_exported(cli, two, tmp_path, kind):
    flip(two[0].shard_path(2))
    before = everything(tmp_path)
    assert_one_line(cli("cache", "export", two[0].id, kind, "new"), 4, "00002.h5 is damaged")
    assert everything(tmp_path) == before


def test_a_damaged_export_is_not_imported(cli, two, tmp_path):
    assert cli("cache", "export", "--single", "a.h5").code == 0
    flip(Path("a.h5"), 2000)
    assert_one_line(cli("cache", "import", "a.h5", "--cache-dir", "there"), 4, "a.h5 is damaged")
    assert not Path("there").exists()


# --- all of them ---


def test_the_cache_root_is_where_the_environment_says(cli, two, root, monkeypatch):
    shutil.move(root, root.parent / "elsewhere")
    monkeypatch.setenv("PIPELINE_CACHE_DIR", "elsewhere")
    assert cli("cache", "ls", "-q").out.split() == [two[0].id, two[1].id]
    assert cli("cache", "ls", "-q", "--cache-dir", "cache").out == ""


@pytest.mark.parametrize("command", ["ls", "info", "verify", "diff", "rm", "prune", "export", "import"])
def test_every_command_has_help_and_refuses_a_root_that_is_a_file(cli, tmp_path, command):
    result = cli("cache", command, "--help")
    assert (result.code, "--json" in result.out, "--cache-dir" in result.out) == (0, True, True)
    (tmp_path / "file").write_bytes(b"")
    arguments = {"diff": ["a", "b"], "import": ["a.h5"], "rm": ["a"], "export": ["--npz", "a"]}.get(command, [])
    assert_one_line(cli("cache", command, "--cache-dir", "file", *arguments), 2, "is a file")


def test_extract_show_verify_remove(cli, photos):
    made = json.loads(cli("extract", photos, *BACKBONE, "--workers", 1, "--json").out)
    assert "shufflenet_v2_x0_5" in cli("cache", "info", made["cache"]).out
    assert json.loads(cli("cache", "info", "--json").out)["manifest"]["rows"] == 36
    assert cli("cache", "verify").code == 0
    shard = next(Path(made["path"], "shards").iterdir())
    flip(shard, 6000)
    broken = cli("cache", "verify", made["cache"])
    assert (broken.code, shard.name in broken.err) == (4, True)
    assert cli("cache", "rm", made["cache"]).code == 2
    assert Path(made["path"]).exists()
    assert cli("cache", "rm", made["cache"], "--yes").code == 0
    assert not Path(made["path"]).exists()
    assert cli("cache", "ls").code == 0
