"""How a cut network is run on batches: an engine is a small adapter behind one interface."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.backbones.memory import keep_memory
from pipeline.backbones.preprocess import Preprocess

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ENGINES = ("reference",)


class Engine(Protocol):
    """Runs a frozen network on images."""

    name: str
    version: str

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3). All calls have the same `b`."""

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several."""


class ReferenceEngine:
    """The untouched module, NCHW, eager float32: what a plain PyTorch loop computes, bit for bit."""

    name = "reference"

    def __init__(self, network: "nn.Module", preprocess: Preprocess, device: "torch.device") -> None:
        import torch

        if device.type == "cpu":
            keep_memory()
        self.version = f"torch {torch.__version__}"
        self.device = device
        self.network = network.to(device)
        self.mean = torch.tensor(preprocess.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocess.std, device=device).view(1, 3, 1, 1)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3)."""
        (only,) = self.all_features(pixels)
        return only

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several."""
        import torch

        with torch.inference_mode(), exact_float32():
            given = self.network(self.scaled(pixels))
            return [rows.float().cpu().numpy() for rows in (given if isinstance(given, tuple) else (given,))]

    def scaled(self, pixels: np.ndarray) -> "Tensor":
        """Return what the network sees: float32 (b, 3, h, w), with the arithmetic of torchvision's transforms."""
        import torch

        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).contiguous()
        return images.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)


def make_engine(name: str, network: "nn.Module", preprocess: Preprocess, device: "torch.device") -> Engine:
    """Return the engine called `name`, one of ENGINES."""
    return {"reference": ReferenceEngine}[name](network, preprocess, device)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Make float32 mean float32: no TF32, deterministic convolutions; as it was before on leaving."""
    import torch

    cudnn = torch.backends.cudnn
    switches = (torch.backends.cuda.matmul, cudnn.conv)  # type: ignore[attr-defined]  # made at run time
    before = [switch.fp32_precision for switch in switches]
    kept = cudnn.benchmark, cudnn.deterministic
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
        cudnn.benchmark, cudnn.deterministic = kept


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads (0: as it is); as it was before on leaving."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_threads() -> int:
    """Return how many CPU threads a forward pass uses: the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
