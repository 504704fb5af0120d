"""Engines in the dtypes they compute in here, started and tried."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones.backbone import Backbone
from pipeline.benchmark.timing import OnStep
from pipeline.engines.engine import Engine
from pipeline.engines.registry import ENGINES, check_engine, dtypes_of, installed_engines, make_engine
from pipeline.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

EXACT = "float32"
SHORT = {"float32": "", "tf32": " tf32", "bfloat16": " bf16", "float16": " fp16"}


@dataclass(frozen=True)
class Variant:
    """An engine in a dtype."""

    engine: str
    dtype: str

    def __str__(self) -> str:
        return self.engine + SHORT[self.dtype]


def check_engines(asked: Sequence[str], device: str) -> None:
    """Refuse engines that do not run here.

    Raises:
        UsageError: naming the first.
    """
    for name in asked:
        if name not in ENGINES:
            raise UsageError(f"unknown engine {name!r}.{nearest(name, ENGINES)}", f"Known: {', '.join(ENGINES)}")
        check_engine(name, device, "float32")


def start_engines(
    asked: Sequence[str], backbone: Backbone, device: "torch.device", pixels: np.ndarray, on_step: OnStep
) -> tuple[dict[Variant, Engine], dict[Variant, float], tuple[str, ...]]:
    """Start every engine that is asked for, by default all that are installed, in every dtype it has.

    Returns them, their images a second on a second batch, and what there is to say of those that do not take this
    network. `pixels` (b, h, w, 3) uint8 is the batch.

    Raises:
        UsageError: if an engine that is asked for by name does not take the network.
    """
    engines, tried, notes = {}, {}, []
    for variant in _variants(asked, device.type):
        on_step(f"starting engine {variant}")
        engine = make_engine(variant.engine, backbone.network, backbone.preprocess, device, dtype=variant.dtype)
        try:
            engine.features(pixels)
        except UsageError as error:
            if asked:
                raise
            notes.append(f"{variant} is not measured: {error.message}")
            continue
        started = time.perf_counter()
        engine.features(pixels)
        engines[variant], tried[variant] = engine, len(pixels) / (time.perf_counter() - started)
    return engines, tried, tuple(notes)


def _variants(asked: Sequence[str], device: str) -> list[Variant]:
    names = asked or installed_engines(device, "float32")
    return [Variant(name, dtype) for name in names for dtype in dtypes_of(name, device)]


def fastest(tried: Mapping[Variant, float]) -> list[Variant]:
    """Return the fastest engine in float32, and of each other dtype if it is faster still: who would use it else."""
    best: dict[str, Variant] = {}
    for variant, rate in tried.items():
        if variant.dtype not in best or rate > tried[best[variant.dtype]]:
            best[variant.dtype] = variant
    exact = best.pop(EXACT)
    return [exact, *(variant for variant in best.values() if tried[variant] > tried[exact])]
