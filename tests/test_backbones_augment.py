"""Views as a value: one spelling, the same pixels whenever and wherever they are made, torchvision's own arithmetic."""

import hashlib

import numpy as np
import pytest
import torch
from conftest import make_image
from torchvision.transforms import v2

from pipeline.backbones.augment import Augment, View
from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import UsageError
from pipeline.loading.loader import Loader
from pipeline.sources.source import ArrayPayload

PLAIN = Preprocess(36, 32, "bilinear", (0.5,) * 3, (0.5,) * 3)
ALL = "crop:0.5-1,hflip:0.5,vflip:0.25,rotate:15,colour:0.4,grey:0.2"


def seen(steps: str, number: int = 1, **changes) -> Preprocess:
    view = View(Augment.parse(steps), number)
    return Preprocess(**{**vars(PLAIN), **changes, "view": view})


def digest_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@pytest.mark.parametrize(
    ("said", "spelled"),
    [
        ("hflip", "hflip:0.5"),
        ("colour:0.20, hflip, crop:0.70-1.0", "crop:0.7-1,hflip:0.5,colour:0.2"),
        ("rotate:15,vflip:1", "vflip:1,rotate:15"),
        (ALL, ALL),
    ],
)
def test_an_augmentation_has_one_spelling(said, spelled):
    assert str(Augment.parse(said)) == spelled
    assert Augment.parse(spelled) == Augment.parse(said)
    view = View(Augment.parse(said), 3)
    assert View.from_json(view.to_json()) == view


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("hfilp", "unknown step 'hfilp'. Did you mean 'hflip' or 'vflip'?"),
        ("", "unknown step ''."),
        ("hflip,hflip", "hflip is there twice"),
        ("crop", "crop with ''"),
        ("crop:0.7", "crop with '0.7'"),
        ("crop:1-0.5", "crop is from-to"),
        ("crop:0-1", "crop is from-to"),
        ("crop:0.5-1.5", "crop is from-to"),
        ("hflip:2", "are probabilities"),
        ("colour:-1", "colour with '-1'"),
        ("colour:nan", "colour with 'nan'"),
        ("colour:3", "colour is at most 1"),
        ("rotate:200", "rotate is at most 180"),
        ("hflip:0", "it needs a step"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_known(said, message):
    with pytest.raises(UsageError, match="augment: ") as refused:
        Augment.parse(said)
    assert message in refused.value.message


def test_a_view_is_part_of_the_preprocess_and_plain_ones_are_what_they_were():
    one = seen("hflip")
    assert one.to_json() == {**PLAIN.to_json(), "augment": {"steps": "hflip:0.5", "view": 1}}
    assert Preprocess.from_json(one.to_json()) == one
    assert set(PLAIN.to_json()) == {"resize", "crop", "interpolation", "mean", "std", "colour", "decoder"}
    for wrong in ({"steps": "hflip", "view": 1}, {"steps": "hflip:0.5", "view": 0}, {"steps": 3, "view": 1}, {}):
        with pytest.raises(ValueError, match="view 0|augment"):
            Preprocess.from_json({**PLAIN.to_json(), "augment": wrong})
    assert PLAIN.may_wait(100, 80, 512)
    assert not one.may_wait(100, 80, 512)


def test_a_view_depends_on_digest_number_and_steps_alone():
    image, preprocess = make_image(0, (60, 44)), seen(ALL)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = preprocess.pixels(image, digest_of(1))
    assert torch.equal(torch.random.get_rng_state(), before)
    for number in (5, 2, 3):  # in between
        preprocess.pixels(image, digest_of(number))
    torch.manual_seed(8)
    assert np.array_equal(preprocess.pixels(image, digest_of(1)), first)
    assert first.shape == (32, 32, 3)
    others = [(preprocess, 2), (seen(ALL, 2), 1), (seen("crop:0.5-1"), 1), (PLAIN, 1)]
    assert all(not np.array_equal(first, other.pixels(image, digest_of(digest))) for other, digest in others)


def test_the_arithmetic_is_torchvisions():
    image, preprocess = make_image(3, (60, 44)), seen("crop:0.5-1,hflip,colour:0.4")
    recipe = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=(0.5, 1.0), interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
        ]
    )
    for number in range(4):
        torch.manual_seed(preprocess.view.seed(digest_of(number)))
        assert np.array_equal(preprocess.pixels(image, digest_of(number)), np.asarray(recipe(image)))


@pytest.mark.parametrize("changes", [{}, {"mode": "squash"}, {"mode": "border"}, {"crop": 40}], ids=str)
def test_without_a_crop_a_view_is_the_plain_image_changed(changes):
    image, preprocess = make_image(1, (60, 44)), seen("hflip:1", **changes)
    plain = Preprocess(**{**vars(PLAIN), **changes})
    assert np.array_equal(preprocess.pixels(image, digest_of(0)), plain.pixels(image)[:, ::-1])


def test_an_image_that_cannot_be_used_can_be_in_no_view():
    thin = make_image(0, (3, 1)).resize((40_000, 1))
    for preprocess in (seen("crop:0.5-1", resize=64, crop=64), Preprocess(64, 64, "bilinear", (0.5,) * 3, (0.5,) * 3)):
        with pytest.raises(ValueError, match="too long and thin"):
            preprocess.pixels(thin, digest_of(0))


def test_loading_processes_make_the_very_same_views():
    arrays = [np.asarray(make_image(seed)) for seed in range(7)]
    preprocess = seen(ALL)
    with Loader(preprocess, batch_size=4, workers=1) as loader:
        for order in ([0, 1, 2, 3, 4, 5, 6], [6, 2, 0]):
            loader.request(order, lambda row: ArrayPayload(arrays[row]))
            for _ in range(-(-len(order) // 4)):
                batch = loader.next_batch()
                for place, row in enumerate(batch.rows):
                    wanted = preprocess.pixels(make_image(row), batch.loaded[place].digest)
                    assert np.array_equal(batch.pixels[place], wanted)
                loader.release(batch)
