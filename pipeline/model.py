"""Backbone and head together: what takes images and gives logits."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.backbone import Backbone, load_backbone
from pipeline.backbones.engines import ReferenceEngine
from pipeline.backbones.preprocess import Preprocess
from pipeline.device import resolve_device
from pipeline.errors import DataError
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


def rebuild_backbone(space: dict[str, Any], weights: str) -> Backbone:
    """Build the backbone of a feature space again.

    Args:
        space: the fields of the FeatureSpace.
        weights: what `--weights` was when its features were extracted.

    Raises:
        DataError: if the weights are not there any more or have changed.
    """
    backbone = load_backbone(
        space["architecture"], weights=weights, preprocess=Preprocess.from_json(space["preprocess"])
    )
    if backbone.weights_digest != space["weights"]:
        raise DataError(
            f"the weights {weights} of {space['architecture']} are not those the features were made with",
            f"{Path(weights).name} has changed since: put the old file back, or extract again.",
        )
    return backbone
