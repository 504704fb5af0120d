"""The engine that is compared with: the untouched module."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones.memory import keep_memory
from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.engine import Scaling, as_arrays, float32_products

if TYPE_CHECKING:
    import torch
    from torch import nn


class ReferenceEngine:
    """The untouched module, NCHW, eager float32: what a plain PyTorch loop computes, bit for bit."""

    name = "reference"

    def __init__(self, network: "nn.Module", preprocess: Preprocess, device: "torch.device") -> None:
        import torch

        if device.type == "cpu":
            keep_memory()
        self.version = f"torch {torch.__version__}"
        self.network = network.to(device)
        self.scaled = Scaling(preprocess, device)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3)."""
        (only,) = self.all_features(pixels)
        return only

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several."""
        import torch

        with torch.inference_mode(), float32_products():
            return as_arrays(self.network(self.scaled(pixels)))
