"""Near-duplicates: close features, confirmed on pixels."""

import hashlib

import numpy as np
import pytest
import torch
from conftest import make_image
from PIL import Image

from pipeline.auditing.candidates import close_pairs
from pipeline.auditing.near import near_duplicates
from pipeline.digest import array_digest
from pipeline.features import Features
from pipeline.sources.resolve import open_source


@pytest.fixture
def planted(tmp_path):
    """12 pictures, then a re-encoded, a resized and a mirrored one of 0, 1 and 2, and a twin of 3 in features alone."""
    images = [make_image(seed) for seed in range(12)]
    images += [images[0], images[1].resize((36, 30)), images[2].transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    images += [make_image(99)]
    (tmp_path / "photos" / "all").mkdir(parents=True)
    for number, image in enumerate(images):
        image.save(tmp_path / "photos" / "all" / f"{number:02d}.jpg", quality=90 if number < 12 else 75)
    source = open_source(str(tmp_path / "photos"))
    ids = list(source.listing().ids)
    digests = [np.frombuffer(hashlib.sha256((tmp_path / "photos" / i).read_bytes()).digest(), np.uint8) for i in ids]
    x = torch.randn(16, 24)
    x[12:] = x[:4] + 0.05 * torch.randn(4, 24)
    return Features(x, torch.zeros(16, dtype=torch.int64), ("all",), ids, digests=np.stack(digests)), source


def test_copies_are_confirmed_on_their_pixels(planted):
    found = near_duplicates(*planted, workers=1)
    assert [(pair.a, pair.b, pair.kind) for pair in found] == [
        (0, 12, "copy"),
        (1, 13, "copy"),
        (2, 14, "mirrored"),
        (3, 15, "twin"),
    ]
    assert all(pair.difference is not None and pair.difference < 0.015 for pair in found[:3])


def test_without_pictures_nothing_is_confirmed(planted):
    found = near_duplicates(planted[0], None)
    assert [(pair.a, pair.b) for pair in found] == [(0, 12), (1, 13), (2, 14), (3, 15)]
    assert {pair.kind for pair in found} == {"unconfirmed"}


def test_digits_that_look_alike_are_no_copies():
    """Two of 8 x 8 pixels may agree as well as a photo and its resized copy do."""
    source, y = open_source("digits"), torch.zeros(1797, dtype=torch.int64)
    ids = list(source.listing().ids)
    images = [source.payload(one).array for one in ids]
    digests = np.stack([np.frombuffer(array_digest(image), np.uint8) for image in images])
    x = torch.from_numpy(np.stack(images)).flatten(1).float()
    found = near_duplicates(Features(x, y, ("all",), ids, digests=digests), source, workers=1)
    assert sum(pair.kind != "twin" for pair in found) < 40


def test_candidates_are_those_of_all_pairs():
    x = torch.randn(700, 20)
    pairs, cosines = close_pairs(x, floor=0.5, neighbours=700)
    z = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    wanted = torch.nonzero((z @ z.T).triu(1) >= 0.5)
    assert np.array_equal(pairs, wanted.numpy())
    assert np.allclose(cosines, (z @ z.T)[wanted[:, 0], wanted[:, 1]], atol=1e-5)
