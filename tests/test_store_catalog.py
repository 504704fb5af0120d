"""Which entries there are, and which one a user means. Opening an entry reads its manifest only."""

import os
from pathlib import Path

import pytest
from conftest import make_manifest

from pipeline.errors import CacheError, UsageError
from pipeline.store.catalog import find_entry, list_entries
from pipeline.store.commit import write_json


def make_entry(root: Path, name: str, age: int = 0) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    write_json(folder / "entry.json", make_manifest(id=name[:16].ljust(64, "0")), replace=False)
    time = 10**18 - age * 10**9
    os.utime(folder / "entry.json", ns=(time, time))
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    """Return a cache of three entries; the one made last is neither first nor last by name."""
    make_entry(tmp_path / "cache", "aaaa000000000001", age=20)
    make_entry(tmp_path / "cache", "aaaa000000000002", age=10)
    make_entry(tmp_path / "cache", "bbbb000000000000", age=30)
    return tmp_path / "cache"


def ids(root: Path) -> list[str]:
    return [entry.id for entry in list_entries(root)]


def test_entries_are_listed_oldest_first(root):
    assert ids(root) == ["bbbb000000000000", "aaaa000000000001", "aaaa000000000002"]


def test_entries_of_one_age_are_listed_by_id(tmp_path):
    for name in ("cccc000000000000", "aaaa000000000000", "bbbb000000000000"):
        make_entry(tmp_path, name)
    assert ids(tmp_path) == ["aaaa000000000000", "bbbb000000000000", "cccc000000000000"]


def test_no_cache_has_no_entries(tmp_path):
    assert ids(tmp_path) == []
    assert ids(tmp_path / "nothing") == []


def test_damaged_entries_and_other_folders_are_not_listed(root):
    manifest = root / "aaaa000000000001" / "entry.json"
    text = manifest.read_bytes()
    manifest.unlink()
    manifest.write_bytes(text.replace(b'"rows": 0', b'"rows": 5'))
    (root / "quarantine" / "dddd000000000000").mkdir(parents=True)
    (root / "quarantine" / "dddd000000000000" / "entry.json").write_bytes(text)
    (root / "plans" / "eeee000000000000").mkdir(parents=True)
    (root / "file").write_bytes(b"")
    (root / "cccc000000000000").mkdir()
    assert ids(root) == ["bbbb000000000000", "aaaa000000000002"]


def test_folders_that_are_being_made_or_removed_are_not_listed(root):
    (root / "aaaa000000000001").rename(root / ".tmp-123-00000000-aaaa000000000001")
    assert ids(root) == ["bbbb000000000000", "aaaa000000000002"]


@pytest.mark.parametrize("name", ["bbbb000000000000", "b", "bbbb", "BBBB"])
def test_an_entry_is_found_by_any_unique_prefix(root, name):
    assert find_entry(root, name).path == root / "bbbb000000000000"


def test_an_entry_is_found_by_its_path_from_anywhere(root, tmp_path, monkeypatch):
    assert find_entry(tmp_path / "other", str(root / "bbbb000000000000")).id == "bbbb000000000000"
    monkeypatch.chdir(root)
    assert find_entry(tmp_path / "other", "./bbbb000000000000").id == "bbbb000000000000"


def test_latest_is_the_one_made_last(root):
    assert find_entry(root, "latest").id == "aaaa000000000002"
    time = 2 * 10**18
    os.utime(root / "bbbb000000000000" / "entry.json", ns=(time, time))
    assert find_entry(root, "latest").id == "bbbb000000000000"


def test_latest_of_no_cache_says_how_to_make_one(tmp_path):
    with pytest.raises(CacheError, match=r"no cache entry under .* yet") as caught:
        find_entry(tmp_path / "cache", "latest")
    assert "pipeline extract" in caught.value.hint


def test_an_ambiguous_prefix_names_all_it_fits(root):
    with pytest.raises(CacheError, match="'aaaa' is not unique") as caught:
        find_entry(root, "aaaa")
    assert "aaaa000000000001, aaaa000000000002" in caught.value.message
    assert "bbbb" not in caught.value.message


def test_an_unknown_name_says_what_there_is(root):
    with pytest.raises(CacheError, match="no cache entry 'cccc'") as caught:
        find_entry(root, "cccc")
    assert "there is aaaa000000000001, aaaa000000000002, bbbb000000000000" in caught.value.message
    assert "pipeline cache ls" in caught.value.hint


@pytest.mark.parametrize(("name", "said"), [("0001-one", "is a run: `pipeline runs`"), (".", "pipeline extract .")])
def test_a_run_or_a_folder_of_images_in_place_of_an_entry_is_told_what_to_do(root, name, said):
    with pytest.raises(CacheError, match="no cache entry") as caught:
        find_entry(root, name)
    assert said in caught.value.hint


def test_an_unknown_name_in_an_empty_cache_says_so(tmp_path):
    with pytest.raises(CacheError, match="there is nothing"):
        find_entry(tmp_path, "aaaa")


def test_an_empty_name_names_nothing(root):
    with pytest.raises(UsageError, match="empty"):
        find_entry(root, "")


def test_a_damaged_entry_asked_for_by_name_is_named(root):
    manifest = root / "bbbb000000000000" / "entry.json"
    manifest.unlink()
    manifest.write_bytes(b"{}")
    with pytest.raises(CacheError, match=r"entry\.json is damaged"):
        find_entry(root, "bbbb")


def test_an_exact_name_is_unique_beside_a_copy_of_the_entry(root):
    make_entry(root, "bbbb000000000000-copy")
    assert find_entry(root, "bbbb000000000000").path == root / "bbbb000000000000"


@pytest.mark.parametrize(
    "name", ["a" * 300, "a" * 5000, "a/" * 3000, "aa\0aa", "\0", "aaaa000000000001\0", "\udcff", "..", "/"]
)
def test_a_name_that_no_file_can_have_is_simply_unknown(root, name):
    with pytest.raises(CacheError, match="no cache entry"):
        find_entry(root, name)


def test_an_id_is_no_folder_that_happens_to_lie_here(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "bbbb000000000000", "latest"):
        make_entry(tmp_path, f"cccc00000000000{len(name) % 10}").rename(tmp_path / name)
    for name in ("b", "bbbb", "bbbb000000000000"):
        assert find_entry(root, name).path == root / "bbbb000000000000"
    assert find_entry(root, "latest").id == "aaaa000000000002"


def test_an_ambiguous_prefix_is_no_folder_that_happens_to_lie_here(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_entry(tmp_path, "cccc000000000000").rename(tmp_path / "aaaa")
    with pytest.raises(CacheError, match="not unique"):
        find_entry(root, "aaaa")
    assert find_entry(root, "./aaaa").id == "cccc000000000000"


def test_a_folder_here_is_found_by_its_name_where_no_id_begins_so(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_entry(tmp_path, "cccc000000000000").rename(tmp_path / "mine")
    assert find_entry(root, "mine").id == "cccc000000000000"
