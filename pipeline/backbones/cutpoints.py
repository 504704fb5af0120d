"""What each place costs where fine-tuning can start: found by running one image, layer by layer."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from pipeline.backbones.backbone import Backbone, load_original
from pipeline.backbones.boundaries import Traced, trace, without
from pipeline.backbones.tail import traced_backbone
from pipeline.errors import UsageError

BACKWARD = 2
"""Arithmetic of a backward pass for each of a forward pass: gradients by weights, and by what they are given."""
LARGE = 1 << 30
"""Bytes of an entry from which a later cut is proposed."""


@dataclass(frozen=True)
class CutPoint:
    """A place where fine-tuning can start."""

    layer: str
    """As `--layer` takes it."""
    row_shape: tuple[int, ...]
    """Empty of what is no tensor, which cannot be extracted."""
    parameters: int
    """Numbers that are trained behind it, without the classifier's."""
    speedup: float | None
    """How many times less arithmetic an epoch from here has than one from images, both with the rest frozen: what is
    saved are the frozen layers' forward passes. Measured figures are higher: early layers are bound by memory. None
    where no products lie behind, only scales of a norm."""

    def bytes(self, rows: int, item: int = 2) -> int:
        """Return what so many rows take, as float16 unless said otherwise."""
        return rows * math.prod(self.row_shape) * item


def list_cuts(name: str) -> list[CutPoint]:
    """Return where a backbone of this name can be cut for fine-tuning, in order, at its own image size.

    Raises:
        UsageError: if there is no such network, or it cannot be cut at all.
    """
    original = load_original(name, weights="none")
    traced = trace(original.network, original.classifiers)
    return [point for point in cut_points(traced, original.classifiers, original.preprocess.crop) if point.row_shape]


def cut_points(traced: Traced, classifiers: tuple[str, ...], size: int) -> list[CutPoint]:
    """Run one image of `size` pixels through a traced network and return what each of its boundaries costs."""
    meter = _Meter(traced)
    with without(traced.network, classifiers), torch.inference_mode(), _plain_attention(), meter.counter:
        meter.run(torch.zeros(1, 3, size, size, device=next(traced.network.parameters()).device))
    flops = list(meter.flops.values())
    found = []
    for boundary in traced.boundaries:
        before, behind = flops[boundary.place], flops[-1] - flops[boundary.place]
        shape = meter.shapes[boundary.place]
        found.append(CutPoint(boundary.name, shape, boundary.parameters, _speedup(before, behind)))
    return found


def _speedup(before: int, behind: int) -> float | None:
    trained = (1 + BACKWARD) * behind
    return (before + trained) / trained if trained else None


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Switch off the fused attention of inference, whose arithmetic torch does not count."""
    kept = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(kept)


class _Meter(fx.Interpreter):
    """Runs a graph and keeps, by place, the shape of a row and the operations so far."""

    def __init__(self, traced: Traced) -> None:
        super().__init__(traced.network, graph=traced.graph)
        self.places = {node: place for place, node in enumerate(traced.graph.nodes)}
        self.counter = FlopCounterMode(display=False)
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.flops: dict[int, int] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - whatever a node gives
        value = super().run_node(n)
        place = self.places[n]
        self.flops[place] = self.counter.get_total_flops()
        self.shapes[place] = tuple(value.shape[1:]) if isinstance(value, Tensor) else ()
        return value


@dataclass(frozen=True)
class Advice:
    """What is to be said of an extraction that fine-tuning may start from."""

    possible: bool
    text: str
    """Why not, or what would be trained; and a later cut, where rows are many and large."""


def advise(backbone: Backbone, rows: int, item: int) -> Advice | None:
    """Say whether fine-tuning can start from a backbone's rows; None where they are vectors, which are for heads.

    Args:
        backbone: cut at a layer.
        rows: how many there will be.
        item: bytes of a stored number.
    """
    if len(backbone.row_shape) == 1:
        return None
    try:
        traced = traced_backbone(backbone)
        here = traced.boundary(backbone.layer)
    except UsageError as error:
        return Advice(False, error.message)
    points = cut_points(traced, backbone.classifiers, backbone.preprocess.crop)
    text = f"can start here: {here.parameters / 1e6:,.2f} M parameters behind it"
    later = []
    for boundary, point in zip(traced.boundaries, points, strict=True):
        if boundary.place == here.place and point.speedup is not None:
            text += f", an epoch with {point.speedup:.1f} times less arithmetic than from images"
        if (
            boundary.place > here.place
            and point.row_shape
            and 2 * math.prod(point.row_shape) <= math.prod(backbone.row_shape)
        ):
            later.append(point)
    if later and rows * math.prod(backbone.row_shape) * item >= LARGE:
        text += f"; --layer {later[0].layer} would take {later[0].bytes(rows, item) / 1e9:,.2f} GB"
    return Advice(True, text)
