"""The module made quicker without a compiler."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones.memory import keep_memory
from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.engine import Scaling, as_arrays, float32_products
from pipeline.engines.folding import folded

if TYPE_CHECKING:
    import torch
    from torch import nn


class EagerEngine:
    """Channels last, BatchNorm folded, eager. In float32 it differs from the module in the last bits."""

    name = "eager"

    def __init__(
        self, network: "nn.Module", preprocess: Preprocess, device: "torch.device", dtype: str = "float32"
    ) -> None:
        import torch

        if device.type == "cpu":
            keep_memory()
        self.version = f"torch {torch.__version__}"
        self.products = "tf32" if dtype == "tf32" else "ieee"
        self.dtype: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
        self.network = folded(network).to(device, self.dtype).to(memory_format=torch.channels_last)
        self.scaled = Scaling(preprocess, device)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3)."""
        (only,) = self.all_features(pixels)
        return only

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several."""
        import torch

        with torch.inference_mode(), float32_products(self.products):
            # NHWC pixels are channels last already: nothing is moved.
            images = self.scaled(pixels, torch.channels_last).to(self.dtype)
            return as_arrays(self.network(images))
