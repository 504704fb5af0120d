"""The verb `finetune`: the layers behind a cached cut-point and a new head, trained together, as a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.finetuning.checkpoint import Checkpoint
from pipeline.finetuning.job import Job, open_job
from pipeline.finetuning.loop import Training, train
from pipeline.finetuning.settings import FinetuneSettings
from pipeline.heads.calibration import fit_temperature
from pipeline.heads.minibatch import Epoch, OnEpoch
from pipeline.heads.rows import logits_of, pick
from pipeline.heads.tuned import TunedHead
from pipeline.metrics import classification_metrics
from pipeline.runs import check_name, save_run
from pipeline.saving import provenance
from pipeline.store.catalog import find_entry
from pipeline.streaming import Stream
from pipeline.views import check_plain


@dataclass(frozen=True)
class FinetunePlan:
    """What a fine-tuning is about to do, for people."""

    cache: str
    backbone: str
    layer: str
    row_shape: tuple[int, ...]
    store_dtype: str
    parameters: int
    """Numbers that are trained behind the cut, the head's apart."""
    classes: int
    train: int
    val: int
    val_rule: str
    settings: FinetuneSettings
    device: str
    threads: int
    streamed: bool
    epochs_done: int
    """Of an earlier call that was interrupted."""


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned head and what is known of it; `to_json` has the fields other programs rely on."""

    run: str
    path: str
    head: TunedHead
    settings: FinetuneSettings
    epochs: list[Epoch]
    best_epoch: int
    """The epoch whose weights these are."""
    metrics: dict[str, Any] | None
    """On validation rows; None without any. Never the test split's."""
    calibration: dict[str, Any] | None
    rows: dict[str, int]
    streamed: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "run": self.run,
            "path": self.path,
            "epochs": [epoch.to_json() for epoch in self.epochs],
            "best_epoch": self.best_epoch,
            "metrics": self.metrics,
            "calibration": self.calibration,
            "settings": self.settings.to_json(),
            "rows": self.rows,
            "streamed": self.streamed,
            "seconds": self.seconds,
        }


def finetune(
    cache: str | Path = "latest",
    *,
    settings: FinetuneSettings | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    stream: Stream = "auto",
    device: str = "auto",
    checkpoint_seconds: float = 20.0,
    name: str = "",
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
    on_plan: Callable[[FinetunePlan], None] | None = None,
    on_epoch: OnEpoch | None = None,
    command: str | None = None,
    **changes: Any,  # noqa: ANN401 - fields of FinetuneSettings
) -> FinetuneResult:
    """Train all that follows a cached cut-point, and a new head, and save them as a run.

    What lies before the cut stays as it was when the entry was extracted. Between epochs checkpoints are kept under
    `runs_dir`; the same call goes on from the last, and ends in the bits of one that was never interrupted.

    Args:
        cache: an entry of a layer with `--pool none`: a unique prefix of its id, its path, or `latest`.
        settings: the recipe; its fields can also be given by name (`backbone_lr=1e-5, epochs=3`).
        val_fraction: share of train rows held out where the source names no validation split.
        split_seed: seed of that draw.
        stream: whether rows are read from disk in every pass, or once into memory.
        device: where it is trained.
        checkpoint_seconds: an epoch ends in a checkpoint if the last one is as long ago.
        name: goes behind the run's number.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        on_plan: called once before training.
        on_epoch: called after every epoch.
        command: recorded in the run; by default this process's own.
        changes: fields of FinetuneSettings.

    Raises:
        UsageError: if fine-tuning cannot start at the entry's layer, naming the nearest where it can; or as
            `pipeline.errors` says.
        DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    check_name(name)
    settings = FinetuneSettings.of(settings, **changes)
    entry = find_entry(Path(cache_dir), str(cache))
    check_plain(entry)
    job = open_job(entry, settings, val_fraction=val_fraction, split_seed=split_seed, stream=stream, device=device)
    checkpoint = Checkpoint(Path(runs_dir), job.key(), checkpoint_seconds)
    with job.computing():
        training = job.start()
        done = checkpoint.resume(training)
        if on_plan is not None:
            on_plan(_plan(job, done))
        train(training, job.x, job.y, job.rows.train, job.rows.val, on_epoch=on_epoch, keep=checkpoint.keep)
        result = _save(job, training, Path(runs_dir), name, command, started)
    checkpoint.remove()
    return result


def _plan(job: Job, done: int) -> FinetunePlan:
    rule = "named by the source" if job.rows.rule is None else "drawn from train by content hash"
    return FinetunePlan(
        job.entry.id,
        job.backbone,
        job.tail.boundary.name,
        job.entry.space.row_shape,
        job.entry.space.store_dtype,
        job.tail.boundary.parameters,
        len(job.features.classes),
        len(job.rows.train),
        len(job.rows.val),
        rule if len(job.rows.val) else "none",
        job.settings,
        job.device.type,
        job.threads,
        job.streamed,
        done,
    )


def _save(
    job: Job, training: Training, runs_dir: Path, name: str, command: str | None, started: float
) -> FinetuneResult:
    """Measure a finished training on validation rows and write its run."""
    import torch

    head, y = job.head(training), job.features.y
    metrics = calibration = None
    if len(job.rows.val):
        logits = logits_of(head, pick(job.x, job.rows.val))
        metrics = classification_metrics(logits, y[job.rows.val].numpy(), job.features.classes)
        temperature = fit_temperature(torch.from_numpy(logits), y[job.rows.val])
        calibration = {"temperature": temperature, "rows": len(job.rows.val), "fitted_on": "validation rows"}
    seconds = time.perf_counter() - started
    counts = {"train": len(job.rows.train), "val": len(job.rows.val)}
    body = {
        **provenance(job.entry, head, name, command),
        "settings": job.settings.to_json(),
        "solver": {"best_epoch": training.best_epoch, "parameters": job.tail.boundary.parameters},
        "rows": counts,
        "val_rule": job.rows.rule,
        "calibration": calibration,
        "device": job.device.type,
        "threads": job.threads,
        "streamed": job.streamed,
        "epochs": [epoch.to_json() for epoch in training.epochs],
        "metrics": metrics,
        "seconds": seconds,
    }
    run = save_run(runs_dir, name, body, head.to_files())
    return FinetuneResult(
        run.id,
        str(run.path),
        head,
        job.settings,
        training.epochs,
        training.best_epoch,
        metrics,
        calibration,
        counts,
        job.streamed,
        seconds,
    )
