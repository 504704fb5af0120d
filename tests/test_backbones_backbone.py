"""A backbone as a whole: frozen, provably, and described."""

import numpy as np
import pytest
import torch

from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.reference import ReferenceEngine
from pipeline.errors import DataError, UsageError
from pipeline.threads import cpu_threads

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower with two threads, much slower on a busy machine."""
    with cpu_threads(1):
        yield


@pytest.fixture
def backbone():
    return load_backbone(NAME, weights="none", image_size=32)


def test_it_is_frozen_and_says_what_it_is(backbone):
    assert not any(module.training for module in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    assert backbone.name == "torchvision/shufflenet_v2_x0_5"
    assert backbone.layer == "input:fc"
    assert backbone.row_shape == (1024,)
    assert backbone.weights == "none"
    assert len(backbone.weights_digest) == 64


def test_running_it_moves_nothing(backbone):
    engine = ReferenceEngine(backbone.network, backbone.preprocess, torch.device("cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    first = engine.features(pixels)
    assert np.array_equal(engine.features(pixels), first)
    backbone.check_frozen()


def test_a_moved_statistic_is_noticed(backbone):
    backbone.check_frozen()
    backbone.network.train()
    with torch.no_grad():
        backbone.network(torch.rand(4, 3, 32, 32))
    with pytest.raises(DataError, match="the weights of torchvision/shufflenet_v2_x0_5 changed"):
        backbone.check_frozen()


@pytest.mark.parametrize("tensor", ["conv1.1.running_mean", "conv1.1.running_var", "conv5.0.weight", "conv5.1.bias"])
def test_one_bit_of_any_tensor_is_noticed(backbone, tensor):
    values = backbone.network.state_dict()[tensor].view(-1)
    with torch.no_grad():
        values[-1] = torch.nextafter(values[-1], torch.tensor(9.0))
    with pytest.raises(DataError, match="changed"):
        backbone.check_frozen()


def test_preprocess_is_the_weights_own_unless_asked_otherwise():
    own = load_backbone(NAME, weights="none")
    assert (own.preprocess.resize, own.preprocess.crop, own.preprocess.interpolation) == (256, 224, "bilinear")
    assert own.preprocess_from == "shufflenet_v2_x0_5 IMAGENET1K_V1"
    changed = load_backbone(NAME, weights="none", image_size=48, std=(0.5,))
    assert (changed.preprocess.resize, changed.preprocess.crop) == (48, 48)
    assert changed.preprocess.mean == own.preprocess.mean
    assert changed.preprocess.std == (0.5, 0.5, 0.5)
    assert changed.preprocess_from.endswith("your image size, std")
    given = Preprocess(40, 33, "nearest", (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    taken = load_backbone(NAME, weights="none", preprocess=given)
    assert taken.preprocess == given
    assert taken.weights_digest == own.weights_digest == changed.weights_digest


def test_values_out_of_range_are_usage_errors():
    with pytest.raises(UsageError, match=r"preprocess: .*std above 0"):
        load_backbone(NAME, weights="none", std=(0.0,))
    with pytest.raises(UsageError, match=r"preprocess: .*at least 1"):
        load_backbone(NAME, weights="none", image_size=0)
    with pytest.raises(UsageError, match=r"preprocess: .*3 values"):
        load_backbone(NAME, weights="none", mean=(0.5, 0.5))


def test_images_that_are_too_small_are_a_usage_error():
    backbone = load_backbone("squeezenet1_1", weights="none", image_size=8)
    with pytest.raises(UsageError, match="squeezenet1_1 cannot take images of 8 px") as caught:
        backbone.check_image_size()
    assert "--image-size" in caught.value.hint


def test_row_shape_is_that_of_the_features():
    backbone = load_backbone("squeezenet1_1", weights="none", image_size=40)
    backbone.check_image_size()
    engine = ReferenceEngine(backbone.network, backbone.preprocess, torch.device("cpu"))
    features = engine.features(np.zeros((3, 40, 40, 3), np.uint8))
    assert features.shape == (3, *backbone.row_shape) == (3, 512)


def test_unknown_names_are_refused_before_anything_is_built():
    with pytest.raises(UsageError, match="unknown backbone"):
        load_backbone("resnet17x", weights="none")
    with pytest.raises(UsageError, match="unknown weights"):
        load_backbone(NAME, weights="NONSENSE")
