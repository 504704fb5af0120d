"""The backbones by name and what is known about them without building them."""

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import UsageError, nearest

if TYPE_CHECKING:
    from torch import nn

PREFIX = "torchvision/"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneInfo:
    """What can be said of a backbone without building it."""

    name: str
    image_size: int
    """Pixels of a side of what the network sees with its default weights."""
    parameters: int
    """Of the whole original network, last layer included."""
    weights: tuple[str, ...]
    """Names of the weights torchvision can download, the default first."""
    downloaded: tuple[str, ...]
    """Those of them that are on this disk."""


def backbone_names() -> list[str]:
    """Return the names of all torchvision classification models, sorted."""
    from torchvision import models

    return sorted(models.list_models(module=models))


def checked_name(name: str) -> str:
    """Return the plain torchvision name of a backbone.

    Raises:
        UsageError: if there is none of that name, with the nearest.
    """
    plain = name.removeprefix(PREFIX).removesuffix("+transform_input")
    names = backbone_names()
    if plain not in names:
        raise UsageError(
            f"unknown backbone {name!r}.{nearest(plain, names)}", f"`pipeline backbones` lists all {len(names)}."
        )
    return plain


def find_backbones(pattern: str) -> list[BackboneInfo]:
    """Return what is known of the backbones whose name matches a shell pattern or holds it as a part.

    Raises:
        UsageError: if none does.
    """
    names = backbone_names()
    found = [name for name in names if fnmatch.fnmatch(name, pattern) or pattern in name]
    if not found:
        raise UsageError(
            f"no backbone matches {pattern!r}.{nearest(pattern, names)}", "`pipeline backbones` lists all."
        )
    return [describe_backbone(name) for name in found]


def describe_backbone(name: str) -> BackboneInfo:
    """Return what is known of one backbone."""
    from torch.hub import get_dir

    members = weight_names(name)
    default = members[0]
    folder = Path(get_dir()) / "checkpoints"
    on_disk = tuple(member.name for member in members if (folder / member.url.rsplit("/", 1)[-1]).is_file())
    return BackboneInfo(
        name,
        preprocess_of(default).crop,
        int(default.meta["num_params"]),
        tuple(member.name for member in members),
        on_disk,
    )


def weight_names(name: str) -> list[Any]:
    """Return the members of torchvision's weights enumeration of a model, the default first."""
    from torchvision import models

    enumeration = models.get_model_weights(name)
    default = enumeration.DEFAULT
    return [default, *(member for member in enumeration if member is not default)]


def preprocess_of(weights: Any) -> Preprocess:  # noqa: ANN401 - a torchvision WeightsEnum member
    """Return the transform that a member of torchvision's weights was evaluated with."""
    transform = weights.transforms()
    return Preprocess(
        resize=int(transform.resize_size[0]),
        crop=int(transform.crop_size[0]),
        interpolation=str(transform.interpolation.value),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


def build(name: str, weights: Any = None) -> "nn.Module":  # noqa: ANN401 - a torchvision WeightsEnum member
    """Return the original, whole network with torchvision's `weights`, or random ones drawn from the current seed."""
    from torchvision import models

    more: dict[str, Any] = {}
    if weights is None and name in ("googlenet", "inception_v3"):
        more["init_weights"] = True  # unless told, they warn that their initialisation will change
    network: nn.Module = models.get_model(name, weights=weights, **more)
    return network
