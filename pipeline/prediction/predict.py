"""The verb `predict`: new images through backbone and head, as a stream."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.binding import check_space
from pipeline.calibration import Calibration
from pipeline.errors import DataError, UsageError
from pipeline.features import read_features
from pipeline.fusion import open_trained
from pipeline.heads.reading import read_head
from pipeline.loading.batch import Batch
from pipeline.loading.loader import Loader, auto_workers
from pipeline.loading.worker import OK
from pipeline.model import Model
from pipeline.prediction.images import Named, image_files
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.runs import Run, calibration_of, check_run, find_run
from pipeline.sources.source import FilePayload
from pipeline.store.catalog import find_entry
from pipeline.threads import cpu_threads, default_threads

BATCH_SIZE = 64
AHEAD = 2
"""Batches asked of the loading processes beyond the one that is computed."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image, or why it says nothing."""

    path: str
    top: tuple[tuple[str, float], ...]
    """(class, probability), most probable first; empty with an error."""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields: `path`, `label`, `probability`, `top`, `error`; null where there is nothing."""
        label, probability = self.top[0] if self.top else (None, None)
        return {
            "path": self.path,
            "label": label,
            "probability": probability,
            "top": [{"label": name, "probability": share} for name, share in self.top],
            "error": self.error or None,
        }


def predict(
    run: str | Path,
    images: Iterable[str | Path],
    *,
    top_k: int = 1,
    calibrated: bool = False,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    workers: int | None = None,
    path_column: str | None = None,
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    on_progress: OnProgress = ignore,
) -> Iterator[Prediction]:
    """Yield a prediction for every image, in order; one that cannot be used yields its error.

    Backbone and head are opened before the first image is looked at. Images are read as they are needed, so any
    number of them takes the same memory.

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        images: files; folders, whose images are taken, those in folders below included; tables (.csv, .tsv, .parquet).
        top_k: classes an image, at most as many as there are.
        calibrated: give probabilities of logits scaled by the run's temperature, not those of an exported model.
        batch_size: images a forward pass.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        workers: loading processes, by default one a core.
        path_column: the tables' column of paths, by default `path`.
        data_root: what paths in tables are relative to, by default the table's folder.
        runs_dir: where runs are kept.
        on_progress: called after every batch.

    Raises:
        UsageError: if a number is out of range or the device is not there.
        DataError: if there is no such run, its weights have changed, a folder holds no images, or a table no paths; or
            calibrated probabilities are asked of a run without a temperature.
    """
    _check(top_k=top_k, batch_size=batch_size)
    trained = open_trained(run, Path(runs_dir))
    model = Model(trained.backbone, trained.head, device)
    files = image_files(images, path_column=path_column, data_root=None if data_root is None else Path(data_root))
    scaled = _Top(model.head.classes, top_k, _calibration(find_run(Path(runs_dir), str(run)), calibrated=calibrated))
    return _stream(model, files, scaled, batch_size, workers or auto_workers(), on_progress)


def _calibration(run: Run, *, calibrated: bool) -> Calibration:
    """Return what happens to logits: nothing unless calibrated probabilities are asked for."""
    if not calibrated:
        return Calibration()
    found = calibration_of(run)
    if found is None:
        raise DataError(
            f"run {run.id} has no temperature: there were no validation rows to fit it on",
            "Leave out --calibrated, or train the head again with a --val-fraction.",
        )
    return found


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name.replace('_', '-')} must be at least 1, not {value}")


def _stream(
    model: Model, files: Iterator[Named], top: "_Top", batch_size: int, workers: int, on_progress: OnProgress
) -> Iterator[Prediction]:
    asked: deque[list[Named]] = deque()
    done = 0
    with Loader(model.preprocess, batch_size=batch_size, workers=workers) as loader:
        while True:
            while len(asked) <= AHEAD and (images := list(islice(files, batch_size))):
                payloads = [FilePayload(image.path) for image in images]
                loader.request(range(len(images)), payloads.__getitem__)
                asked.append(images)
            if not asked:
                return
            batch = loader.next_batch()
            yield from _predictions(model, asked.popleft(), batch, top)
            loader.release(batch)
            done += len(batch.rows)
            on_progress(Progress(done, None, computed=done))


def _predictions(model: Model, images: list[Named], batch: Batch, top: "_Top") -> list[Prediction]:
    batch.pixels[len(images) :] = 0
    with cpu_threads(default_threads()):
        logits = model.logits(batch.pixels)[: len(images)]
    return [
        Prediction(image.name, found) if item.outcome == OK else Prediction(image.name, (), item.reason)
        for image, item, found in zip(images, batch.loaded, top.of(logits), strict=True)
    ]


@dataclass(frozen=True)
class _Top:
    """The most probable classes of logits."""

    classes: tuple[str, ...]
    count: int
    calibration: Calibration

    def of(self, logits: np.ndarray) -> list[tuple[tuple[str, float], ...]]:
        """Return (class, probability) of the most probable classes of logits (n, c), most probable first."""
        scores = self.calibration.scale(logits.astype(np.float64))
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        order = np.argsort(-shares, axis=1, kind="stable")[:, : self.count]
        return [
            tuple((self.classes[label], float(row[label])) for label in labels)
            for row, labels in zip(shares, order.tolist(), strict=True)
        ]


def predict_cached(
    run: str | Path,
    cache: str | Path = "latest",
    *,
    top_k: int = 1,
    calibrated: bool = False,
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
) -> Iterator[Prediction]:
    """Yield a prediction for every usable sample of a cache entry, from its features: no image is opened.

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        cache: an entry of the feature space that its head was trained on, with labels or without.
        top_k: classes a sample.
        calibrated: as for `predict`.
        cache_dir: the cache root.
        runs_dir: where runs are kept.

    Raises:
        UsageError: if `top_k` is out of range.
        DataError: if there is no such run, or the entry is of another feature space.
        CacheError: if there is no such entry, or it is damaged.
    """
    _check(top_k=top_k)
    found = find_run(Path(runs_dir), str(run))
    check_run(found)
    head = read_head(found.path)
    entry = find_entry(Path(cache_dir), str(cache))
    features = read_features(entry)
    check_space(head, features, entry)
    tops = _Top(head.classes, top_k, _calibration(found, calibrated=calibrated)).of(head.logits(features.x).numpy())
    return (Prediction(name, top) for name, top in zip(features.ids, tops, strict=True))
