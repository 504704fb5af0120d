"""The verb `evaluate`: metrics of a run on a split, from the cache and, on request, end to end from images."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.binding import check_space, entry_of
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.features import Features
from pipeline.heads.head import Head
from pipeline.heads.reading import read_head
from pipeline.heads.rows import Rows as FeatureRows
from pipeline.heads.rows import logits_of, pick
from pipeline.intervals import intervals
from pipeline.metrics import calibration_error, classification_metrics, per_class_metrics
from pipeline.model import Model
from pipeline.origin import open_images, rebuild_backbone
from pipeline.outcomes import Outcomes, outcomes_of, write_outcomes
from pipeline.parity import EndToEnd, end_to_end_proof
from pipeline.progress import OnProgress, ignore
from pipeline.runs import Run, calibration_of, check_run, find_run, record_evaluation
from pipeline.store.entry import Entry
from pipeline.store.key import SPLITS
from pipeline.streaming import Stream, open_rows
from pipeline.touches import log_touch
from pipeline.views import Views, find_views, rows_by_view

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateResult:
    """Metrics of a run on a split; `to_json` has the fields other programs rely on."""

    run: str
    cache: str
    split: str
    n: int
    metrics: dict[str, Any]
    end_to_end: EndToEnd | None
    touch: int | None
    """Number of this evaluation among all of the run on test rows; None of other splits, or where none can be kept."""
    seconds: float
    tta: dict[str, Any] | None = None
    """`views` and `augment` of which probabilities were averaged; None where plain images were measured."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        body = {
            "run": self.run,
            "cache": self.cache,
            "split": self.split,
            "n": self.n,
            "metrics": self.metrics,
            "touch": self.touch,
            "seconds": self.seconds,
            **({"tta": self.tta} if self.tta is not None else {}),
        }
        return body if self.end_to_end is None else {**body, "end_to_end": self.end_to_end.to_json()}


