"""A frozen backbone: network, weights, cut and preprocess together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.backbones.cut import cut, input_width
from pipeline.backbones.family import Built
from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.registry import TORCHVISION, find_family
from pipeline.backbones.weights import SEED, state_digest
from pipeline.errors import DataError, UsageError, first_line

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Original:
    """A whole network as its authors built it, in eval mode, without gradients, float32 on the CPU."""

    name: str
    """For people: what a feature space calls it, without the digest of a source file."""
    weights: str
    """What was asked for: `DEFAULT`, `none`, a name or a file."""
    built: Built
    preprocess: Preprocess
    preprocess_from: str
    """Where the preprocess comes from, for people."""

    @property
    def network(self) -> "nn.Module":
        """Images (b, 3, h, w) to logits, or to features where there is no classifier."""
        return self.built.network

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Dotted names of the last layers; one, but for distilled networks and the like."""
        return self.built.classifiers


@dataclass(frozen=True)
class Backbone:
    """A network in eval mode, without gradients, cut at a layer; float32 on the CPU."""

    name: str
    """For people: `torchvision/<model>` (with `+transform_input` for GoogLeNet and Inception with torchvision's
    weights), `timm/<model>`, `package.module:function`."""
    architecture: str
    """The same for a feature space: the digest of a custom function's source file included."""
    weights: str
    """What was asked for: `DEFAULT`, `none`, a name or a file."""
    weights_digest: str
    layer: str
    """`input:<module>`, `output:<module>` or `output`."""
    pool: str
    """What a layer's output was pooled with; `none` for the default cut, which is as the network does it."""
    preprocess: Preprocess
    preprocess_from: str
    """Where the preprocess comes from, for people."""
    row_shape: tuple[int, ...]
    network: "nn.Module"
    """Images (b, 3, h, w) to features (b, *row_shape)."""
    apart: tuple[str, ...] = ()
    """Modules that are still in the network but are no part of the backbone: the original classifier."""
    classifiers: tuple[str, ...] = ()
    """Dotted names of the original classifiers, wherever the cut is."""

    def check_image_size(self) -> None:
        """Try one image.

        Raises:
            UsageError: if the network cannot take images of the preprocess's size.
        """
        import torch

        size = self.preprocess.crop
        with torch.inference_mode(), _explained(self.name, size):
            found = tuple(self.network(torch.zeros(1, 3, size, size)).shape[1:])
        assert found == self.row_shape, f"cut at {self.layer}: rows {found}, expected {self.row_shape}"

    def check_frozen(self) -> None:
        """Prove that no weight or statistic moved since loading.

        Raises:
            DataError: if one did: rows computed meanwhile cannot be trusted.
        """
        if _digest(self.network, self.apart) != self.weights_digest:
            raise DataError(
                f"the weights of {self.name} changed while features were computed",
                "Hardware fault, or code that trains the network it was given. Delete the entry and try again.",
            )


def load_original(
    name: str,
    *,
    weights: str = "DEFAULT",
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    preprocess: Preprocess | None = None,
) -> Original:
    """Build a whole original network, its classifier in place; the arguments are those of `load_backbone`."""
    import torch

    family, plain = find_family(name)
    known = (preprocess, "the cache entry") if preprocess is not None else family.preprocess(plain, weights)
    said = [flag for flag, value in (("image size", image_size), ("mean", mean), ("std", std)) if value is not None]
    yours = f", your {', '.join(said)}" if said else ""

    def changed(own: Preprocess) -> Preprocess:
        try:
            return own.override(image_size=image_size, mean=mean, std=std)
        except ValueError as error:
            raise UsageError(f"preprocess: {error}") from error

    wanted = None if known is None else changed(known[0])
    # manual_seed reaches the generators of all CUDA devices too.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(SEED)
        built = family.build(plain, weights, None if wanted is None else wanted.crop)
    built.network.eval().requires_grad_(False)
    if wanted is None or known is None:
        assert built.preprocess is not None, f"nobody says what images {plain} takes"
        wanted, known = changed(built.preprocess), (built.preprocess, plain)
    shown = built.architecture.partition("@")[0]
    return Original(shown, weights, built, wanted, known[1] + yours)


