"""Where networks can be cut for fine-tuning, and the layers behind a cut."""

import os

import pytest
import torch
from torch import nn
from torchvision import models

from pipeline.backbones.backbone import Backbone, load_backbone
from pipeline.backbones.boundaries import trace
from pipeline.backbones.cutpoints import advise, list_cuts
from pipeline.backbones.tail import make_tail
from pipeline.backbones.vision import TorchvisionFamily, build, last_layer
from pipeline.errors import UsageError

FAMILIES = {
    "alexnet": "features.12",
    "convnext_tiny": "features.6",
    "densenet121": "features.denseblock3",
    "efficientnet_b0": "features.7",
    "googlenet": "inception5a",
    "inception_v3": "Mixed_7b",
    "mnasnet0_5": "layers.12",
    "mobilenet_v2": "features.15",
    "mobilenet_v3_small": "features.11",
    "regnet_x_400mf": "trunk_output.block3",
    "resnet18": "layer3",
    "shufflenet_v2_x0_5": "stage4",
    "squeezenet1_1": "features.10",
    "swin_t": "features.5",
    "swin_v2_t": "features.5",
    "vgg11": "features.15",
    "vit_b_16": "encoder.layers.encoder_layer_10",
}
"""One network of each of torchvision's families but the slowest to trace, and a cut that it must have."""
NAMES = TorchvisionFamily().names() if os.environ.get("PIPELINE_ALL_CUTS") else [*FAMILIES]
"""With the variable set all networks (two minutes): each must have a cut somewhere."""


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_each_family_has_its_cuts(name):
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = build(name)
    traced = trace(network, (last_layer(network),))
    assert name not in FAMILIES or traced.boundary(f"output:{FAMILIES[name]}").parameters
    counts = [one.parameters for one in traced.boundaries]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0
    assert network.get_submodule(last_layer(network)).weight.ndim in (2, 4)  # the classifier is back


def backbone(name: str, layer: str, size: int = 64, pool: str | None = "none") -> Backbone:
    return load_backbone(name, weights="none", layer=layer, pool=pool, image_size=size)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer3"),
        ("squeezenet1_1", "features.10"),
        ("shufflenet_v2_x0_5", "stage3"),
    ],
)
def test_front_and_tail_are_the_network(name, layer):
    cut = backbone(name, layer)
    tail = make_tail(cut)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        rows = cut.network(images)
        kept = rows.clone()
        features = tail.module(rows.clone())
        whole = load_backbone(name, weights="none", image_size=64).network(images)
    assert torch.equal(features, whole)
    assert torch.equal(rows, kept)
    assert features.shape == (2, tail.dim)
    state = cut.network.network.state_dict()
    assert all(torch.equal(one, state[key]) for key, one in tail.module.state_dict().items())
    assert sum(one.numel() for one in tail.module.parameters()) == tail.boundary.parameters


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("layer3.0.bn2", "needs other tensors too. It can at layer2 before it and at layer3.0 behind it."),
        ("layer4", "nothing that can be trained lies behind it. It can at layer4.0 before it."),
        ("layer4.0.bn2", "needs other tensors too. It can at layer3 before it and at layer4.0 behind it."),
    ],
)
def test_an_illegal_cut_names_the_nearest_legal_ones(layer, said):
    with pytest.raises(UsageError, match="fine-tuning cannot start at " + layer) as error:
        make_tail(backbone("resnet18", layer))
    assert said in error.value.message
    assert "\n" not in error.value.message


def test_a_layer_that_is_passed_twice_is_told_by_its_neighbours():
    network = models.resnet18()
    traced = trace(network, ("fc",))
    with pytest.raises(UsageError, match=r"passed several times. It can at layer3.0 before it and at layer3 behind it"):
        traced.boundary("output:layer3.1.relu")
    with pytest.raises(UsageError, match="not on the way from the image to the classifier"):
        trace(build("googlenet"), ("fc",)).boundary("output:aux1.conv")


def test_inputs_and_inner_modules_are_names_of_the_same_cut():
    traced = trace(models.resnet18(), ("fc",))
    names = ("output:layer3", "output:layer3.1", "input:layer4")
    assert len({traced.boundary(name).place for name in names}) == 1


def test_pooled_rows_and_vectors_have_no_tail():
    with pytest.raises(UsageError, match="were pooled"):
        make_tail(backbone("resnet18", "layer3", pool="avg"))
    with pytest.raises(UsageError, match="nothing lies behind them"):
        make_tail(load_backbone("resnet18", weights="none", image_size=64))


class Branching(nn.Module):
    """Code that depends on values: torch.fx cannot trace it."""

    def forward(self, images):
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


def test_code_that_cannot_be_traced_is_one_line():
    with pytest.raises(UsageError, match="Branching cannot be cut for fine-tuning"):
        trace(Branching(), ())
    with pytest.raises(UsageError, match="has 2 classifiers"):
        trace(models.resnet18(), ("fc", "layer4"))


def test_costs_are_those_of_arithmetic():
    cuts = {cut.layer: cut for cut in list_cuts("resnet18")}
    layer3 = cuts["layer3"]
    assert (layer3.row_shape, layer3.bytes(1000)) == ((256, 14, 14), 1000 * 256 * 14 * 14 * 2)
    assert layer3.parameters == sum(one.numel() for one in models.resnet18().layer4.parameters())
    assert 2 < layer3.speedup < 2.2  # about 1.4 of 1.8 G multiply-adds lie before it, three times 0.4 G behind
    assert cuts["layer4.0"].speedup > layer3.speedup


def test_a_large_entry_is_advised_a_later_cut():
    cut = backbone("resnet18", "layer2")
    said = "can start here: 10.49 M parameters behind it, an epoch with 1.4 times less arithmetic than from images"
    assert advise(cut, 1000, 2).text == said
    large = advise(cut, 1_000_000, 2)
    assert large.possible
    assert large.text.endswith("; --layer layer3.0 would take 8.19 GB")
    assert not advise(backbone("resnet18", "layer3.0.bn2"), 1000, 2).possible
    assert advise(backbone("resnet18", "layer3", pool="avg"), 1000, 2) is None
