"""Python data sets as sources: what they may give, and what is refused with the way out."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SPACE, make_image, make_photos
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import DatasetFolder, ImageFolder
from torchvision.transforms import ToTensor

import pipeline
from pipeline.digest import array_digest
from pipeline.errors import DataError, UsageError
from pipeline.sources.dataset import dataset_source
from pipeline.sources.folder import FolderSource
from pipeline.sources.reading import PLAIN, Reading
from pipeline.sources.source import TEST, TRAIN, ArrayPayload, BytesPayload, FilePayload


class Pairs:
    """A map-style data set of what it is given."""

    def __init__(self, *items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def source_of(data, **options):
    return dataset_source(data, None, Reading(**options))


def test_images_may_be_pillows_arrays_paths_or_bytes(tmp_path):
    picture = make_image(0)
    picture.save(tmp_path / "a.png")
    pixels = np.asarray(picture)
    grey, palette = picture.convert("L"), picture.convert("P")
    data = Pairs(
        (picture, "b"),
        (pixels, "a"),
        (pixels[:, :, :1], "a"),
        (str(tmp_path / "a.png"), "b"),
        ((tmp_path / "a.png").read_bytes(), "b"),
        (grey, "a"),
        (palette, "a"),
    )
    source = source_of(data)
    listing = source.listing()
    assert (list(listing.ids), listing.classes) == ([str(n) for n in range(7)], ("a", "b"))
    assert listing.labels.tolist() == [1, 0, 0, 1, 1, 0, 0]
    kinds = [type(source.payload(sample_id)) for sample_id in listing.ids]
    assert kinds == [ArrayPayload] * 3 + [FilePayload, BytesPayload] + [ArrayPayload] * 2
    encoded = hashlib.sha256((tmp_path / "a.png").read_bytes()).digest()
    told = [listing.digests[row].tobytes() for row in range(7)]
    assert told[0] == told[1] == array_digest(pixels)
    assert told[2] == array_digest(pixels[:, :, 0])
    assert told[3] == told[4] == encoded
    assert told[5] == array_digest(np.asarray(grey))
    assert told[6] == array_digest(np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((torch.zeros(3, 4, 4), 0), r"item 0 is a Tensor torch.float32 \(3, 4, 4\), not an image"),
        ((np.zeros((4, 4, 3)), 0), r"is a ndarray float64 \(4, 4, 3\), not uint8"),
        ((np.zeros((3, 4, 4), np.uint8), 0), r"not uint8 \(h, w\) or \(h, w, 3\)"),
        ((Image.new("F", (2, 2)), 0), "pixels of mode F"),
        ((np.zeros((4, 4), np.uint8), [0, 1]), "a label is a list, not text or an integer"),
        ((np.zeros((4, 4), np.uint8), 0.5), "a label is a float"),
        (np.zeros((4, 4), np.uint8), r"is a ndarray uint8 \(4, 4\), not \(image, label\)"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(item, message):
    with pytest.raises(DataError, match=message):
        source_of(Pairs(item)).listing()


def test_tensors_are_refused_with_the_way_out(photos):
    with pytest.raises(DataError) as caught:
        source_of(Subset(ImageFolder(str(photos), ToTensor()), [0, 1])).listing()
    assert "Drop the transform" in caught.value.hint


def test_classes_come_from_the_data_set_also_through_a_subset(photos):
    listing = source_of(Subset(ImageFolder(str(photos)), [13, 30, 0])).listing()
    assert listing.classes == ("apple", "beet", "corn")
    assert listing.labels.tolist() == [1, 2, 0]
    pixels = np.zeros((4, 4), np.uint8)
    assert source_of(Pairs((pixels, torch.tensor(1)), (pixels, np.int64(0)), classes=["x", "y"])).listing().classes == (
        "x",
        "y",
    )
    with pytest.raises(DataError, match="label 2 is not one of 2 classes"):
        source_of(Pairs((pixels, 2), classes=["x", "y"])).listing()


def test_an_image_folder_gives_its_files_and_is_the_same_samples_as_the_folder(photos):
    source = source_of(ImageFolder(str(photos), ToTensor()))
    ours, theirs = source.listing(), FolderSource(photos).listing()
    assert (ours.ids, ours.classes) == (theirs.ids, theirs.classes)
    assert np.array_equal(ours.labels, theirs.labels)
    assert np.array_equal(ours.stats[:], theirs.stats[:])
    assert source.folder == str(photos)
    assert ours.notes == ("images are read from the data set's files; its transform plays no part",)
    assert source.payload("beet/03.jpg") == FilePayload(str(photos / "beet" / "03.jpg"))


def test_labels_of_files_go_through_the_target_transform(photos):
    listing = source_of(ImageFolder(str(photos), target_transform=lambda label: 2 - label)).listing()
    assert [listing.classes[label] for label in listing.labels[::12]] == ["corn", "beet", "apple"]


def test_files_that_are_no_images_are_loaded_by_the_data_set(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", np.full((4, 4), 7, np.uint8))
    source = source_of(DatasetFolder(str(tmp_path), np.load, (".npy",)))
    assert source.listing().classes == ("a", "b")
    assert isinstance(source.payload("1"), ArrayPayload)


def test_a_dict_names_the_splits(tmp_path):
    for name in ("train", "test"):
        make_photos(tmp_path / name, 2)
    sets = {name: ImageFolder(str(tmp_path / name)) for name in ("test", "train")}
    listing = source_of(sets, group_by="folder:-1").listing()
    assert listing.ids[0] == "train/apple/00.jpg"
    assert listing.splits.tolist() == [TRAIN] * 6 + [TEST] * 6
    assert listing.groups == ["apple", "apple", "beet", "beet", "corn", "corn"] * 2
    pixels = np.zeros((4, 4), np.uint8)
    arrays = source_of({"train": Pairs((pixels, 0)), "validation": Pairs((pixels, 1))}).listing()
    assert list(arrays.ids) == ["train/0", "validation/0"]
    with pytest.raises(DataError, match="unknown split 'tran'"):
        source_of({"tran": Pairs((pixels, 0))})
    with pytest.raises(DataError, match="two data sets for one split"):
        source_of({"val": Pairs((pixels, 0)), "validation": Pairs((pixels, 0))})


@pytest.mark.parametrize("nothing", [7, {}, {"train": "photos"}, Pairs()], ids=["number", "none", "name", "empty"])
def test_what_is_no_data_set_is_refused(nothing):
    with pytest.raises((UsageError, DataError)):
        dataset_source(nothing, None, PLAIN)


def test_a_data_set_is_extracted_once_and_opened_again_only_by_itself(tmp_path, capsys):
    data = Pairs(*((make_image(seed), seed % 2) for seed in range(12)), classes=["even", "odd"])
    where = {"cache_dir": tmp_path / "cache", "runs_dir": tmp_path / "runs"}
    options = {**SPACE, "cache_dir": where["cache_dir"], "workers": 1, "test_fraction": 0.4}
    made = pipeline.extract(data, name="gradients", **options)
    assert (made.computed, made.rows) == (12, 12)
    assert pipeline.extract(data, name="gradients", **options).computed == 0
    features = pipeline.open_cache(made.cache, cache_dir=where["cache_dir"])
    assert features.y.tolist() == [0, 1] * 6
    run = pipeline.train_head(made.cache, epochs=1, val_fraction=0, **where)
    proof = pipeline.evaluate(run.run, source=data, end_to_end=True, workers=1, **where).end_to_end
    assert proof is not None
    assert proof.holds
    with pytest.raises(DataError, match="gradients was a data set in a Python program") as caught:
        pipeline.evaluate(run.run, end_to_end=True, **where)
    assert "source=" in caught.value.hint
    with pytest.raises(UsageError, match="a name is for data sets"):
        pipeline.extract(str(tmp_path), name="gradients", **options)


def test_random_transforms_are_found_out(tmp_path):
    rng = np.random.default_rng(0)

    class Noise(Pairs):
        def __getitem__(self, index):
            return rng.integers(0, 255, (8, 8, 3), np.uint8), index % 2

    with pytest.raises(DataError, match="another image each time"):
        pipeline.extract(Noise(*range(4)), cache_dir=tmp_path / "cache", workers=1, **SPACE)


def test_paths_that_are_gone_are_bad_images_and_not_errors_of_listing(tmp_path):
    make_image(0).save(tmp_path / "a.png")
    data = Pairs((tmp_path / "a.png", 0), (tmp_path / "gone.png", 1), (Path("b"), 0))
    listing = source_of(data).listing()
    assert listing.digests.any(axis=1).tolist() == [True, False, False]
