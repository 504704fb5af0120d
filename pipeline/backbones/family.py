"""What a family of backbones is: names, preprocess, and whole networks as their authors built them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.backbones.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class BackboneInfo:
    """What can be said of a backbone without its weights."""

    name: str
    image_size: int
    """Pixels of a side of what the network sees with its default weights."""
    features: int
    """How many numbers a row of the default cut has; 0 where that is not known without building the network."""
    parameters: int
    """Of the whole original network, last layer included; 0 as above."""
    weights: tuple[str, ...]
    """Names of the weights that can be downloaded, the default first."""
    downloaded: tuple[str, ...]
    """Those of them that are on this disk."""


@dataclass(frozen=True)
class Built:
    """A whole original network, weights in it, in whatever mode its builder leaves it."""

    architecture: str
    """Its name in a feature space: everything but weights that decides what the network computes."""
    network: "nn.Module"
    classifiers: tuple[str, ...]
    """Dotted names of the last layers, whose inputs are the features. Empty: the output itself is."""
    pool: str = "none"
    """How the default cut becomes a vector: of a classifier's input only SqueezeNet's map and the tokens of CLIP's
    ResNets need it. An empty string: averaged, if it is a map or tokens."""
    prefix_tokens: int = 0
    """Class, distillation and register tokens in front of the image's."""
    preprocess: Preprocess | None = None
    """Where the family knows it only from the network."""

    @property
    def layer(self) -> str:
        """The default cut, as a feature space names it: `input:fc`, `input:head+head_dist`, or `output`."""
        return "input:" + "+".join(self.classifiers) if self.classifiers else "output"


class Family(Protocol):
    """Networks of one library. `plain` is a name as `checked` returns it."""

    prefix: str
    """In front of a name in full."""

    def names(self) -> list[str]:
        """Return all plain names, sorted."""

    def checked(self, name: str) -> str:
        """Return the plain name of a name without prefix; a UsageError with the nearest if there is none."""

    def describe(self, plain: str, *, build: bool) -> BackboneInfo:
        """Return what is known of one; with `build` its sizes too, from building it without memory."""

    def preprocess(self, plain: str, weights: str) -> tuple[Preprocess, str] | None:
        """Return the preprocess that goes with weights and where it is from; None if only the network tells."""

    def build(self, plain: str, weights: str, image_size: int | None) -> Built:
        """Return the whole network for images of so many pixels, with weights; random ones use the current seed.

        Raises:
            UsageError: if there are no weights of that name, or the network cannot be built for that size.
            DataError: if weights cannot be had or do not fit.
        """
