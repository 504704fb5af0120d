"""What an engine is: a small adapter behind one interface."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.backbones.preprocess import Preprocess

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = ("float32", "tf32", "bfloat16", "float16")
"""What a forward pass may compute in; tf32 is float32 with products of 10-bit mantissas, a CUDA device's own."""


class Engine(Protocol):
    """Runs a frozen network on images."""

    name: str
    version: str

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3). All calls have the same `b`."""

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several."""


class GraphStore(Protocol):
    """Keeps what is slow to make again: a network's graph, as bytes under a name."""

    def load(self, name: str) -> dict[str, bytes] | None:
        """Return the parts that were kept under `name`, None if there are none or they are damaged."""

    def save(self, name: str, parts: dict[str, bytes]) -> None:
        """Keep parts; where nothing can be written they are not kept."""


class Scaling:
    """From pixels to what a network sees, with the arithmetic of torchvision's transforms."""

    def __init__(self, preprocess: Preprocess, device: "torch.device") -> None:
        import torch

        self.device = device
        self.mean = torch.tensor(preprocess.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocess.std, device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: np.ndarray, memory_format: "torch.memory_format | None" = None) -> "Tensor":
        """Return float32 (b, 3, h, w), by default contiguous, of uint8 (b, h, w, 3): the bus is crossed as uint8."""
        import torch

        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        images = images.contiguous(memory_format=memory_format or torch.contiguous_format)
        return images.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)


def as_arrays(given: "Tensor | Sequence[Tensor]") -> list[np.ndarray]:
    """Return what a network gave, one tensor or several, as float32 arrays on the CPU."""
    import torch

    return [rows.float().cpu().numpy() for rows in ((given,) if isinstance(given, torch.Tensor) else given)]


@contextmanager
def float32_products(precision: str = "ieee") -> Iterator[None]:
    """Say what float32 products are: `ieee` (exact, and convolutions deterministic) or `tf32`; as before on leaving."""
    import torch

    cudnn = torch.backends.cudnn
    switches = (torch.backends.cuda.matmul, cudnn.conv)  # type: ignore[attr-defined]  # made at run time
    before = [switch.fp32_precision for switch in switches]
    kept = cudnn.benchmark, cudnn.deterministic
    try:
        for switch in switches:
            switch.fp32_precision = precision
        cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
        cudnn.benchmark, cudnn.deterministic = kept
