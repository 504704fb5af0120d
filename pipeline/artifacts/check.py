"""A written artifact, run on real images and held against logits from the cache."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.artifacts.product import Runner
from pipeline.errors import DataError
from pipeline.model import same_model

PROBABILITY_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Check:
    """How an artifact's outputs compare with cached logits over some images."""

    images: int
    prediction_agreement: float
    """Share of images with equal predictions."""
    max_abs_logit_difference: float
    head: str
    """The kind of head: what is asked for depends on it."""

    @property
    def holds(self) -> bool:
        """Whether it is the same model."""
        return same_model(self.prediction_agreement, self.max_abs_logit_difference, self.head)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return dict(self.__dict__)


def check_artifact(
    run: Runner, batches: Iterable[tuple[list[int], np.ndarray]], cached: np.ndarray, head: str, where: str
) -> Check:
    """Run an artifact and compare.

    Args:
        run: the artifact.
        batches: positions (b,) in `cached`, and pixels of at least b images, uint8 (batch, h, w, 3).
        cached: logits (n, c) of all of them.
        head: the kind of head they come from.
        where: what the artifact is called in errors.

    Raises:
        DataError: if it cannot be run, or is not the model that the logits come from.
    """
    logits = np.empty_like(cached)
    for places, pixels in batches:
        images = np.ascontiguousarray(pixels[: len(places)].transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        found, probabilities = run(images)
        if found.shape != cached[places].shape:
            raise DataError(f"{where} gives logits {found.shape}, the head has {cached[places].shape}")
        wanted = np.exp(found - found.max(axis=1, keepdims=True))
        wanted /= wanted.sum(axis=1, keepdims=True)
        if not np.allclose(probabilities, wanted, atol=PROBABILITY_TOLERANCE):
            raise DataError(f"{where} gives probabilities that are not the softmax of its logits")
        logits[places] = found
    check = Check(
        len(cached),
        float((logits.argmax(axis=1) == cached.argmax(axis=1)).mean()),
        float(np.abs(logits - cached).max()),
        head,
    )
    if not check.holds:
        raise DataError(
            f"{where} is not the model of this run: on {check.images} images {check.prediction_agreement:.1%} of the "
            f"predictions are equal, logits differ by up to {check.max_abs_logit_difference:.1e}",
            "With --check-only: it is of another run, or was changed. Otherwise nothing was written: please report it.",
        )
    return check
