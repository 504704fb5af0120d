"""Full checks: every file of an entry, every kind of damage; setting aside loses nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE, make_photos

import pipeline
from pipeline.digest import sha256_bytes
from pipeline.store.commit import write_json
from pipeline.store.entry import Entry, open_entry
from pipeline.store.samples import SampleTable
from pipeline.store.verify import find_damage, set_aside

FILES = ["samples.h5", "skipped.csv", "shards/00000.h5", "shards/00001.h5"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a finished entry of two shards."""
    root = tmp_path_factory.mktemp("verify")
    photos = make_photos(root / "photos", per_class=4)
    options = {**SPACE, "batch_size": 4, "shard_rows": 8, "workers": 1}
    return Path(pipeline.extract(str(photos), cache_dir=root / "cache", **options).path)


@pytest.fixture
def entry(made, tmp_path) -> Entry:
    """Return a copy of it that a test may damage, in a cache root of its own."""
    shutil.copytree(made, tmp_path / made.name)
    return open_entry(tmp_path / made.name)


def overwrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def test_a_whole_entry_has_no_damage(made):
    assert find_damage(open_entry(made)) == []


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_anywhere_is_found_and_named(entry, name):
    path = entry.path / name
    data = path.read_bytes()
    path.unlink()
    rng = np.random.default_rng(0)
    for place in [0, len(data) - 1, *rng.integers(0, len(data), 25).tolist()]:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])
        (found,) = find_damage(entry)
        assert found.path == path
        assert "SHA-256" in found.reason


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"", lambda data: data + b"\0"])
def test_another_size_is_found_and_said(entry, name, change):
    data = (entry.path / name).read_bytes()
    overwrite(entry.path / name, change(data))
    (found,) = find_damage(entry)
    assert found.path == entry.path / name
    assert found.reason == f"{len(change(data)):,} bytes where {len(data):,} were committed"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(entry, name):
    (entry.path / name).unlink()
    assert [(item.path, item.reason) for item in find_damage(entry)] == [(entry.path / name, "missing")]


def test_all_damage_is_found_at_once(entry):
    for name in FILES:
        overwrite(entry.path / name, b"x")
    assert [item.path for item in find_damage(entry)] == [entry.path / name for name in FILES]


def test_a_folder_in_the_place_of_a_file_is_damage(entry):
    path = entry.path / FILES[2]
    path.unlink()
    path.mkdir()
    (found,) = find_damage(entry)
    assert found.path == path


def test_a_sample_table_that_does_not_give_the_id_is_damage(entry):
    table = entry.read_samples()
    data = SampleTable(table.ids[::-1], table.digests, table.labels, table.splits, table.status).to_bytes()
    overwrite(entry.path / "samples.h5", data)
    body = {key: value for key, value in entry.manifest.items() if key != "sha256"}
    body["samples"] = {"sha256": sha256_bytes(data), "bytes": len(data)}
    write_json(entry.path / "entry.json", body, replace=True)
    (found,) = find_damage(open_entry(entry.path))
    assert found.path == entry.path / "samples.h5"
    assert "does not belong" in found.reason


def test_a_sample_table_that_is_no_hdf5_is_damage(entry):
    overwrite(entry.path / "samples.h5", b"text")
    body = {key: value for key, value in entry.manifest.items() if key != "sha256"}
    body["samples"] = {"sha256": sha256_bytes(b"text"), "bytes": 4}
    write_json(entry.path / "entry.json", body, replace=True)
    assert [item.path.name for item in find_damage(open_entry(entry.path))] == ["samples.h5"]


def test_a_damaged_file_is_set_aside_with_its_bytes_and_origin(entry, tmp_path):
    path = entry.shard_path(1)
    overwrite(path, b"damaged")
    goal = set_aside(tmp_path, path)
    assert not path.exists()
    assert goal.parent == tmp_path / "quarantine"
    assert goal.read_bytes() == b"damaged"
    assert goal.name.endswith(f"-{entry.path.name}-shards-00001.h5")


def test_a_folder_is_set_aside_whole(entry, tmp_path):
    goal = set_aside(tmp_path, entry.path)
    assert not entry.path.exists()
    assert find_damage(open_entry(goal)) == []


def test_files_of_one_name_are_set_aside_side_by_side(tmp_path):
    for turn in range(20):
        (tmp_path / "file").write_bytes(bytes([turn]))
        set_aside(tmp_path, tmp_path / "file")
    found = sorted((tmp_path / "quarantine").iterdir())
    assert [path.read_bytes() for path in found] == [bytes([turn]) for turn in range(20)]


def test_a_path_outside_the_root_is_set_aside_by_its_name(tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").write_bytes(b"x")
    goal = set_aside(tmp_path / "root", tmp_path / "else" / "file")
    assert goal.parent == tmp_path / "root" / "quarantine"
    assert goal.name.endswith("-file")
