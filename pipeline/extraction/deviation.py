"""How far an engine is from the untouched module: measured on the first batch it computes, before anything is kept."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.engine import Engine, GraphStore
from pipeline.engines.registry import REFERENCE, make_engine
from pipeline.errors import DataError
from pipeline.extraction.precision import COMPUTED

if TYPE_CHECKING:
    import torch
    from torch import nn

ROWS = 8
"""Images of the first batch that the module computes too: enough to see a wrong graph, quick on any machine."""


@dataclass(frozen=True)
class Deviation:
    """An engine against the untouched module in float32."""

    engine: str
    dtype: str
    rows: int
    max_abs_difference: float
    scale: float
    """The largest feature of the module."""

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest feature."""
        return self.max_abs_difference / max(self.scale, float(np.finfo(np.float32).tiny))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {**asdict(self), "relative": self.relative}


class CheckedEngine:
    """An engine whose first batch is compared with the untouched module's."""

    def __init__(self, engine: Engine, reference: Callable[[], Engine] | None, dtype: str) -> None:
        self.name, self.version = engine.name, engine.version
        self.engine, self.dtype = engine, dtype
        self.reference = reference
        """Makes the module's own engine; None where `engine` is that."""
        self.deviations: list[Deviation] = []
        """One a layer, once a batch was compared."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3)."""
        (only,) = self.all_features(pixels)
        return only

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several.

        Raises:
            DataError: if the first batch is further from the module's than rounding explains.
        """
        found = self.engine.all_features(pixels)
        if self.reference is not None:
            expected = self.reference().all_features(pixels[:ROWS])
            self.reference = None
            self.deviations = [self._compare(*pair) for pair in zip(found, expected, strict=True)]
        return found

    def _compare(self, found: np.ndarray, expected: np.ndarray) -> Deviation:
        gap = np.abs(found[: len(expected)] - expected).max(initial=0.0)
        scale = np.abs(expected).max(initial=0.0)
        deviation = Deviation(self.name, self.dtype, len(expected), float(gap), float(scale))
        # Features of the module that are not finite are no fault of the engine: the guard against them names the rows.
        if np.isfinite(scale) and not deviation.relative <= COMPUTED[self.dtype]:
            raise DataError(
                f"engine {self.name} in {self.dtype} differs from the plain module by {deviation.relative:.1e} of the "
                f"largest feature, more than {COMPUTED[self.dtype]:.0e}",
                "Nothing of it was kept. Use --engine reference, or --dtype float32.",
            )
        return deviation


def checked_engine(
    name: str,
    network: "nn.Module",
    preprocess: Preprocess,
    device: "torch.device",
    *,
    dtype: str,
    threads: int,
    graphs: GraphStore | None,
) -> CheckedEngine:
    """Return an engine that checks itself; the arguments are those of `make_engine`."""
    engine = make_engine(name, network, preprocess, device, dtype=dtype, threads=threads, graphs=graphs)
    plain = partial(make_engine, REFERENCE, network, preprocess, device)
    return CheckedEngine(engine, None if name == REFERENCE else plain, dtype)
