"""The part of a network behind a cut, as a module of its own: what fine-tuning trains together with a new head.

Its modules and parameters have the names they have in the whole network, so that a trained tail can be put back.
"""

from dataclasses import dataclass

import torch
from torch import fx, nn

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.boundaries import Boundary, Traced, needed_nodes, trace, without
from pipeline.backbones.taps import Tapped
from pipeline.errors import UsageError


def traced_backbone(backbone: Backbone) -> Traced:
    """Trace the whole network that a backbone was cut from.

    Raises:
        UsageError: if the backbone's rows are no tensor that fine-tuning can start from.
    """
    network = backbone.network
    if not isinstance(network, Tapped) or backbone.apart:
        raise UsageError(
            f"features of {backbone.name} at {backbone.layer} are what its classifier is given: nothing lies behind "
            "them that could be fine-tuned",
            "Extract a layer before with --layer NAME --pool none: `pipeline backbones NAME --layers` lists them.",
        )
    if backbone.pool != "none":
        raise UsageError(
            f"features of {backbone.name} at {backbone.layer} were pooled ({backbone.pool}): the layers behind it do "
            "not take them",
            "Extract the layer with --pool none.",
        )
    return trace(network.network, backbone.classifiers)


@dataclass(frozen=True, eq=False)
class Tail:
    """What lies behind a cut."""

    module: fx.GraphModule
    """Rows (b, *row_shape) to the features (b, d) that the original classifier is given; in eval mode."""
    boundary: Boundary
    dim: int
    """The width d."""


def make_tail(backbone: Backbone) -> Tail:
    """Return what lies behind a backbone's cut. It shares parameters and buffers with the backbone's network.

    Raises:
        UsageError: if fine-tuning cannot start there, naming the nearest layers where it can; or the network does
            not end in one vector an image.
    """
    traced = traced_backbone(backbone)
    boundary = traced.boundary(backbone.layer)
    with without(traced.network, backbone.classifiers):
        tail = fx.GraphModule(traced.network, _behind(traced.graph, boundary.place), "Tail").eval()
    _forget(tail, set(traced.network.state_dict()))
    with torch.inference_mode():
        shape = tuple(tail(torch.zeros(2, *backbone.row_shape)).shape)
    if len(shape) != 2:
        raise UsageError(
            f"{backbone.name} gives its classifier {shape[1:]} an image, not a vector of features: a new head cannot "
            "take its place",
            "Take another network.",
        )
    return Tail(tail, boundary, shape[1])


def _forget(tail: nn.Module, kept: set[str]) -> None:
    """Leave out of a tail's state what the whole network leaves out of its own: constants that it makes again."""
    for name in set(tail.state_dict()) - kept:
        owner, _, last = name.rpartition(".")
        tail.get_submodule(owner)._non_persistent_buffers_set.add(last)


def _behind(graph: fx.Graph, place: int) -> fx.Graph:
    """Return the part of a graph that lies behind a node, which becomes its input `rows`."""
    nodes = list(graph.nodes)
    made = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {nodes[place]: made.placeholder("rows")}
    wanted = needed_nodes(nodes, given=nodes[place])
    for node in nodes:
        if node in wanted:
            copies[node] = made.node_copy(node, lambda one: copies[one])
    return made
