"""Names of backbones and what is known about them without building them."""

import numpy as np
import pytest
import torch
from conftest import make_image
from torchvision import models

from pipeline.backbones.registry import TORCHVISION, find_backbones, find_family
from pipeline.backbones.vision import build, preprocess_of, weight_names
from pipeline.engines.reference import ReferenceEngine
from pipeline.errors import UsageError


def test_names_are_torchvisions_classification_models():
    names = TORCHVISION.names()
    assert names == sorted(names)
    assert len(names) >= 80
    assert {"resnet18", "mobilenet_v2", "vit_b_16", "squeezenet1_1", "maxvit_t"} <= set(names)
    assert not any("segmentation" in name or "rcnn" in name or "deeplab" in name for name in names)


def test_transform_of_every_weight_can_be_read():
    for name in TORCHVISION.names():
        for member in weight_names(name):
            preprocess, transform = preprocess_of(member), member.transforms()
            assert [preprocess.crop] == transform.crop_size, (name, member)
            assert [preprocess.resize] == transform.resize_size, (name, member)
            assert preprocess.interpolation == transform.interpolation.value
            assert list(preprocess.mean + preprocess.std) == transform.mean + transform.std


def test_every_distinct_transform_gives_what_the_weights_own_one_gives():
    image = make_image(0, (61, 47))
    distinct = {preprocess_of(member): member for name in TORCHVISION.names() for member in weight_names(name)}
    assert len(distinct) > 10
    for preprocess, member in distinct.items():
        engine = ReferenceEngine(torch.nn.Identity(), preprocess, torch.device("cpu"))
        seen = engine.scaled(np.stack([preprocess.pixels(image)]))[0]
        assert torch.equal(seen, member.transforms()(image)), member


def test_default_weights_come_first_and_each_once():
    for name in ("resnet50", "vit_b_16", "googlenet"):
        members = weight_names(name)
        enumeration = models.get_model_weights(name)
        assert members[0] is enumeration.DEFAULT
        assert set(members) == set(enumeration)
        assert len(members) == len(set(members))


def test_prefix_is_optional():
    assert find_family("torchvision/resnet18") == find_family("resnet18") == (TORCHVISION, "resnet18")


@pytest.mark.parametrize(("asked", "near"), [("resnet8", "resnet18"), ("torchvision/mobilenetv2", "mobilenet_v2")])
def test_an_unknown_name_is_met_with_the_nearest(asked, near):
    with pytest.raises(UsageError, match=f"unknown backbone '{asked}'.*{near}"):
        find_family(asked)


def test_patterns_find_by_shape_or_by_part():
    assert next(info.name for info in find_backbones("resnet1?")) == "resnet18"
    assert {info.name for info in find_backbones("squeezenet")} == {"squeezenet1_0", "squeezenet1_1"}
    with pytest.raises(UsageError, match=r"no backbone matches 'efficientnets'.*Did you mean"):
        find_backbones("efficientnets")


def test_description_says_size_parameters_weights_and_what_is_on_this_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    info = TORCHVISION.describe("shufflenet_v2_x0_5", build=True)
    assert info.features == 1024
    assert info.image_size == 224
    assert info.parameters == sum(p.numel() for p in build("shufflenet_v2_x0_5").parameters())
    assert info.weights == ("IMAGENET1K_V1",)
    assert info.downloaded == ()
    url = weight_names("shufflenet_v2_x0_5")[0].url
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / url.rsplit("/", 1)[-1]).write_bytes(b"")
    assert TORCHVISION.describe("shufflenet_v2_x0_5", build=False).downloaded == ("IMAGENET1K_V1",)
