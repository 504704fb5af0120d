"""The network without its last layer: its output is that layer's input, the penultimate features.

The cut is right if the original last layer, applied to the features, gives the original network's logits;
tests do that for real, from features read back from the cache.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def last_layer(network: "nn.Module") -> str:
    """Return the name of the original classifier: the last registered Linear, or convolution for SqueezeNet.

    All torchvision classification models register it last; auxiliary classifiers come before.
    """
    from torch import nn

    found: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not found:
        raise ValueError(f"{type(network).__name__} has neither a Linear nor a convolution to cut at")
    return found[-1]


def feature_width(network: "nn.Module") -> int:
    """Return d, how many features the last layer of an uncut network takes."""
    from torch import nn

    layer = network.get_submodule(last_layer(network))
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, nn.Conv2d)
    return layer.in_channels


def cut(network: "nn.Module") -> tuple["nn.Module", str]:
    """Cut `network`, in place, at the input of its last layer. Return (network, layer name).

    SqueezeNet's classifier is convolution, ReLU, average pooling: without the convolution what remains pools
    the last feature map (which is a ReLU's output already), so its features are the pooled map.
    Dropout in front of the classifier stays; in eval mode it does nothing.
    """
    from torch import nn

    name = last_layer(network)
    network.set_submodule(name, nn.Identity())
    return network, name
