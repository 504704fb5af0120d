"""The verb `evaluate`: metrics of a run on a split, from the cache and, on request, end to end from images."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.binding import check_space, entry_of
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.extraction.reread import reread
from pipeline.features import Features
from pipeline.heads.head import Head
from pipeline.heads.reading import read_head
from pipeline.heads.rows import logits_of, pick
from pipeline.metrics import classification_metrics
from pipeline.model import Model, same_model
from pipeline.origin import open_images, rebuild_backbone
from pipeline.progress import OnProgress, ignore
from pipeline.runs import check_run, find_run, record_evaluation
from pipeline.sources.source import Source
from pipeline.store.key import SPLITS
from pipeline.streaming import Stream, open_features
from pipeline.threads import cpu_threads, default_threads

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class EvaluateResult:
    """Metrics of a run on a split; `to_json` has the fields other programs rely on."""

    run: str
    cache: str
    split: str
    n: int
    metrics: dict[str, Any]
    end_to_end: EndToEnd | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        body = {
            "run": self.run,
            "cache": self.cache,
            "split": self.split,
            "n": self.n,
            "metrics": self.metrics,
            "seconds": self.seconds,
        }
        return body if self.end_to_end is None else {**body, "end_to_end": self.end_to_end.to_json()}


def evaluate(
    run: str | Path = "latest",
    *,
    split: str = "test",
    cache: str | Path | None = None,
    source: Any = None,  # noqa: ANN401 - a path or name, or any data set
    end_to_end: bool = False,
    stream: Stream = "auto",
    device: str = "auto",
    workers: int | None = None,
    runs_dir: str | Path = "runs",
    cache_dir: str | Path = "cache",
    data_root: str | Path | None = None,
    follow_symlinks: bool = False,
    on_progress: OnProgress = ignore,
) -> EvaluateResult:
    """Measure a run's head on a split and keep the result in the run's folder.

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        split: `train`, `val` or `test`.
        cache: another entry of the same feature space to measure on; default the one it was trained on.
        source: where the images are now, for `end_to_end`, or a data set as for `extract`; default where they were.
        end_to_end: decode the split's images again and compare the plain float32 model with the cache.
        stream: whether features are read from disk a few MB at a time, or all into memory.
        device: where the end-to-end model runs.
        workers: loading processes of the end-to-end pass.
        runs_dir: where runs are kept.
        cache_dir: the cache root.
        data_root: as for `extract`.
        follow_symlinks: as for `extract`.
        on_progress: called after every batch of the end-to-end pass.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", f"Known: {', '.join(SPLITS)}")
    found = find_run(Path(runs_dir), str(run))
    check_run(found)
    head = read_head(found.path)
    entry = entry_of(found, cache, Path(cache_dir))
    features, x = open_features(entry, stream)
    check_space(head, features, entry)
    rows = _rows_of(features, split)
    y = labels_by_name(features, head, rows)
    logits = logits_of(head, pick(x, rows))
    metrics = classification_metrics(logits, y, head.classes)
    proof = None
    if end_to_end:
        opened = open_images(
            entry,
            source,
            data_root=data_root,
            follow_symlinks=follow_symlinks,
        )
        model = Model(rebuild_backbone(features.space, entry.manifest["backbone"]["weights"]), head, device)
        proof = _end_to_end(model, opened, features, rows, logits, y, workers, on_progress)
    result = EvaluateResult(found.id, entry.id, split, len(rows), metrics, proof, time.perf_counter() - started)
    name = split if entry.id == found.body["cache"]["id"] else f"{split}-{entry.id}"
    try:
        record_evaluation(found, name, result.to_json())
    except CacheError as error:  # the figures are worth more than their file
        logger.warning("the result is not kept: %s", error.message)
    return result


def precision_of(space: Mapping[str, Any]) -> str:
    """Return what features of a space are good to: the stored dtype, or what they were computed in if that is less."""
    return str(space["dtype"] if space["store_dtype"] == "float32" else space["store_dtype"])


def labels_by_name(features: Features, head: Head, rows: np.ndarray) -> np.ndarray:
    """Return labels (n,) of rows as positions in the head's classes, matched by name.

    Raises:
        DataError: if there are no labels, or rows have classes that the head does not know.
    """
    if not features.classes:
        raise DataError(f"cache entry {features.cache} has no labels to measure against", "Use `pipeline predict`.")
    y = features.y.numpy()[rows]
    position = {name: number for number, name in enumerate(head.classes)}
    unknown = sorted({features.classes[label] for label in np.unique(y)} - set(position))
    if unknown:
        raise DataError(
            f"the rows have {len(unknown)} classes the head was not trained with: {', '.join(unknown[:5])}",
            f"It knows {', '.join(head.classes[:10])}{', …' if len(head.classes) > 10 else ''}.",
        )
    mapping = np.array([position.get(name, -1) for name in features.classes], np.int64)
    return np.asarray(mapping[y])


def _rows_of(features: Features, split: str) -> np.ndarray:
    rows = features.rows(split)
    if not len(rows):
        there = {name: int((features.split == name).sum()) for name in SPLITS}
        found = ", ".join(f"{name} ({count:,})" for name, count in there.items() if count)
        raise DataError(
            f"cache entry {features.cache} has no {split} split; it has {found}",
            "Name one of them with --split, or extract a source that has it.",
        )
    return rows


def _end_to_end(
    model: Model,
    source: Source,
    features: Features,
    rows: np.ndarray,
    cached: np.ndarray,
    y: np.ndarray,
    workers: int | None,
    on_progress: OnProgress,
) -> EndToEnd:
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
