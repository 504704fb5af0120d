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
    places: dict[str, int]
    """Of all layers on the way to the features, those with several places left out; `-1`: passed several times."""
    boundaries: tuple[Boundary, ...]
    """In the network's order, those without anything to train behind them left out."""

    def boundary(self, layer: str) -> Boundary:
        """Return the boundary that a layer is, of whatever name.

        Raises:
            UsageError: if it is none, naming the nearest before and behind it.
        """
        place = self.places.get(layer)
        found = next((one for one in self.boundaries if one.place == place), None)
        if found is not None:
            return replace(found, layer=layer)
        raise UsageError(
            f"fine-tuning cannot start at {layer.removeprefix(f'{OUTPUT}:')}: {self._why(place)}. "
            f"{self._nearest(layer, place)}",
            LIST_HINT,
        )

    def _why(self, place: int | None) -> str:
        if place is None:
            return "it is not on the way from the image to the classifier"
        if place < 0:
            return "it is passed several times"
        if self.boundaries and place > self.boundaries[-1].place:
            return "nothing that can be trained lies behind it"
        return "what lies behind it needs other tensors too"

    def _nearest(self, layer: str, place: int | None) -> str:
        if place is None or place < 0:  # by the place of whatever lies around it, or in it
            inside = [at for name, at in self.places.items() if at >= 0 and _around(name, layer)]
            place = min(inside, default=None)
        if place is None:
            return f"It can at {', '.join(one.name for one in self.boundaries[-3:])}."
        before = [one.name for one in self.boundaries if one.place < place][-1:]
        behind = [one.name for one in self.boundaries if one.place > place][:1]
        said = [f"{name} before it" for name in before] + [f"{name} behind it" for name in behind]
        return f"It can at {' and at '.join(said)}." if said else "This network has no place where it can."


def _around(name: str, layer: str) -> bool:
    """Tell whether one of two layers lies in the other."""
    one, other = (layer_name.partition(":")[2] + "." for layer_name in (name, layer))
    return one.startswith(other) or other.startswith(one)


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
        places = {layer: numbers[found[0]] if len(found) == 1 else -1 for layer, found in tracer.passed.items()}
        return Traced(network, graph, places, _boundaries(network, graph, places))


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


def _boundaries(network: nn.Module, graph: fx.Graph, places: dict[str, int]) -> tuple[Boundary, ...]:
    nodes = list(graph.nodes)
    single = _single(nodes)
    names: dict[int, list[str]] = {}
    for layer, place in places.items():
        if layer.startswith(OUTPUT) and place in single:
            names.setdefault(place, []).append(layer)
    found = []
    for place in sorted(names):
        count = _trainable(network, nodes[place + 1 :], needed_of(nodes))
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


def _single(nodes: Sequence[fx.Node]) -> set[int]:
    """Return the places of nodes that all paths from the image to the output pass."""
    needed = needed_of(nodes)
    from_image: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or from_image.intersection(node.all_input_nodes):
            from_image.add(node)
    alive = needed & from_image
    numbers = {node: number for number, node in enumerate(nodes)}
    found, reach = set(), -1
    for number, node in enumerate(nodes):
        if node not in alive:
            continue
        if reach <= number:
            found.add(number)
        reach = max([reach, *(numbers[user] for user in node.users if user in alive)])
    return found


def needed_of(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Return the nodes that the output depends on, itself among them."""
    needed: set[fx.Node] = set()
    for node in reversed(nodes):
        if node.op == "output" or needed.intersection(node.users):
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
