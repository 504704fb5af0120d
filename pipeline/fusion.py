"""Backbone and head as one ordinary torch module."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.heads.head import Head
from pipeline.heads.reading import read_head
from pipeline.heads.tuned import TunedHead
from pipeline.origin import rebuild_backbone
from pipeline.runs import Run, check_run, find_run

if TYPE_CHECKING:
    from torch import nn

CONVOLUTIONAL_CLASSIFIER = "torchvision/squeezenet"
"""Networks whose last layer is a convolution over the map that the default cut pools."""


@dataclass(frozen=True)
class Trained:
    """A run, its head, and the backbone its features came from."""

    run: Run
    head: Head
    backbone: Backbone


def open_trained(run: str | Path, runs_dir: Path) -> Trained:
    """Open a run by a unique prefix of its id, its path, or `latest`, and build its backbone again.

    Raises:
        DataError: if there is no such run, or the weights of its backbone are gone or have changed.
    """
    found = find_run(runs_dir, str(run))
    check_run(found)
    head = read_head(found.path)
    return Trained(found, head, rebuild_backbone(head.space, found.body["backbone"]["weights"]))


def fuse(run: str | Path = "latest", *, runs_dir: str | Path = "runs") -> "nn.Module":
    """Return the original network with its classifier replaced by the head of a run.

    An ordinary `nn.Module` in eval mode on the CPU, with the head where the original classifier was (`.fc`,
    `.classifier[-1]`, …): its state dict loads into the library's own model of so many classes. So does that of a
    fine-tuned run, whose trained layers are in their places. Where a head was trained on another layer (`--layer`),
    or there were no or several classifiers, an `nn.Sequential` of `backbone` and `head`. It takes what the original
    takes: float32 images (b, 3, h, w), resized and normalised as `Preprocess` says, and gives logits (b, c). All
    parameters can be trained further.

    Args:
        run: a unique prefix of its id, its path, or `latest`.
        runs_dir: where runs are kept.

    Raises:
        UsageError: if the head is of a kind that has no module.
        DataError: if there is no such run, or the weights of its backbone are gone or have changed.
    """
    trained = open_trained(run, Path(runs_dir))
    return fused_network(trained.backbone, trained.head).requires_grad_(True)


def fused_network(backbone: Backbone, head: Head) -> "nn.Module":
    """Return the backbone's network, changed in place, with the head where its classifier was cut off."""
    from torch import nn

    from pipeline.backbones.taps import Tapped

    if isinstance(head, TunedHead):
        return _fused_tuned(backbone, head)
    network, module = backbone.network, head.module()
    if not isinstance(network, Tapped):
        _put(network, backbone.layer.partition(":")[2], module, backbone.name)
        return network.eval()
    whole = network.network
    if len(backbone.apart) == 1 and all(point.pool == "none" for point in network.points):
        [name] = backbone.apart
        there = whole.get_submodule(name)
        stand_in = _convolution(module) if isinstance(there, nn.Conv2d) else module
        if stand_in is not None:
            whole.set_submodule(name, stand_in)
            return whole.eval()
    return nn.Sequential(OrderedDict(backbone=network, head=module)).eval()


def _fused_tuned(backbone: Backbone, head: TunedHead) -> "nn.Module":
    """Return the whole network with the trained layers in their places, and the head in that of the classifier."""
    from torch import nn

    from pipeline.backbones.taps import Tapped

    network, module = backbone.network, head.linear.module()
    assert isinstance(network, Tapped)
    whole = network.network
    if not backbone.classifiers:
        return nn.Sequential(OrderedDict(backbone=network, tail=head.tail, head=module)).eval()
    whole.load_state_dict(head.tail.state_dict(), strict=False)
    (name,) = backbone.classifiers
    there = whole.get_submodule(name)
    _put(whole, name, _convolution(module) or module if isinstance(there, nn.Conv2d) else module, backbone.name)
    return whole.eval()


def _put(network: "nn.Module", name: str, module: "nn.Module", architecture: str) -> None:
    """Put a head where torchvision's classifier was."""
    from torch import nn

    if architecture.startswith(CONVOLUTIONAL_CLASSIFIER):
        # Its own classifier pools behind a convolution and a ReLU, which would clip logits: pool first.
        network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), module)
    else:
        network.set_submodule(name, module)


def _convolution(module: "nn.Module") -> "nn.Conv2d | None":
    """Return a linear head as a convolution of one pixel, None for other heads."""
    from torch import nn

    if not isinstance(module, nn.Linear):
        return None
    layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, module.in_features, module.out_features, 1)
    layer.load_state_dict({"weight": module.weight.detach()[:, :, None, None], "bias": module.bias.detach()})
    return layer


def image_model(network: "nn.Module", preprocess: Preprocess, description: dict[str, Any] | None = None) -> "nn.Module":
    """Return what is exported: normalisation, a fused network and softmax in one module in eval mode.

    It maps `images`, float32 (b, 3, h, w) RGB in [0, 1], resized and cropped to `preprocess.crop` pixels, to
    `logits` (b, c) and `probabilities` (b, c).
    """
    import torch
    from torch import Tensor, nn

    class ImageModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.description = description
            self.mean = nn.Buffer(torch.tensor(preprocess.mean).view(1, 3, 1, 1))
            self.std = nn.Buffer(torch.tensor(preprocess.std).view(1, 3, 1, 1))

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits: Tensor = self.network((images - self.mean) / self.std)
            return logits, logits.softmax(dim=1)

    return ImageModel().eval().requires_grad_(False)
