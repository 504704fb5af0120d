"""The verb `predict`: new images through backbone and head, as a stream."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.engines import cpu_threads, default_threads
from pipeline.errors import UsageError
from pipeline.fusion import open_trained
from pipeline.loading.loader import Batch, Loader, auto_workers
from pipeline.loading.worker import OK
from pipeline.model import Model
from pipeline.prediction.images import image_files
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.sources.source import FilePayload

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
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    workers: int | None = None,
    runs_dir: str | Path = "runs",
    on_progress: OnProgress = ignore,
) -> Iterator[Prediction]:
    """Yield a prediction for every image, in order; one that cannot be used yields its error.

    Backbone and head are opened before the first image is looked at. Images are read as they are needed, so any
    number of them takes the same memory.

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        images: files, and folders whose images are taken, those in folders below included.
        top_k: classes an image, at most as many as there are.
        batch_size: images a forward pass.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        workers: loading processes, by default one a core.
        runs_dir: where runs are kept.
        on_progress: called after every batch.

    Raises:
        UsageError: if a number is out of range or the device is not there.
        DataError: if there is no such run, its weights have changed, or a folder holds no images.
    """
    for name, value in (("top-k", top_k), ("batch-size", batch_size)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
    trained = open_trained(run, Path(runs_dir))
    model = Model(trained.backbone, trained.head, device)
    return _stream(model, image_files(images), top_k, batch_size, workers or auto_workers(), on_progress)


def _stream(
    model: Model, files: Iterator[str], top_k: int, batch_size: int, workers: int, on_progress: OnProgress
) -> Iterator[Prediction]:
    asked: deque[list[str]] = deque()
    done = 0
    with Loader(model.preprocess, batch_size=batch_size, workers=workers) as loader:
        while True:
            while len(asked) <= AHEAD and (paths := list(islice(files, batch_size))):
                payloads = [FilePayload(path) for path in paths]
                loader.request(range(len(paths)), payloads.__getitem__)
                asked.append(paths)
            if not asked:
                return
            batch = loader.next_batch()
            yield from _predictions(model, asked.popleft(), batch, top_k)
            loader.release(batch)
            done += len(batch.rows)
            on_progress(Progress(done, None, computed=done))


def _predictions(model: Model, paths: list[str], batch: Batch, top_k: int) -> list[Prediction]:
    batch.pixels[len(paths) :] = 0
    with cpu_threads(default_threads()):
        logits = model.logits(batch.pixels)[: len(paths)].astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top_k]
    classes = model.head.classes
    found = []
    for row, (path, item) in enumerate(zip(paths, batch.loaded, strict=True)):
        if item.outcome == OK:
            top = tuple((classes[label], float(shares[row, label])) for label in order[row].tolist())
            found.append(Prediction(path, top))
        else:
            found.append(Prediction(path, (), item.reason))
    return found
