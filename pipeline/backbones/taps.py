"""A network whose output is what passes chosen points of it, as far as the last of them and no further.

Points are named as in a feature space: `output:layer3` is the output of the module layer3, `input:fc` what fc is
given, `input:head+head_dist` the inputs of both side by side (once, if they are given the same tensor), and
`output` what the whole network returns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.backbones.pooling import default_pool, pool
from pipeline.errors import UsageError, nearest

INPUT, OUTPUT = "input", "output"


class _Reached(Exception):
    """All points have been passed."""


@dataclass(frozen=True)
class Point:
    """A place in a network and how its tensor becomes a row."""

    layer: str
    """As a feature space names it."""
    pool: str
    """One of POOLS; an empty string until the tensor's shape is known."""
    modules: tuple[str, ...]
    """The modules whose input or output is taken, those that share one tensor once; none: the network's output."""

    @property
    def side(self) -> str:
        """`input` or `output`."""
        return self.layer.partition(":")[0]

    @property
    def keys(self) -> tuple[str, ...]:
        """`input:name` or `output:name` for each module."""
        return tuple(f"{self.side}:{name}" for name in self.modules)


def default_point(layer: str, pool: str) -> Point:
    """Return the point of a default cut."""
    _, colon, names = layer.partition(":")
    return Point(layer, pool, tuple(names.split("+")) if colon else ())


def point_of(network: nn.Module, asked: str, pool: str | None) -> Point:
    """Return the point that `--layer asked --pool pool` means: `layer3` is its output, `input:fc` its input.

    Raises:
        UsageError: if there is no such module, with the nearest.
    """
    if asked == OUTPUT:
        return Point(OUTPUT, pool or "", ())
    side, colon, rest = asked.partition(":")
    if not colon:
        side, rest = OUTPUT, asked
    elif side not in (INPUT, OUTPUT):
        raise UsageError(f"--layer {asked!r}", "A layer is NAME (its output), input:NAME, or output.")
    wanted = tuple(rest.split("+")) if side == INPUT else (rest,)
    names = {name for name, _ in network.named_modules() if name}
    for name in wanted:
        if name not in names:
            raise UsageError(
                f"{type(network).__name__} has no module {name!r}.{nearest(name, names)}",
                "`pipeline backbones NAME --layers` lists all of them.",
            )
    return Point(f"{side}:{rest}", pool or "", wanted)


class Tapped(nn.Module):
    """Images (b, 3, h, w) to features (b, *row): one tensor, or a tuple of them for several points."""

    def __init__(self, network: nn.Module, points: Sequence[Point], prefix_tokens: int = 0) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.points = tuple(points)
        self.prefix_tokens: int = prefix_tokens
        self.stops: bool = True
        """Whether the network ends at the last point. What traces a network wants modules that return."""

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the network up to the last point."""
        whole_too = not all(point.modules for point in self.points)
        taken, whole = self._run(images, stop=self.stops and not whole_too, copies=True)
        first = {key: values[0] for key, values in taken.items()}
        rows = tuple(
            pool(_tensor(point, first, whole), point.pool, self.prefix_tokens).contiguous() for point in self.points
        )
        return rows[0] if len(rows) == 1 else rows

    def resolved(self, images: Tensor) -> list[tuple[Point, tuple[int, ...]]]:
        """Return each point with its pool decided and the shape of its rows, having run images (b, 3, h, w), b > 1.

        Raises:
            UsageError: if a module is not called or more than once, does not give one tensor of b rows, or cannot
                be pooled as asked.
        """
        taken, whole = self._run(images, stop=False, copies=False)
        return [self._resolve(point, taken, whole, len(images)) for point in self.points]

    def _resolve(self, point: Point, taken: dict[str, list[Any]], whole: Any, b: int) -> tuple[Point, tuple[int, ...]]:  # noqa: ANN401
        for key in point.keys:
            if len(taken[key]) != 1:
                raise UsageError(
                    f"{key} is passed {len(taken[key])} times when an image is, so it is not one tensor",
                    "Take the module around it: `pipeline backbones NAME --layers` lists all.",
                )
        first = {key: values[0] for key, values in taken.items()}
        once = {id(first[key]): name for key, name in reversed([*zip(point.keys, point.modules, strict=True)])}
        modules = tuple(name for name in point.modules if name in once.values())
        tensor = _tensor(Point(point.layer, point.pool, modules), first, whole)
        if tensor.ndim < 2 or len(tensor) != b:
            raise UsageError(
                f"{point.layer} has shape {tuple(tensor.shape)} for {b} images: no row for each image",
                "Take another layer.",
            )
        decided = Point(point.layer, point.pool or default_pool(tuple(tensor.shape)), modules)
        return decided, tuple(pool(tensor, decided.pool, self.prefix_tokens).shape[1:])

    def _run(self, images: Tensor, *, stop: bool, copies: bool) -> tuple[dict[str, list[Any]], Any]:
        """Return what passed each point's modules, and the network's output, None if it was stopped before.

        Raising from a hook is what stops the network behind the last point: that works for code of any form.
        """
        keys = {(point.side, name) for point in self.points for name in point.modules}
        taken: dict[str, list[Any]] = {f"{side}:{name}": [] for side, name in keys}

        def keep(key: str, value: Any) -> None:  # noqa: ANN401 - whatever a module takes or gives
            taken[key].append(value)
            if stop and all(taken.values()):
                raise _Reached
            if copies and isinstance(value, Tensor):
                taken[key][-1] = value.clone()  # modules behind it may work in place

        def hook(key: str) -> Callable[..., None]:
            return lambda _module, given, *gave: keep(key, gave[0] if gave else given[0] if given else None)

        handles = []
        try:
            for side, name in keys:
                module = self.network.get_submodule(name)
                register = module.register_forward_pre_hook if side == INPUT else module.register_forward_hook
                handles.append(register(hook(f"{side}:{name}")))
            return taken, self.network(images)
        except _Reached:
            return taken, None
        finally:
            for handle in handles:
                handle.remove()


def _tensor(point: Point, taken: dict[str, Any], whole: Any) -> Tensor:  # noqa: ANN401 - whatever a network gives
    """Return the one tensor of a point; a classifier that is a convolution is given (b, d, 1, 1), which is (b, d)."""
    if not point.modules:
        return _checked(point.layer, whole)
    found = [_checked(point.layer, taken[key]) for key in point.keys]
    if point.side == INPUT:
        found = [value.flatten(1) if value.ndim == 4 and value.shape[2:] == (1, 1) else value for value in found]
    return found[0] if len(found) == 1 else torch.cat(found, 1)


def _checked(layer: str, value: Any) -> Tensor:  # noqa: ANN401 - whatever a module gives
    if isinstance(value, Tensor) and value.is_floating_point():
        return value
    if isinstance(value, tuple | list):
        found = f"{len(value)} values ({', '.join(type(item).__name__ for item in value)})"
    else:
        found = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
    raise UsageError(f"{layer} is {found}, not one tensor of numbers", "Take another layer.")
