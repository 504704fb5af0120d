"""Resizing on the device gives Pillow's own pixels, so that features do not depend on who resizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_image, make_photos
from PIL import Image

import pipeline
from pipeline.backbones.preprocess import INTERPOLATIONS, Preprocess
from pipeline.engines.resizing import DeviceResize, taps_of
from pipeline.errors import UsageError

HALF = (0.5, 0.5, 0.5)
JOB = {"backbone": "tiny_network:network", "batch_size": 4, "shard_rows": 8, "workers": 1, "engine": "reference"}


def preprocess(interpolation="bilinear", resize=40, crop=32):
    return Preprocess(resize, crop, interpolation, HALF, HALF)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (20, 24), (97, 130), (130, 97), (500, 375), (41, 300), (300, 41), (40, 90)]
)
def test_pixels_are_pillows(height, width, interpolation):
    resize = DeviceResize(preprocess(interpolation), torch.device("cpu"))
    image = noise(height, width)
    for pixels in (image, (image > 127).astype(np.uint8) * 255):  # black and white: sums beyond both ends
        assert np.array_equal(resize(pixels), preprocess(interpolation).pixels(Image.fromarray(pixels)))
    assert resize.rows_first[height, width] is not None


def test_a_size_that_comes_out_otherwise_is_left_to_pillow(monkeypatch):
    resize = DeviceResize(preprocess(), torch.device("cpu"))
    monkeypatch.setattr("pipeline.engines.resizing.BITS", 8)
    taps_of.cache_clear()
    image = noise(97, 130)
    assert np.array_equal(resize(image), preprocess().pixels(Image.fromarray(image)))
    assert resize.rows_first == {(97, 130): None}
    taps_of.cache_clear()


@pytest.mark.parametrize("interpolation", sorted(set(INTERPOLATIONS) - {"bilinear", "bicubic"}))
def test_other_filters_are_refused(interpolation):
    with pytest.raises(UsageError, match=f"these weights want {interpolation}"):
        DeviceResize(preprocess(interpolation), torch.device("cpu"))


def test_what_may_wait():
    def told(width, height):
        return preprocess().may_wait(width, height, 64)

    assert told(20, 24)
    assert told(64, 50)
    assert not told(40, 60)  # needs no resizing
    assert not told(65, 50)  # does not fit
    assert not told(10, 60)  # would not fit afterwards
    assert not preprocess(resize=20).may_wait(30, 30, 64)  # gets borders


def mixed_photos(root: Path) -> Path:
    """Photos of several sizes: small, tall, too large to go whole, and one that needs no resizing; one is broken."""
    photos = make_photos(root, per_class=4)
    folder = photos / "apple"
    for place, size in enumerate([(32, 32), (600, 40), (90, 300), (300, 200)]):
        make_image(100 + place, size).save(folder / f"sized{place}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return photos


def test_features_do_not_depend_on_who_resizes(tmp_path, cli):
    photos = mixed_photos(tmp_path / "photos")
    results = {}
    for who in ("workers", "device"):
        plans = []
        results[who] = pipeline.extract(
            photos,
            resize=who,
            on_bad_image="skip",
            cache_dir=tmp_path / who,
            on_plan=plans.append,
            **JOB,
        )
        assert plans[0].resize == who
    workers, device = results["workers"], results["device"]
    assert (device.cache, device.space, device.skipped) == (workers.cache, workers.space, 1)
    shards = [sorted((Path(one.path) / "shards").iterdir()) for one in (workers, device)]
    assert [one.read_bytes() for one in shards[0]] == [one.read_bytes() for one in shards[1]]

    done = cli("extract", photos, "--backbone", "tiny_network:network", "--resize", "device", "--dry-run")
    assert done.code == 0
    assert "resized on cpu" in done.err
