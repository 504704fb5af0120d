"""Sources that hold arrays."""

import numpy as np
from sklearn.datasets import load_digits

from pipeline.sources.arrays import ArrayPart, ArraySource, digits_source
from pipeline.sources.source import TEST, TRAIN


def test_digits_are_scikit_learns_with_all_greys_used():
    data = load_digits()
    source = digits_source()
    listing = source.listing()
    assert len(listing) == 1797
    assert listing.labels.tolist() == data.target.tolist()
    assert listing.classes == tuple("0123456789")
    assert set(listing.splits.tolist()) == {TRAIN}
    assert listing.stats is None
    images = np.stack([source.payload(sample_id).array for sample_id in listing.ids])
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert np.abs(images / 255 * 16 - data.images).max() < 0.05


def test_digits_are_named_without_a_prefix():
    source = digits_source()
    assert source.spec == "digits"
    assert source.describe() == {"kind": "bundled", "location": "digits"}
    assert source.folder is None


def two_parts() -> ArraySource:
    rng = np.random.default_rng(0)
    train = ArrayPart(TRAIN, rng.integers(0, 256, (11, 4, 5, 3), np.uint8), np.arange(11, dtype=np.int32) % 3)
    test = ArrayPart(TEST, rng.integers(0, 256, (2, 6, 4), np.uint8), np.array([2, 0]))
    return ArraySource("Things", "torchvision", (("train", train), ("test", test)), ("a", "b", "c"))


def test_parts_follow_each_other_with_ids_of_one_width():
    listing = two_parts().listing()
    assert list(listing.ids) == [f"train/{index:02d}" for index in range(11)] + ["test/00", "test/01"]
    assert listing.labels.tolist() == [index % 3 for index in range(11)] + [2, 0]
    assert listing.labels.dtype == np.int64
    assert listing.splits.tolist() == [TRAIN] * 11 + [TEST] * 2


def test_payload_is_the_image_of_its_id():
    source = two_parts()
    train, test = (part for _, part in source.parts)
    assert np.array_equal(source.payload("train/07").array, train.images[7])
    assert np.array_equal(source.payload("test/01").array, test.images[1])
    assert source.spec == "torchvision:Things"
    assert len(set(source.listing().ids)) == 13
