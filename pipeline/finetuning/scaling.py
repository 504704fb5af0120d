"""BatchNorms with frozen statistics, taken into the weights of the convolutions in front of them at every step.

Such a norm is a scale and a shift for each channel: with s = g / sqrt(var + eps), s (Wx + b - m) + h is
(sW) x + (s (b - m) + h). Scaling the few weights instead of the many activations is the same function, with the same
gradients of W, b, g and h up to their last bits, and saves the passes over activations that a norm takes, forwards
and backwards.
"""

from typing import TYPE_CHECKING

from pipeline.engines.folding import conv_norm_pairs

if TYPE_CHECKING:
    from torch import Tensor, fx, nn


def scaled(tail: "fx.GraphModule") -> "nn.Module":
    """Return a module that computes what a tail does in eval mode, with norms scaled into convolutions.

    It has no parameters of its own: they are the tail's. What is no pair of a convolution and a norm stays.
    """
    from torch import fx

    pairs = dict(conv_norm_pairs(tail, set()))
    norms = {norm: conv for conv, norm in pairs.items()}
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in tail.graph.nodes:
        if node.op == "call_module" and node.target in pairs:
            copies[node] = copies[node.args[0]]  # the norm behind it does both
        elif node.op == "call_module" and node.target in norms:
            copies[node] = _both(graph, copies[node.args[0]], tail, norms[node.target], str(node.target))
        else:
            copies[node] = graph.node_copy(node, lambda one: copies[one])
    return fx.GraphModule(tail, graph)


def _both(graph: "fx.Graph", given: "fx.Node", tail: "nn.Module", conv_name: str, norm_name: str) -> "fx.Node":
    from torch import nn

    conv, norm = tail.get_submodule(conv_name), tail.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    tensors = [graph.get_attr(f"{norm_name}.{name}") for name in ("weight", "bias", "running_mean", "running_var")]
    bias = None if conv.bias is None else graph.get_attr(f"{conv_name}.bias")
    shape = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return graph.call_function(
        scaled_convolution, (given, graph.get_attr(f"{conv_name}.weight"), bias, *tensors, norm.eps, *shape)
    )


def scaled_convolution(
    x: "Tensor",
    weight: "Tensor",
    bias: "Tensor | None",
    gain: "Tensor",
    shift: "Tensor",
    mean: "Tensor",
    variance: "Tensor",
    eps: float,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> "Tensor":
    """Return the norm of a convolution of maps x (b, c, h, w); gain, shift, mean and variance are (c_out,)."""
    import torch
    from torch.nn import functional

    scale = gain * torch.rsqrt(variance + eps)
    offset = shift - mean * scale if bias is None else shift + (bias - mean) * scale
    found: Tensor = functional.conv2d(x, weight * scale[:, None, None, None], offset, stride, padding, dilation, groups)
    return found
