"""The verb `evaluate`: metrics of a run on a split, from the cache and, on request, end to end from images."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.engines import cpu_threads, default_threads
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.extraction.recompute import check_unchanged
from pipeline.features import Features, read_features
from pipeline.heads.linear import LinearHead, read_head
from pipeline.loading.loader import Loader, auto_workers
from pipeline.metrics import classification_metrics
from pipeline.model import Model
from pipeline.origin import open_images, rebuild_backbone
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.runs import Run, check_run, find_run, record_evaluation
from pipeline.sources.source import Source
from pipeline.store.catalog import find_entry
from pipeline.store.entry import Entry, open_entry
from pipeline.store.key import SPLITS

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
SAME_LOGITS = 1e-4
"""How far float32 engines may be from the plain module; see docs/PARITY.md."""


@dataclass(frozen=True)
class EndToEnd:
    """The same rows again from images: decoded afresh, through the plain module and the head."""

    accuracy: float
    max_abs_logit_difference: float
    prediction_agreement: float
    """Share of rows with equal predictions."""
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return dict(self.__dict__)

    @property
    def holds(self) -> bool:
        """Whether this is the same model: equal predictions, logits within SAME_LOGITS."""
        return self.prediction_agreement == 1.0 and self.max_abs_logit_difference <= SAME_LOGITS


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
    source: str | None = None,
    end_to_end: bool = False,
    device: str = "auto",
    workers: int | None = None,
    runs_dir: str | Path = "runs",
    cache_dir: str | Path = "cache",
    data_root: str | Path = "data",
    follow_symlinks: bool = False,
    on_progress: OnProgress = ignore,
) -> EvaluateResult:
    """Measure a run's head on a split and keep the result in the run's folder.

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        split: `train`, `val` or `test`.
        cache: another entry of the same feature space to measure on; default the one it was trained on.
        source: where the images are now, for `end_to_end`; default where they were.
        end_to_end: decode the split's images again and compare the plain float32 model with the cache.
        device: where the end-to-end model runs.
        workers: loading processes of the end-to-end pass.
        runs_dir: where runs are kept.
        cache_dir: the cache root.
        data_root: where torchvision's data sets are.
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
    entry = _entry_of(found, cache, Path(cache_dir))
    features = read_features(entry)
    _check_space(head, features, entry)
    rows = _rows_of(features, split)
    y = labels_by_name(features, head, rows)
    logits = head.logits(features.x[rows]).numpy()
    metrics = classification_metrics(logits, y, head.classes)
    proof = None
    if end_to_end:
        opened = open_images(entry, source, data_root=Path(data_root), follow_symlinks=follow_symlinks)
        model = Model(rebuild_backbone(features.space, entry.manifest["backbone"]["weights"]), head, device)
        proof = _end_to_end(model, opened, features, rows, logits, y, workers or auto_workers(), on_progress)
    result = EvaluateResult(found.id, entry.id, split, len(rows), metrics, proof, time.perf_counter() - started)
    name = split if entry.id == found.body["cache"]["id"] else f"{split}-{entry.id}"
    try:
        record_evaluation(found, name, result.to_json())
    except CacheError as error:  # the figures are worth more than their file
        logger.warning("the result is not kept: %s", error.message)
    return result


def labels_by_name(features: Features, head: LinearHead, rows: np.ndarray) -> np.ndarray:
    """Return labels (n,) of rows as positions in the head's classes, matched by name.

    Raises:
        DataError: if rows have classes that the head does not know.
    """
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


def _entry_of(run: Run, cache: str | Path | None, cache_dir: Path) -> Entry:
    """Return the entry to measure on; the run's own must still be the bytes it was trained on."""
    if cache is not None:
        return find_entry(cache_dir, str(cache))
    trained = run.body["cache"]
    path = Path(trained["path"])
    try:
        entry = open_entry(path) if _exists(path) else find_entry(cache_dir, trained["id"])
    except CacheError as error:
        raise CacheError(
            f"run {run.id} was trained on cache entry {trained['id']}, which is gone: {error.message}",
            f"Extract it again (pipeline extract {run.body['source']['spec']} "
            f"--backbone {run.body['backbone']['name'].removeprefix('torchvision/')} …), or name another with --cache.",
        ) from error
    if entry.manifest["id"][: len(trained["id"])] != trained["id"]:
        raise CacheError(f"{path} is entry {entry.id}, run {run.id} was trained on {trained['id']}", "Use --cache.")
    return entry


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


def _check_space(head: LinearHead, features: Features, entry: Entry) -> None:
    if head.space_sha256 == features.space_sha256:
        return
    differing = [
        f"{name} {head.space.get(name)!r} against {features.space.get(name)!r}"
        for name in features.space
        if head.space.get(name) != features.space[name]
    ]
    raise DataError(
        f"the head was trained on another feature space than cache entry {entry.id}: {'; '.join(differing)}",
        "Extract with the same backbone, weights and preprocess as the head was trained with.",
    )


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
    workers: int,
    on_progress: OnProgress,
) -> EndToEnd:
    started = time.perf_counter()
    logits = np.empty_like(cached)
    row_list = rows.tolist()
    done = 0
    with Loader(model.preprocess, batch_size=BATCH_SIZE, workers=workers) as loader:
        loader.request(range(len(rows)), lambda place: source.payload(features.ids[row_list[place]]))
        while done < len(rows):
            batch = loader.next_batch()
            for place, item in zip(batch.rows, batch.loaded, strict=True):
                check_unchanged(item, features.ids[row_list[place]], features.digests[row_list[place]])
            batch.pixels[len(batch.rows) :] = 0
            with cpu_threads(default_threads()):
                logits[batch.rows] = model.logits(batch.pixels)[: len(batch.rows)]
            loader.release(batch)
            done += len(batch.rows)
            on_progress(Progress(done, len(rows), computed=done))
    return EndToEnd(
        accuracy=float((logits.argmax(axis=1) == y).mean()),
        max_abs_logit_difference=float(np.abs(logits - cached).max()),
        prediction_agreement=float((logits.argmax(axis=1) == cached.argmax(axis=1)).mean()),
        images_per_second=len(rows) / (time.perf_counter() - started),
    )
