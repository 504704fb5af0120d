"""A frozen backbone: network, weights, cut and preprocess together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.backbones.cut import cut, feature_width
from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.registry import PREFIX, checked_name, preprocess_of, weight_names
from pipeline.backbones.weights import SEED, load_network, named_weights, state_digest
from pipeline.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Backbone:
    """A network in eval mode, without gradients, cut at the input of its last layer; float32 on the CPU."""

    name: str
    """`torchvision/<model>`, with `+transform_input` for GoogLeNet and Inception with torchvision's weights."""
    weights: str
    """What was asked for: `DEFAULT`, `none`, a name or a file."""
    weights_digest: str
    layer: str
    """`input:<module>`."""
    preprocess: Preprocess
    preprocess_from: str
    """Where the preprocess comes from, for people."""
    row_shape: tuple[int, ...]
    network: "nn.Module"

    def check_image_size(self) -> None:
        """Try one image.

        Raises:
            UsageError: if the network cannot take images of the preprocess's size.
        """
        import torch

        size = self.preprocess.crop
        try:
            with torch.inference_mode():
                found = tuple(self.network(torch.zeros(1, 3, size, size)).shape[1:])
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise UsageError(
                f"{self.name} cannot take images of {size} px: {str(error).splitlines()[0]}",
                "`pipeline backbones` shows the size each was made for: pass --image-size.",
            ) from error
        assert found == self.row_shape, f"cut at {self.layer}: rows {found}, expected {self.row_shape}"

    def check_frozen(self) -> None:
        """Prove that no weight or statistic moved since loading.

        Raises:
            DataError: if one did: rows computed meanwhile cannot be trusted.
        """
        if state_digest(self.network) != self.weights_digest:
            raise DataError(
                f"the weights of {self.name} changed while features were computed",
                "Hardware fault, or code that trains the network it was given. Delete the entry and try again.",
            )


def load_backbone(
    name: str,
    *,
    weights: str = "DEFAULT",
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    preprocess: Preprocess | None = None,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: a torchvision classification model, with or without `torchvision/`.
        weights: `DEFAULT`, another of torchvision's names, `none` (random, always from seed 0), or a file.
        image_size: pixels; the shorter side is resized to it and the centre cut out. Default: the weights' own.
        mean: one value or three, for pixels in [0, 1]. Default: the weights' own.
        std: as `mean`.
        preprocess: all of it at once, instead of the three above.

    Raises:
        UsageError: if a name is unknown or a value is out of range.
        DataError: if weights cannot be had or do not fit.
    """
    import torch

    plain = checked_name(name)
    member = named_weights(plain, weights)
    if preprocess is None:
        own = member or weight_names(plain)[0]
        try:
            preprocess = preprocess_of(own).override(image_size=image_size, mean=mean, std=std)
        except ValueError as error:
            raise UsageError(f"preprocess: {error}") from error
        said = [flag for flag, value in (("image size", image_size), ("mean", mean), ("std", std)) if value is not None]
        origin = f"{plain} {own.name}" + (f", your {', '.join(said)}" if said else "")
    else:
        origin = "the cache entry"

    # manual_seed reaches the generators of all CUDA devices too.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(SEED)
        network = load_network(plain, weights)
    dim = feature_width(network)
    network, layer = cut(network)
    network.eval().requires_grad_(False)
    # The one option of a network that weights of equal tensors can come with or without.
    option = "+transform_input" if getattr(network, "transform_input", False) else ""
    return Backbone(
        PREFIX + plain + option,
        weights,
        state_digest(network),
        f"input:{layer}",
        preprocess,
        origin,
        (dim,),
        network,
    )
