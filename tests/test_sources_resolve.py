"""From what a user typed to a source."""

from pathlib import Path

import pytest
from conftest import make_photos

from pipeline.errors import DataError, UsageError
from pipeline.sources.arrays import ArraySource
from pipeline.sources.folder import FolderSource
from pipeline.sources.resolve import open_source


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", 1)
    return tmp_path


@pytest.mark.parametrize("spec", ["photos", "./photos", "folder:photos", "photos/"])
def test_a_folder_is_found_with_and_without_its_prefix(here, spec):
    source = open_source(spec)
    assert isinstance(source, FolderSource)
    assert source.folder == str((here / "photos").resolve())
    assert not source.follow_symlinks
    assert open_source(spec, follow_symlinks=True).follow_symlinks


def test_the_spec_of_a_source_opens_it_from_anywhere(here, monkeypatch):
    spec = open_source("photos").spec
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert open_source(spec).listing().ids == open_source("../photos").listing().ids


def test_digits_go_by_name_in_any_case(here):
    assert isinstance(open_source("Digits"), ArraySource)
    assert open_source("Digits").spec == "digits"


@pytest.mark.parametrize("spec", ["eurosat", "EuroSAT", "torchvision:EuroSAT", "torchvision:eurosat"])
def test_torchvisions_data_sets_go_by_name_or_prefix_under_the_data_root(here, spec):
    make_photos(here / "store" / "eurosat" / "2750", 1)
    source = open_source(spec, data_root=Path("store"))
    assert source.spec == "torchvision:EuroSAT"
    assert len(source.listing()) == 3


def test_what_is_a_folder_and_a_data_set_at_once_is_an_error_that_says_how_to_choose(here):
    make_photos(here / "cifar10", 1)
    with pytest.raises(UsageError, match="folder here and also the name of a data set") as caught:
        open_source("cifar10")
    assert "./cifar10" in caught.value.hint
    assert "torchvision:CIFAR10" in caught.value.hint
    assert isinstance(open_source("./cifar10"), FolderSource)
    make_photos(here / "digits", 1)
    with pytest.raises(UsageError, match="also the name"):
        open_source("digits")
    assert isinstance(open_source("folder:digits"), FolderSource)


@pytest.mark.parametrize("spec", ["./gone", "a/b", "folder:gone", ".."[:1] + "/nothing"])
def test_a_missing_folder_is_named(here, spec):
    with pytest.raises(DataError, match="no folder"):
        open_source(spec)


def test_a_file_is_not_a_folder(here):
    (here / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a file, not a folder"):
        open_source("photos.zip")


def test_an_unknown_name_is_met_with_the_nearest_and_the_list(here):
    with pytest.raises(DataError, match=r"neither a folder here nor a data set. Did you mean 'cifar10'") as caught:
        open_source("cifer10")
    assert "digits" in caught.value.hint
    with pytest.raises(UsageError, match="unknown torchvision data set"):
        open_source("torchvision:photos")


@pytest.mark.parametrize("spec", ["", "folder:"])
def test_an_empty_source_is_an_error(here, monkeypatch, spec):
    monkeypatch.chdir(here / "photos")
    with pytest.raises((DataError, UsageError)):
        open_source(spec)


def test_a_home_folder_is_expanded_without_a_prefix_too(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert open_source("folder:~/photos").folder == str((here / "photos").resolve())
    assert open_source("~/photos").folder == str((here / "photos").resolve())


def test_a_data_root_in_the_home_folder_is_expanded(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    make_photos(here / "store" / "eurosat" / "2750", 1)
    listing = open_source("eurosat", data_root=Path("~/store")).listing()
    assert listing.ids[0] == "eurosat/2750/apple/00.jpg"
