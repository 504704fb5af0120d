"""The end-to-end proof: rows decoded afresh, through the plain module and the head, against the cache."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.extraction.reread import reread
from pipeline.features import Features
from pipeline.model import Model, same_model
from pipeline.progress import OnProgress
from pipeline.sources.source import Source
from pipeline.threads import cpu_threads, default_threads

BATCH_SIZE = 64


@dataclass(frozen=True)
class EndToEnd:
    """The same rows again from images: decoded afresh, through the plain module and the head."""

    accuracy: float
    max_abs_logit_difference: float
    prediction_agreement: float
    """Share of rows with equal predictions."""
    images_per_second: float
    head: str
    """The kind of head: what the comparison asks for depends on it."""
    precision: str
    """What the features were computed in, or stored as if that is less: the comparison is with float32."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return dict(self.__dict__)

    @property
    def holds(self) -> bool:
        """Whether this is the same model."""
        return same_model(self.prediction_agreement, self.max_abs_logit_difference, self.head)


def end_to_end_proof(
    model: Model,
    source: Source,
    features: Features,
    rows: np.ndarray,
    cached: np.ndarray,
    y: np.ndarray,
    workers: int | None,
    on_progress: OnProgress,
) -> EndToEnd:
    """Decode rows (n,) of an entry again and compare the plain model's logits with `cached` (n, c).

    Raises:
        DataError: if an image is gone, cannot be used, or is not what the features were made of.
    """
    started = time.perf_counter()
    logits = np.empty_like(cached)
    batches = reread(
        source,
        [features.ids[row] for row in rows.tolist()],
        features.digests[rows],
        model.preprocess,
        batch_size=BATCH_SIZE,
        workers=workers,
        on_progress=on_progress,
    )
    for places, pixels in batches:
        with cpu_threads(default_threads()):
            logits[places] = model.logits(pixels)[: len(places)]
    return EndToEnd(
        accuracy=float((logits.argmax(axis=1) == y).mean()),
        max_abs_logit_difference=float(np.abs(logits - cached).max()),
        prediction_agreement=float((logits.argmax(axis=1) == cached.argmax(axis=1)).mean()),
        images_per_second=len(rows) / (time.perf_counter() - started),
        head=model.head.kind,
        precision=precision_of(features.space),
    )


def precision_of(space: Mapping[str, Any]) -> str:
    """Return what features of a space are good to: the stored dtype, or what they were computed in if that is less."""
    return str(space["dtype"] if space["store_dtype"] == "float32" else space["store_dtype"])
