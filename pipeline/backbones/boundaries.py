"""Where a network can be cut so that what lies behind the cut needs one tensor and nothing else of what lies before.

Found on the graph that torch.fx traces of the network in eval mode. A tensor is such a boundary if every path from
the image to the features passes it: in an order of the graph in which nothing comes before what it needs, no edge
between things that depend on the image may lead over it. Only outputs (and inputs) of modules are looked at, since
these have names that a feature space can hold.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.backbones.taps import INPUT, OUTPUT
from pipeline.errors import UsageError, first_line

LIST_HINT = "`pipeline backbones NAME --layers` lists where fine-tuning can start."


@dataclass(frozen=True)
class Boundary:
    """A tensor that is all what lies behind it depends on."""

    layer: str
    """As a feature space names it: `output:layer3`, of several modules that give it the outermost."""
    place: int
    """Of its node in the graph."""
    parameters: int
    """Numbers that can be trained behind it, without the original classifier's."""

    @property
    def name(self) -> str:
        """As `--layer` takes it."""
        return self.layer.removeprefix(f"{OUTPUT}:")


@dataclass(frozen=True, eq=False)
class Traced:
    """The graph of a network whose classifier is an identity: images (b, 3, h, w) to features (b, d)."""

    network: nn.Module
    graph: fx.Graph
    places: dict[str, tuple[int, ...]]
    """Of all layers on the way to the features: where each is passed."""
    single: frozenset[int]
    """Places of tensors that are all what lies behind depends on."""
    boundaries: tuple[Boundary, ...]
    """In the network's order, those without anything to train behind them left out."""

    def boundary(self, layer: str) -> Boundary:
        """Return the boundary that a layer is, of whatever name.

        Raises:
            UsageError: if it is none, naming the nearest before and behind it.
        """
        places = self.places.get(layer, ())
        found = next((one for one in self.boundaries if places == (one.place,)), None)
        if found is not None:
            return replace(found, layer=layer)
        raise UsageError(
            f"fine-tuning cannot start at {layer.removeprefix(f'{OUTPUT}:')}: {self._why(places)}. "
            f"{self._nearest(places)}",
            LIST_HINT,
        )

    def _why(self, places: tuple[int, ...]) -> str:
        if not places:
            return "it is not on the way from the image to the classifier"
        if len(places) > 1:
            return "it is passed several times"
        if places[0] in self.single:
            return "nothing that can be trained lies behind it"
        return "what lies behind it needs other tensors too"

    def _nearest(self, places: tuple[int, ...]) -> str:
        if not places:
            return f"It can at {', '.join(one.name for one in self.boundaries[-3:])}."
        before = [f"{one.name} before it" for one in self.boundaries if one.place < places[0]][-1:]
        behind = [f"{one.name} behind it" for one in self.boundaries if one.place >= places[-1]][:1]
        return f"It can at {' and at '.join(before + behind)}." if before + behind else "It can nowhere."


def trace(network: nn.Module, classifiers: Sequence[str]) -> Traced:
    """Trace a whole network in eval mode; it is left as it was.

    Args:
        network: as its authors built it.
        classifiers: dotted names of its last layers; none if its output are features.

    Raises:
        UsageError: if it has several classifiers, or torch.fx cannot trace its code.
    """
    if len(classifiers) > 1:
        raise UsageError(
            f"{type(network).__name__} has {len(classifiers)} classifiers ({', '.join(classifiers)}): it cannot be "
            "fine-tuned with one new head in their place",
            "Take another network.",
        )
    with without(network, classifiers):
        tracer = _Tracer()
        try:
            graph = tracer.trace(network.eval(), _defaults(network))
        except Exception as error:  # tracing runs the network's own code on proxies: it may raise anything
            raise UsageError(
                f"{type(network).__name__} cannot be cut for fine-tuning: torch.fx cannot trace it "
                f"({first_line(error)})",
                "Train a head on its features instead, or take a network of torchvision's.",
            ) from error
        numbers = {node: number for number, node in enumerate(graph.nodes)}
        places = {layer: tuple(numbers[node] for node in found) for layer, found in tracer.passed.items()}
        single = _single(list(graph.nodes))
        return Traced(network, graph, places, single, _boundaries(network, graph, places, single))


@contextmanager
def without(network: nn.Module, classifiers: Sequence[str]) -> Iterator[None]:
    """Put identities in the place of the last layers for a while."""
    kept = [(name, network.get_submodule(name)) for name in classifiers]
    for name, _ in kept:
        network.set_submodule(name, nn.Identity().eval())
    try:
        yield
    finally:
        for name, module in kept:
            network.set_submodule(name, module)


def _boundaries(
    network: nn.Module, graph: fx.Graph, places: dict[str, tuple[int, ...]], single: frozenset[int]
) -> tuple[Boundary, ...]:
    nodes = list(graph.nodes)
    names: dict[int, list[str]] = {}
    for layer, passed in places.items():
        if layer.startswith(OUTPUT) and len(passed) == 1 and passed[0] in single:
            names.setdefault(passed[0], []).append(layer)
    needed, found = needed_nodes(nodes), []
    for place in sorted(names):
        count = _trainable(network, nodes[place + 1 :], needed)
        if count:
            found.append(Boundary(min(names[place], key=lambda name: name.count(".")), place, count))
    return tuple(found)


class _Tracer(fx.Tracer):
    """Remembers which nodes are inputs and outputs of modules; BatchNorms stay modules, with a mode of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: dict[str, list[fx.Node]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - as fx has it
        name = self.path_of_module(m)
        given = args[0] if args else None
        gave = super().call_module(m, forward, args, kwargs)
        for side, value in ((INPUT, given), (OUTPUT, gave)):
            if isinstance(value, fx.Proxy):
                self.passed.setdefault(f"{side}:{name}", []).append(value.node)
        return gave


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Return all arguments of a network's forward but the first: traced as what they are by default."""
    _first, *others = inspect.signature(network.forward).parameters.values()
    return {one.name: one.default for one in others if one.default is not one.empty}


def _single(nodes: Sequence[fx.Node]) -> frozenset[int]:
    """Return the places of nodes that all paths from the image to the output pass."""
    needed = needed_nodes(nodes)
    from_image: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or from_image.intersection(node.all_input_nodes):
            from_image.add(node)
    alive = needed & from_image
    numbers = {node: number for number, node in enumerate(nodes)}
    found: set[int] = set()
    reach = -1
    for number, node in enumerate(nodes):
        if node not in alive:
            continue
        if reach <= number:
            found.add(number)
        reach = max([reach, *(numbers[user] for user in node.users if user in alive)])
    return frozenset(found)


def needed_nodes(nodes: Sequence[fx.Node], given: fx.Node | None = None) -> set[fx.Node]:
    """Return the nodes that the output depends on, itself among them; with `given` those without what gives that."""
    needed: set[fx.Node] = set()
    for node in reversed(nodes):
        if node is not given and (node.op == "output" or needed.intersection(node.users)):
            needed.add(node)
    return needed


def _trainable(network: nn.Module, behind: Sequence[fx.Node], needed: set[fx.Node]) -> int:
    """Count the parameters that nodes use, those of them that are needed."""
    parameters: dict[int, int] = {}
    for node in behind:
        if node not in needed:
            continue
        if node.op == "call_module":
            parameters |= {id(one): one.numel() for one in network.get_submodule(str(node.target)).parameters()}
        elif node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            value = getattr(network.get_submodule(owner), name)
            parameters |= {id(value): value.numel()} if isinstance(value, nn.Parameter) else {}
    return sum(parameters.values())