def evaluate(
    run: str | Path = "latest",
    *,
    split: str = "test",
    cache: str | Path | None = None,
    source: Any = None,  # noqa: ANN401 - a path or name, or any data set
    end_to_end: bool = False,
    tta: bool = False,
    augment: str | None = None,
    stream: Stream = "auto",
    device: str = "auto",
    workers: int | None = None,
    runs_dir: str | Path = "runs",
    cache_dir: str | Path = "cache",
    data_root: str | Path | None = None,
    follow_symlinks: bool = False,
    on_progress: OnProgress = ignore,
    command: str | None = None,
) -> EvaluateResult:
    """Measure a run's head on a split and keep the result, and what it said of every row, in the run's folder.

    It is the only verb that looks at test rows; each time is logged in the run before it does (`pipeline.touches`).

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        split: `train`, `val` or `test`.
        cache: another entry of the same feature space to measure on; default the one it was trained on.
        source: where the images are now, for `end_to_end`, or a data set as for `extract`; default where they were.
        end_to_end: decode the split's images again and compare the plain float32 model with the cache.
        tta: test-time augmentation: average each row's probabilities over all views of it in the cache.
        augment: whose views; by default those the run was trained on, or else the only ones there are.
        stream: whether features are read from disk a few MB at a time, or all into memory.
        device: where the end-to-end model runs.
        workers: loading processes of the end-to-end pass.
        runs_dir: where runs are kept.
        cache_dir: the cache root.
        data_root: as for `extract`.
        follow_symlinks: as for `extract`.
        on_progress: called after every batch of the end-to-end pass.
        command: logged with a touch of the test split; by default this process's own.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", f"Known: {', '.join(SPLITS)}")
    _check_asked(tta=tta, augment=augment, end_to_end=end_to_end)
    found = find_run(Path(runs_dir), str(run))
    check_run(found)
    head = read_head(found.path)
    entry = entry_of(found, cache, Path(cache_dir))
    features, x = open_rows(entry, stream)
    check_space(head, features, entry)
    rows = _rows_of(features, split)
    y = labels_by_name(features, head, rows)
    views = _views(found, entry, augment) if tta else None
    touch = _touch(found, entry.id, len(rows), command) if split == "test" else None
    logits = averaged(head, rows_by_view(views, rows, stream)) if views else logits_of(head, pick(x, rows))
    _check_finite(found, logits)
    outcomes = outcomes_of(
        logits,
        y,
        calibration_of(found) if views is None else None,  # it was fitted to plain images
        classes=head.classes,
        ids=tuple(features.ids[row] for row in rows.tolist()),
        digests=features.digests[rows],
    )
    metrics = _metrics(logits, outcomes)
    proof = None
    if end_to_end:
        opened = open_images(
            entry,
            source,
            data_root=data_root,
            follow_symlinks=follow_symlinks,
        )
        model = Model(rebuild_backbone(features.space, entry.manifest["backbone"]["weights"]), head, device)
        proof = end_to_end_proof(model, opened, features, rows, logits, y, workers, on_progress)
    seconds = time.perf_counter() - started
    about = None if views is None else {"views": len(views), "augment": views.augment}
    result = EvaluateResult(found.id, entry.id, split, len(rows), metrics, proof, touch, seconds, about)
    name = split if views is None else f"{split}-tta"
    name += "" if entry.id == found.body["cache"]["id"] else f"-{entry.id}"
    try:
        kept = write_outcomes(found, name, outcomes)
        record_evaluation(found, name, {**result.to_json(), "outcomes": kept})
    except CacheError as error:  # the figures are worth more than their file
        logger.warning("the result is not kept: %s", error.message)
    return result


def _check_asked(*, tta: bool, augment: str | None, end_to_end: bool) -> None:
    if tta and end_to_end:
        raise UsageError("--tta and --end-to-end", "The proof is about plain images: leave out one of them.")
    if augment is not None and not tta:
        raise UsageError("--augment needs --tta: without it plain images are measured")


def _views(run: Run, entry: Entry, augment: str | None) -> Views:
    trained = run.body.get("views")
    if augment is None and isinstance(trained, dict):
        augment = str(trained.get("augment"))
    return find_views(entry, "all", augment)


def averaged(head: Head, views: Iterable[FeatureRows]) -> np.ndarray:
    """Return the log of the mean probability (n, c) over views of the same rows (n, d), as logits.

    The mean of the softmax outputs: Krizhevsky et al., "ImageNet Classification with Deep CNNs" (NIPS 2012), 4.1.
    """
    from scipy.special import log_softmax, logsumexp

    each = np.stack([log_softmax(logits_of(head, rows).astype(np.float64), axis=1) for rows in views])
    return np.asarray(logsumexp(each, axis=0) - np.log(len(each)))


def _check_finite(run: Run, logits: np.ndarray) -> None:
    bad = int((~np.isfinite(logits).all(axis=1)).sum())
    if bad:
        raise DataError(
            f"the head of run {run.id} gives {bad:,} of {len(logits):,} rows logits that are not finite",
            "Its training diverged: train again with a lower --lr.",
        )


def _touch(run: Run, entry: str, n: int, command: str | None) -> int | None:
    try:
        return log_touch(run, entry, n, command)
    except CacheError as error:
        logger.warning("that test rows were looked at is not logged: %s", error.message)
        return None


def _metrics(logits: np.ndarray, outcomes: Outcomes) -> dict[str, Any]:
    metrics = classification_metrics(logits, outcomes.y, outcomes.classes)
    found = {
        **metrics,
        "intervals": intervals(outcomes, metrics),
        "per_class": per_class_metrics(outcomes.y, outcomes.predicted, outcomes.classes),
    }
    scaled = outcomes.calibrated
    if scaled is not None:
        found["calibrated"] = {
            "temperature": scaled.temperature,
            "nll": float(scaled.nll.mean()),
            "brier": float(scaled.brier.mean()),
            "ece": calibration_error(scaled.confidence, outcomes.right),
        }
    return found


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
            "Validation rows that training drew from train were measured then: pipeline runs"
            if split == "val"
            else "Name one of them with --split, or extract a source that has it.",
        )
    return rows
