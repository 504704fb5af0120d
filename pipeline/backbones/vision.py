"""torchvision's classification models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones.cut import input_width
from pipeline.backbones.family import BackboneInfo, Built
from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.weights import DEFAULT, RANDOM, fill, read_asked
from pipeline.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from torch import nn

TRANSFORM_INPUT = "+transform_input"
"""The one option of a network that weights of equal tensors can come with or without."""


class TorchvisionFamily:
    """`torchvision/<model>`, the prefix being optional."""

    prefix = "torchvision/"

    def names(self) -> list[str]:
        """Return the names of all classification models, sorted."""
        from torchvision import models

        return sorted(models.list_models(module=models))

    def checked(self, name: str) -> str:
        """Return a model's name.

        Raises:
            UsageError: if there is none of that name, with the nearest.
        """
        plain = name.removesuffix(TRANSFORM_INPUT)
        names = self.names()
        if plain not in names:
            raise UsageError(
                f"unknown backbone {self.prefix + name!r}.{nearest(plain, names)}",
                f"`pipeline backbones` lists all {len(names)}.",
            )
        return plain

    def describe(self, plain: str, *, build: bool) -> BackboneInfo:
        """Return what is known of a model; only its features need building."""
        from torch.hub import get_dir

        members = weight_names(plain)
        folder = Path(get_dir()) / "checkpoints"
        on_disk = tuple(member.name for member in members if (folder / member.url.rsplit("/", 1)[-1]).is_file())
        return BackboneInfo(
            plain,
            preprocess_of(members[0]).crop,
            _features(plain) if build else 0,
            int(members[0].meta["num_params"]),
            tuple(member.name for member in members),
            on_disk,
        )

    def preprocess(self, plain: str, weights: str) -> tuple[Preprocess, str]:
        """Return the transform that weights were evaluated with; the default weights' for a file or none."""
        own = named_weights(plain, weights) or weight_names(plain)[0]
        return preprocess_of(own), f"{plain} {own.name}"

    def build(self, plain: str, weights: str, image_size: int | None) -> Built:
        """Return the whole network with its weights; a vision transformer without torchvision's own for `image_size`.

        Torchvision's own builder loads its own weights: it knows their old keys and the options that go with them.
        """
        member = named_weights(plain, weights)
        try:
            network = build(plain, member, image_size)
        except (OSError, RuntimeError) as error:
            if member is None:
                raise
            raise DataError(
                f"the weights {member.name} of {plain} are not on this disk and could not be downloaded: {error}",
                "Connect once, or pass --weights FILE (a .safetensors or .pth state dict), or --weights none.",
            ) from error
        last = last_layer(network)
        if member is None and weights != RANDOM:
            known = [RANDOM, DEFAULT, *(other.name for other in weight_names(plain))]
            fill(network, read_asked(weights, plain, known), weights, (last,))
        return Built(
            self.prefix + plain + (TRANSFORM_INPUT if getattr(network, "transform_input", False) else ""),
            network,
            (last,),
            # Its classifier is convolution, ReLU, average pooling: what the convolution sees is a map.
            pool="avg" if plain.startswith("squeezenet") else "none",
            prefix_tokens=1 if hasattr(network, "class_token") else 0,
        )


def weight_names(plain: str) -> list[Any]:
    """Return the members of torchvision's weights enumeration of a model, the default first."""
    from torchvision import models

    enumeration = models.get_model_weights(plain)
    default = enumeration.DEFAULT
    return [default, *(member for member in enumeration if member is not default)]


def named_weights(plain: str, asked: str) -> Any:  # noqa: ANN401 - a torchvision WeightsEnum member
    """Return the member of torchvision's weights called `asked` (`DEFAULT` or its own name), or None."""
    members = weight_names(plain)
    if asked.upper() == DEFAULT:
        return members[0]
    return next((member for member in members if member.name == asked.upper()), None)


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


def build(plain: str, weights: Any = None, image_size: int | None = None) -> "nn.Module":  # noqa: ANN401 - as above
    """Return the original, whole network with torchvision's `weights`, or random ones drawn from the current seed.

    `image_size` is for vision transformers, which are built for one; weights of torchvision's bring theirs.
    """
    from torchvision import models

    more: dict[str, Any] = {}
    if weights is None and plain in ("googlenet", "inception_v3"):
        more["init_weights"] = True  # unless told, they warn that their initialisation will change
    if weights is None and plain.startswith("vit_") and image_size is not None:
        more["image_size"] = image_size
    network: nn.Module = models.get_model(plain, weights=weights, **more)
    return network


def last_layer(network: "nn.Module") -> str:
    """Return the name of the original classifier: the last registered Linear, or convolution for SqueezeNet.

    All torchvision classification models register it last; auxiliary classifiers come before.
    """
    from torch import nn

    found: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not found:
        raise ValueError(f"{type(network).__name__} has neither a Linear nor a convolution to cut at")
    return found[-1]


def _features(plain: str) -> int:
    import torch

    # Without memory where that goes; regnet computes its widths with tensors.
    with torch.device("cpu" if plain.startswith("regnet") else "meta"):
        network = build(plain)
    return input_width(network.get_submodule(last_layer(network)))
