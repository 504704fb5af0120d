"""BatchNorm folded into the convolution in front of it.

In eval mode BatchNorm is a multiplication and an addition for each channel, which the convolution's weights and bias
can do: y = g (Wx + b - m) / s + h = (gW/s) x + (g (b - m)/s + h), with s = sqrt(var + eps).
"""

import copy
import logging
from collections import Counter
from typing import TYPE_CHECKING

from pipeline.backbones.taps import INPUT, OUTPUT, Tapped
from pipeline.errors import first_line

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


def folded(network: "nn.Module") -> "nn.Module":
    """Return a copy of a network in eval mode with every BatchNorm folded that can be.

    A pair is folded where the traced graph shows that the BatchNorm is the only one to see what the convolution
    gives. Modules keep their names, so that the points of a tapped network stay where they are. Code that cannot be
    traced is copied as it is: that is slower and not wrong.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    made = copy.deepcopy(network)
    inner = made.network if isinstance(made, Tapped) else made
    for conv_name, norm_name in conv_norm_pairs(inner, _tapped(made)):
        conv, norm = inner.get_submodule(conv_name), inner.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        inner.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        inner.set_submodule(norm_name, nn.Identity().eval())
    return made


def _tapped(network: "nn.Module") -> set[str]:
    """Return `input:name` and `output:name` of what must stay visible between modules."""
    return {key for point in network.points for key in point.keys} if isinstance(network, Tapped) else set()


def conv_norm_pairs(network: "nn.Module", tapped: set[str]) -> list[tuple[str, str]]:
    """Return the names of each convolution and the BatchNorm behind it, where that alone sees what it gives.

    `tapped` are points (`output:conv1`) that must stay visible. Of code that cannot be traced there are none.
    """
    from torch import fx, nn

    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:  # noqa: BLE001 - tracing runs the network's own code on proxies: it may raise anything
        logger.info("no BatchNorm is folded, this network cannot be traced: %s", first_line(error))
        return []
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    found = []
    for norm in graph.nodes:
        if norm.op != "call_module" or type(network.get_submodule(norm.target)) is not nn.BatchNorm2d:
            continue
        conv = norm.args[0] if norm.args else None
        if not isinstance(conv, fx.Node) or conv.op != "call_module" or len(conv.users) != 1:
            continue
        pair = str(conv.target), str(norm.target)
        if type(network.get_submodule(pair[0])) is not nn.Conv2d or calls[pair[0]] + calls[pair[1]] != 2:
            continue
        if {f"{OUTPUT}:{pair[0]}", f"{INPUT}:{pair[1]}"} & tapped:
            continue
        if network.get_submodule(pair[1]).track_running_stats:
            found.append(pair)
    return found
