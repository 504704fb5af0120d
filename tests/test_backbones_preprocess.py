"""Geometry and normalisation, against torchvision's own transforms, bit for bit."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.reference import ReferenceEngine

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def seen(preprocess: Preprocess, image: Image.Image) -> torch.Tensor:
    engine = ReferenceEngine(torch.nn.Identity(), preprocess, torch.device("cpu"))
    return engine.scaled(np.stack([preprocess.pixels(image)]))[0]


def theirs(preprocess: Preprocess) -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.Resize(preprocess.resize, transforms.InterpolationMode(preprocess.interpolation)),
            transforms.CenterCrop(preprocess.crop),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("resize", "crop"), [(16, 16), (37, 32), (33, 24), (20, 33), (1, 5), (7, 40)])
def test_what_the_network_sees_is_torchvisions_bit_for_bit(resize, crop, interpolation):
    preprocess = Preprocess(resize, crop, interpolation, **IMAGENET)
    transform = theirs(preprocess)
    rng = np.random.default_rng(resize)
    sizes = rng.integers(1, 80, (25, 2)).tolist()
    sizes += [(1, 1), (1, 9), (9, 1), (resize, resize), (resize, resize + 13), (resize + 8, resize), (199, 3), (3, 198)]
    for width, height in sizes:
        image = noise(width, height)
        assert torch.equal(seen(preprocess, image), transform(image)), (width, height)


def test_crop_of_every_odd_and_even_margin_is_torchvisions():
    preprocess = Preprocess(11, 8, "bilinear", **IMAGENET)
    transform = theirs(preprocess)
    for longer in range(11, 30):
        for size in ((11, longer), (longer, 11)):
            assert torch.equal(seen(preprocess, noise(*size)), transform(noise(*size))), size


def test_a_crop_larger_than_the_image_is_padded_with_black():
    pixels = Preprocess(4, 9, "bilinear", **IMAGENET).pixels(Image.new("RGB", (4, 4), (200, 100, 50)))
    assert pixels.shape == (9, 9, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[2:6, 2:6] == (200, 100, 50)).all()
    assert int((pixels.sum(axis=2) > 0).sum()) == 16


def test_image_size_sets_resize_and_crop_and_nothing_else():
    own = Preprocess(256, 224, "bicubic", **IMAGENET)
    changed = own.override(image_size=96, mean=None, std=None)
    assert changed == dataclasses.replace(own, resize=96, crop=96)
    assert own.override(image_size=None, mean=None, std=None) == own


def test_one_mean_is_for_all_colours_and_three_are_taken_as_they_are():
    own = Preprocess(256, 224, "bilinear", **IMAGENET)
    assert own.override(image_size=None, mean=(0.5,), std=None).mean == (0.5, 0.5, 0.5)
    changed = own.override(image_size=None, mean=(0.1, 0.2, 0.3), std=(0.4,))
    assert (changed.mean, changed.std) == ((0.1, 0.2, 0.3), (0.4, 0.4, 0.4))
    assert (changed.resize, changed.crop) == (256, 224)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 0, "mean": None, "std": None},
        {"image_size": -3, "mean": None, "std": None},
        {"image_size": None, "mean": (0.5, 0.5), "std": None},
        {"image_size": None, "mean": None, "std": (0.5, 0.0, 0.5)},
        {"image_size": None, "mean": None, "std": (-1.0,)},
        {"image_size": None, "mean": None, "std": (float("nan"),)},
    ],
)
def test_values_without_meaning_are_refused(change):
    with pytest.raises(ValueError, match="must"):
        Preprocess(256, 224, "bilinear", **IMAGENET).override(**change)


def test_an_unknown_interpolation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'area', expected one of .*'bicubic'"):
        Preprocess(8, 8, "area", **IMAGENET)


def test_a_mean_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="mean"):
        Preprocess(8, 8, "bilinear", (float("nan"),) * 3, (1.0,) * 3)


def test_json_and_back_is_the_same_value():
    preprocess = Preprocess(40, 36, "bicubic", **IMAGENET)
    fields = json.loads(json.dumps(preprocess.to_json()))
    assert Preprocess.from_json(fields) == preprocess
    assert (fields["colour"], fields["decoder"]) == ("RGB", "pillow")


def test_an_image_that_would_become_enormous_is_refused_before_it_does():
    thin = Image.new("RGB", (60_000, 1))
    with pytest.raises(ValueError, match="60000 x 1 pixels would become 13440000 x 224"):
        Preprocess(224, 224, "bilinear", **IMAGENET).pixels(thin)
    assert Preprocess(8, 8, "nearest", **IMAGENET).pixels(thin).shape == (8, 8, 3)
