"""The network without its last layers: their inputs, the penultimate features, are what is left.

The cut is right if the original last layers, applied to the features, give the original network's logits;
tests and `make check-backbones` do that for real, from features read back from the cache.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def input_width(classifier: "nn.Module") -> int:
    """Return d, how many features a last layer takes.

    Raises:
        ValueError: if it is neither a Linear nor a convolution.
    """
    from torch import nn

    if isinstance(classifier, nn.Linear):
        return classifier.in_features
    if isinstance(classifier, nn.Conv2d):
        return classifier.in_channels
    raise ValueError(f"{type(classifier).__name__} is no last layer of a classifier")


def cut(network: "nn.Module", classifiers: Sequence[str]) -> "nn.Module":
    """Put identities in the place of the last layers, in place.

    SqueezeNet's classifier is convolution, ReLU, average pooling: without the convolution what remains pools
    the last feature map (which is a ReLU's output already), so its features are the pooled map.
    Dropout in front of a classifier stays; in eval mode it does nothing.
    """
    from torch import nn

    for name in classifiers:
        network.set_submodule(name, nn.Identity().eval())
    return network
