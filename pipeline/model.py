"""Backbone and head together: what takes images and gives logits."""

import numpy as np

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.engines import ReferenceEngine
from pipeline.device import resolve_device
from pipeline.heads.linear import LinearHead


class Model:
    """The fused model in the plain float32 module; never the engine that made a cache."""

    def __init__(self, backbone: Backbone, head: LinearHead, device: str = "auto") -> None:
        self.preprocess = backbone.preprocess
        self.engine = ReferenceEngine(backbone.network, backbone.preprocess, resolve_device(device))
        self.head = head

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 logits (b, c) of uint8 images (b, h, w, 3)."""
        import torch

        result: np.ndarray = self.head.logits(torch.from_numpy(self.engine.features(pixels))).numpy()
        return result