def load_backbone(
    name: str,
    *,
    weights: str = "DEFAULT",
    layer: str | None = None,
    pool: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    preprocess: Preprocess | None = None,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: a torchvision classification model, with or without `torchvision/`; `timm/<model>`, with or without
            `.<tag>`; or `package.module:function` of your own (see `backbones.custom`).
        weights: `DEFAULT`, another of the library's names, `none` (random, always from seed 0), or a file.
        layer: a module whose output is taken, `input:<module>` for its input, `output` for the network's; by
            default the input of the original classifier.
        pool: `avg`, `max`, `cls`, `cls+avg` or `none`, see `backbones.pooling`; by default `avg` for maps and tokens.
        image_size: pixels; the side that is resized is made this, and the centre cut out. Default: the weights' own.
        mean: one value or three, for pixels in [0, 1]. Default: the weights' own.
        std: as `mean`.
        preprocess: all of it at once, instead of the three above.

    Raises:
        UsageError: if a name is unknown or a value is out of range.
        DataError: if weights cannot be had or do not fit.
    """
    original = load_original(name, weights=weights, image_size=image_size, mean=mean, std=std, preprocess=preprocess)
    return cut_original(original, [layer], pool)[0]


def cut_original(original: Original, layers: Sequence[str | None], pool: str | None) -> list[Backbone]:
    """Return a backbone for each layer; None is the default cut. They share the original's modules.

    Raises:
        UsageError: if a layer is unknown or gives no tensor, or cannot be pooled so.
    """
    built = original.built
    usual = pool is None or (pool == "none" and bool(built.classifiers))
    default = [usual and layer in (None, built.layer) for layer in layers]
    if default == [True] and built.architecture.startswith(TORCHVISION.prefix):
        # What torchvision's networks return is what their classifier returns: without it they stay plain modules.
        (last,) = built.classifiers
        width = input_width(built.network.get_submodule(last))
        return [_backbone(original, built.layer, "none", (width,), cut(built.network, built.classifiers), ())]
    import torch

    from pipeline.backbones.taps import Tapped, default_point, point_of

    points = [
        default_point(built.layer, built.pool) if whole else point_of(built.network, layer or built.layer, pool)
        for layer, whole in zip(layers, default, strict=True)
    ]
    size = original.preprocess.crop
    with torch.inference_mode(), _explained(original.name, size):
        resolved = Tapped(built.network, points, built.prefix_tokens).resolved(torch.zeros(2, 3, size, size))
    made = []
    for point, row_shape in resolved:
        apart = built.classifiers if point.layer == built.layer else ()
        if apart and point.pool == built.pool and len(row_shape) > 1:
            raise UsageError(
                f"the classifier of {original.name} is given {row_shape} an image, not a vector of features",
                "Take a layer with --layer and --pool: `pipeline backbones NAME --layers` lists them.",
            )
        shown = "none" if apart and point.pool == built.pool else point.pool
        tapped = Tapped(built.network, [point], built.prefix_tokens)
        made.append(_backbone(original, point.layer, shown, row_shape, tapped, apart))
    return made


def together(backbones: Sequence[Backbone]) -> "nn.Module":
    """Return images (b, 3, h, w) to a tuple of the features of each of several cuts of one original."""
    from pipeline.backbones.taps import Tapped

    taps = [backbone.network for backbone in backbones if isinstance(backbone.network, Tapped)]
    assert len(taps) == len(backbones), "a network without its classifier has one output"
    return Tapped(taps[0].network, [point for tap in taps for point in tap.points], taps[0].prefix_tokens)


def _backbone(
    original: Original, layer: str, pool: str, row_shape: tuple[int, ...], network: "nn.Module", apart: tuple[str, ...]
) -> Backbone:
    return Backbone(
        original.name,
        original.built.architecture,
        original.weights,
        _digest(network, apart),
        layer,
        pool,
        original.preprocess,
        original.preprocess_from,
        row_shape,
        network,
        apart,
        original.classifiers,
    )


def _digest(network: "nn.Module", apart: tuple[str, ...]) -> str:
    """Return the digest of the weights: of taps, that of the network they are in."""
    from pipeline.backbones.taps import Tapped

    return state_digest(network.network if isinstance(network, Tapped) else network, apart)


@contextmanager
def _explained(name: str, size: int) -> Iterator[None]:
    """Say in one line why a network does not take images of `size` pixels."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        raise UsageError(
            f"{name} cannot take images of {size} px: {first_line(error)}",
            "`pipeline backbones` shows the size each was made for: pass --image-size.",
        ) from error
