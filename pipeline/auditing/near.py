"""Rows that hold nearly the same picture: candidates by their features, confirmed on their pixels."""

from pipeline.auditing.duplicates import Pair
from pipeline.features import Features
from pipeline.progress import OnProgress, ignore
from pipeline.sources.source import Source


def near_duplicates(
    features: Features, source: Source | None, *, workers: int | None = None, on_progress: OnProgress = ignore
) -> list[Pair]:
    """Return pairs of rows with other bytes but the same picture, or close features."""
    return []
