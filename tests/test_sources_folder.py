"""Image folders: the order of torchvision's ImageFolder, splits, links, and what is said about the rest."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import make_image, make_photos
from torchvision.datasets import ImageFolder

from pipeline.errors import DataError
from pipeline.sources.folder import FolderSource
from pipeline.sources.source import TEST, TRAIN, VAL


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"listing does not open files")
    return root


def test_order_and_labels_are_those_of_image_folder_nested_folders_included(tmp_path):
    root = put(
        tmp_path,
        *("cat/b.jpg", "cat/a.PNG", "cat/10.jpg", "cat/9.jpg", "cat/B.jpeg", "cat/a/z.jpg", "cat/a/a/c.webp"),
        *("cat/a-b/x.jpg", "cat/a.b/x.bmp", "cat/a b/x.ppm", "cat/a/x.tif", "cat/zz/1.tiff", "cat/0/é.pgm"),
        *("Dog/1.jpg", "Dog/sub/0.jpg", "ant-eater/1.jpg", "ant/1.jpg", "ant/-/0.jpg"),
    )
    listing = FolderSource(root).listing()
    theirs = ImageFolder(root)
    assert list(listing.ids) == [Path(path).relative_to(root).as_posix() for path, _ in theirs.samples]
    assert listing.labels.tolist() == theirs.targets
    assert listing.classes == tuple(theirs.classes)
    assert listing.labels.dtype == np.int64
    assert set(listing.splits.tolist()) == {TRAIN}
    assert len(listing) == 18


def test_each_split_is_in_the_order_of_image_folder(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path / split, "b/2.jpg", "b/1.jpg", "a/1.jpg", "a/in/0.jpg")
    listing = FolderSource(tmp_path).listing()
    theirs = [path for split in ("train", "val", "test") for path, _ in ImageFolder(tmp_path / split).samples]
    assert list(listing.ids) == [Path(path).relative_to(tmp_path).as_posix() for path in theirs]
    assert listing.splits.tolist() == [TRAIN] * 4 + [VAL] * 4 + [TEST] * 4
    assert listing.labels.tolist() == [0, 0, 1, 1] * 3


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", TRAIN), ("val", VAL), ("valid", VAL), ("validation", VAL), ("test", TEST), ("Train", TRAIN)],
)
def test_a_split_folder_is_known_by_its_names(tmp_path, name, split):
    put(tmp_path / name, "x/1.jpg")
    listing = FolderSource(tmp_path).listing()
    assert list(listing.ids) == [f"{name}/x/1.jpg"]
    assert listing.splits.tolist() == [split]
    assert listing.classes == ("x",)


def test_classes_are_numbered_by_name_over_all_splits(tmp_path):
    put(tmp_path, "train/b/1.jpg", "test/c/1.jpg", "test/a/1.jpg")
    listing = FolderSource(tmp_path).listing()
    assert listing.classes == ("a", "b", "c")
    assert list(zip(listing.ids, listing.labels.tolist(), strict=True)) == [
        ("train/b/1.jpg", 1),
        ("test/a/1.jpg", 0),
        ("test/c/1.jpg", 2),
    ]


def test_two_folders_for_one_split_are_refused(tmp_path):
    put(tmp_path, "train/x/1.jpg", "val/x/1.jpg", "valid/x/1.jpg")
    with pytest.raises(DataError, match=r"two folders for one split.*val, valid"):
        FolderSource(tmp_path).listing()


def test_a_class_may_be_called_train(tmp_path):
    put(tmp_path, "train/1.jpg", "plane/1.jpg", "test/1.jpg")
    listing = FolderSource(tmp_path).listing()
    assert listing.classes == ("plane", "test", "train")
    assert list(listing.ids) == ["plane/1.jpg", "test/1.jpg", "train/1.jpg"]
    assert set(listing.splits.tolist()) == {TRAIN}


def test_folders_beside_the_splits_are_named_in_a_note(tmp_path):
    put(tmp_path, "train/x/1.jpg", "extra/x/1.jpg")
    listing = FolderSource(tmp_path).listing()
    assert list(listing.ids) == ["train/x/1.jpg"]
    assert listing.notes == ("beside the split folders, left out: extra",)


def test_other_files_and_empty_classes_are_noted_and_hidden_ones_are_nothing(tmp_path):
    put(tmp_path, "x/1.jpg", "x/.DS_Store", "x/.hidden.jpg", ".git/2.jpg", "x/Thumbs.db", "x/deep/readme.txt")
    (tmp_path / "empty").mkdir()
    listing = FolderSource(tmp_path).listing()
    assert list(listing.ids) == ["x/1.jpg"]
    assert listing.classes == ("x",)
    assert listing.notes == (
        "class folder empty holds no images",
        "2 files are no images by their extension and left out: " + listing.notes[1].partition("out: ")[2],
    )
    assert set(listing.notes[1].partition("out: ")[2].split(", ")) == {"x/Thumbs.db", "x/deep/readme.txt"}


def test_a_folder_without_class_folders_says_what_it_holds(tmp_path):
    put(tmp_path, "1.jpg", "2.png", "notes.txt")
    with pytest.raises(DataError, match="no class folders: found 2 images directly in it") as caught:
        FolderSource(tmp_path).listing()
    assert "FOLDER/<class>" in caught.value.hint
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="found nothing to classify"):
        FolderSource(tmp_path / "none").listing()


def test_class_folders_without_images_are_refused(tmp_path):
    put(tmp_path, "x/readme.txt", "y/notes.md")
    with pytest.raises(DataError, match="class folders but no images"):
        FolderSource(tmp_path).listing()


def test_a_file_linked_from_outside_is_refused_unless_links_are_followed(tmp_path):
    photos = make_photos(tmp_path / "photos", 1)
    outside = tmp_path / "outside.jpg"
    make_image(7).save(outside)
    (photos / "beet" / "zz.jpg").symlink_to(outside)
    with pytest.raises(DataError, match="leads out of") as caught:
        FolderSource(photos).listing()
    assert str(outside) in caught.value.message
    source = FolderSource(photos, follow_symlinks=True)
    listing = source.listing()
    assert listing.ids[2] == "beet/zz.jpg"
    assert Path(source.payload("beet/zz.jpg").path).read_bytes() == outside.read_bytes()
    assert listing.stats[2][:2].tolist() == [outside.stat().st_ino, outside.stat().st_size]


def test_a_class_folder_linked_from_outside_is_refused_unless_links_are_followed(tmp_path):
    photos = make_photos(tmp_path / "photos", 1)
    other = make_photos(tmp_path / "other", 1, ("daikon",))
    (photos / "daikon").symlink_to(other / "daikon")
    with pytest.raises(DataError, match="leads out of"):
        FolderSource(photos).listing()
    assert FolderSource(photos, follow_symlinks=True).listing().ids[-1] == "daikon/00.jpg"


def test_a_folder_whose_name_starts_like_the_root_is_outside(tmp_path):
    photos = make_photos(tmp_path / "photos", 1)
    twin = put(tmp_path / "photos-private", "1.jpg")
    (photos / "beet" / "1.jpg").symlink_to(twin / "1.jpg")
    with pytest.raises(DataError, match="leads out of"):
        FolderSource(photos).listing()


def test_links_within_the_root_are_fine(tmp_path):
    photos = make_photos(tmp_path / "photos", 2)
    (photos / "corn" / "99.jpg").symlink_to(photos / "beet" / "00.jpg")
    listing = FolderSource(photos).listing()
    assert listing.ids[-1] == "corn/99.jpg"
    assert len(listing) == 7


def test_a_linked_folder_below_a_class_is_listed_or_mentioned(tmp_path):
    photos = make_photos(tmp_path / "photos", 1)
    other = make_photos(tmp_path / "other", 1, ("more",))
    (photos / "beet" / "more").symlink_to(other / "more")
    listing = FolderSource(photos, follow_symlinks=True).listing()
    assert "beet/more/00.jpg" in listing.ids or any("beet/more" in note for note in listing.notes)


def test_links_that_go_round_in_circles_end(tmp_path):
    photos = make_photos(tmp_path / "photos", 1)
    (photos / "beet" / "again").symlink_to(photos / "beet")
    listing = FolderSource(photos, follow_symlinks=True).listing()
    assert {"apple/00.jpg", "beet/00.jpg", "corn/00.jpg"} <= set(listing.ids)
    assert len(listing) <= 4


def test_a_dangling_link_and_a_pipe_keep_their_place_without_facts(tmp_path):
    photos = make_photos(tmp_path / "photos", 1)
    (photos / "apple" / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    os.mkfifo(photos / "apple" / "pipe.jpg")
    listing = FolderSource(photos).listing()
    assert list(listing.ids[:3]) == ["apple/00.jpg", "apple/gone.jpg", "apple/pipe.jpg"]
    assert listing.stats[0].all()
    assert not listing.stats[1:3].any()


def test_facts_are_those_of_stat(photos):
    listing = FolderSource(photos).listing()
    for name, facts in zip(listing.ids, listing.stats[:].tolist(), strict=True):
        found = (photos / name).stat()
        assert facts == [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def test_a_folder_is_named_by_its_real_path(photos, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    for root in (Path("link"), Path("photos"), tmp_path / "link"):
        source = FolderSource(root)
        assert source.spec == source.folder == os.path.realpath(photos)
        assert source.describe() == {"kind": "folder", "location": os.path.realpath(photos)}
    assert Path(FolderSource(Path("link")).payload("beet/03.jpg").path).is_file()


def test_take_keeps_the_columns_together(photos):
    listing = FolderSource(photos).listing()
    some = listing.take(np.array([30, 2, 13]))
    assert list(some.ids) == [listing.ids[30], listing.ids[2], listing.ids[13]]
    assert some.labels.tolist() == [2, 0, 1]
    assert np.array_equal(some.stats[:], listing.stats[[30, 2, 13]])
    assert some.classes == listing.classes
