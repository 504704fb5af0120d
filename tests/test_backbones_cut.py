"""The cut: the original last layer, applied to the features, gives the logits of a separately built original."""

import pytest
import torch
from torch import nn
from torchvision import models

from pipeline.backbones.cut import cut, input_width
from pipeline.backbones.vision import TorchvisionFamily, build, last_layer
from pipeline.threads import cpu_threads


def seeded(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(name).eval()


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower with two threads, much slower on a busy machine."""
    with cpu_threads(1):
        yield


def some_images(size: int) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        ("resnet18", 32, 512),
        ("mobilenet_v2", 32, 1280),
        ("mobilenet_v3_small", 32, 1024),
        ("shufflenet_v2_x0_5", 32, 1024),
        ("vgg11", 32, 4096),
        ("alexnet", 64, 4096),
        ("densenet121", 32, 1024),
        ("efficientnet_b0", 32, 1280),
        ("googlenet", 64, 1024),
        ("regnet_y_400mf", 32, 440),
        ("mnasnet0_5", 32, 1280),
        ("vit_b_32", 224, 768),
        ("swin_t", 64, 768),
        ("convnext_tiny", 32, 768),
    ],
)
def test_last_layer_on_the_features_gives_the_original_logits(name, size, dim):
    images = some_images(size)
    network = seeded(name)
    layer = last_layer(network)
    cut(network, [layer])
    with torch.inference_mode():
        features = network.eval()(images)
        del network
        original = seeded(name)
        last = original.get_submodule(layer)
        # Random networks give features of 1e-13, which the bias would hide, and ViT's last layer starts with zeros.
        last.bias.zero_()
        last.weight.normal_(generator=torch.Generator().manual_seed(1))
        logits = original(images)
        again = last(features)
    assert features.shape == (2, dim)
    assert input_width(last) == dim
    assert logits.shape == (2, 1000)
    assert float((features[0] - features[1]).abs().max() / features.abs().max()) > 1e-3
    assert float((again - logits).abs().max() / logits.abs().max()) <= 1e-5


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_squeezenets_features_are_the_pooled_map_that_its_convolution_sees(name):
    images = some_images(40)
    original = seeded(name)
    network = seeded(name)
    layer = last_layer(network)
    cut(network, [layer])
    with torch.inference_mode():
        unpooled = original.features(images)
        features = network.eval()(images)
        logits = original.get_submodule(layer)(unpooled).relu().mean((2, 3))
        whole = original(images)
    assert unpooled.shape[2] > 1
    assert features.shape == (2, 512)
    assert float((features - unpooled.mean((2, 3))).abs().max() / features.abs().max()) <= 1e-5
    assert float((logits - whole).abs().max() / whole.abs().max()) <= 1e-5


ONE_OF_EACH = [
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "resnext50_32x4d"),
    *("shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_16"),
    *("wide_resnet50_2", "regnet_y_400mf"),
]


def test_one_of_each_family_is_tried():
    families = {name.split("_")[0].rstrip("0123456789") for name in ONE_OF_EACH}
    assert {name.split("_")[0].rstrip("0123456789") for name in TorchvisionFamily().names()} <= families


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_last_layer_is_the_one_with_a_logit_for_each_class(name):
    # Without memory where that goes; regnet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = build(name)
    layer = network.get_submodule(last_layer(network))
    assert (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) == 1000
    assert "aux" not in last_layer(network).lower()


def test_dropout_in_front_of_the_classifier_does_nothing_in_eval_mode():
    network = models.alexnet(num_classes=3)
    layer = last_layer(network)
    cut(network, [layer])
    assert layer == "classifier.6"
    assert isinstance(network.classifier[6], nn.Identity)
    with torch.inference_mode():
        images = some_images(64)
        assert torch.equal(network.eval()(images), network(images))


def test_a_network_without_a_layer_to_cut_at_is_refused():
    with pytest.raises(ValueError, match="neither a Linear nor a convolution"):
        last_layer(nn.Sequential(nn.ReLU()))


def test_what_is_no_last_layer_is_refused():
    with pytest.raises(ValueError, match="ReLU is no last layer"):
        input_width(nn.ReLU())
