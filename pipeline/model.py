"""Backbone and head together: what takes images and gives logits."""

import numpy as np

from pipeline.backbones.backbone import Backbone
from pipeline.device import resolve_device
from pipeline.engines.reference import ReferenceEngine
from pipeline.heads.head import Head

SAME_LOGITS = 1e-4
"""How far float32 engines may be from the plain module; see docs/PARITY.md."""


SAME_VOTES = 0.999
"""Share of equal predictions asked of k-NN, whose logits jump where two neighbours are equally near."""


def same_model(prediction_agreement: float, max_abs_logit_difference: float, kind: str) -> bool:
    """Tell whether two ways to the logits of a kind of head are the same model.

    That is equal predictions and logits within SAME_LOGITS; of `neighbours` it is SAME_VOTES alone: rounding decides
    which of two equally near neighbours is among the k, and a vote more or less is no small difference.
    """
    if kind == "neighbours":
        return prediction_agreement >= SAME_VOTES
    return prediction_agreement == 1.0 and max_abs_logit_difference <= SAME_LOGITS


class Model:
    """The fused model in the plain float32 module; never the engine that made a cache."""

    def __init__(self, backbone: Backbone, head: Head, device: str = "auto") -> None:
        self.preprocess = backbone.preprocess
        self.engine = ReferenceEngine(backbone.network, backbone.preprocess, resolve_device(device))
        self.head = head

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 logits (b, c) of uint8 images (b, h, w, 3)."""
        import torch

        result: np.ndarray = self.head.logits(torch.from_numpy(self.engine.features(pixels))).numpy()
        return result
