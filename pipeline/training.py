"""The verb `train-head`: from a cache entry to a run."""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.backbones.engines import cpu_threads
from pipeline.device import resolve_device
from pipeline.errors import UsageError
from pipeline.features import Features, read_features
from pipeline.heads.fit import fit_head
from pipeline.heads.head import Head
from pipeline.heads.minibatch import Epoch, threads_for
from pipeline.heads.settings import HeadSettings
from pipeline.metrics import classification_metrics
from pipeline.runs import check_name, save_run
from pipeline.selection import Rows, choose_rows
from pipeline.store.catalog import find_entry
from pipeline.store.entry import Entry
from pipeline.versions import versions


@dataclass(frozen=True)
class TrainResult:
    """A trained head and what is known of it; `to_json` has the fields other programs rely on."""

    run: str
    path: str
    head: Head
    epochs: list[Epoch]
    metrics: dict[str, Any] | None
    """On validation rows; None without any. Never the test split's."""
    rows: dict[str, int]
    seconds: float
    solver: dict[str, Any]
    """What the solver says of itself: steps and gradient of `exact`, alpha of `ridge`, the best epoch."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "run": self.run,
            "path": self.path,
            "epochs": [epoch.to_json() for epoch in self.epochs],
            "metrics": self.metrics,
            "rows": self.rows,
            "seconds": self.seconds,
            "solver": self.solver,
        }


@dataclass(frozen=True)
class TrainPlan:
    """What a training is about to do, for people."""

    cache: str
    backbone: str
    dim: int
    classes: int
    train: int
    val: int
    val_rule: str
    settings: HeadSettings
    device: str
    threads: int


def train_head(
    cache: str | Path = "latest",
    *,
    settings: HeadSettings | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    device: str = "auto",
    name: str = "",
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
    on_plan: Callable[[TrainPlan], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    command: str | None = None,
    **changes: Any,  # noqa: ANN401 - fields of HeadSettings
) -> TrainResult:
    """Train a head on a cache entry and save it as a run.

    Args:
        cache: a unique prefix of the entry's id, its path, or `latest`.
        settings: the recipe; its fields can also be given by name (`lr=0.01, epochs=20`).
        val_fraction: share of train rows held out where the source names no validation split.
        split_seed: seed of that draw.
        device: where the head is trained.
        name: goes behind the run's number.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        on_plan: called once before training.
        on_epoch: called after every epoch.
        command: recorded in the run; by default this process's own.
        changes: fields of HeadSettings.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    check_name(name)
    settings = _changed(settings or HeadSettings(), changes)
    entry = find_entry(Path(cache_dir), str(cache))
    features = read_features(entry)
    if features.x.ndim != 2:
        raise UsageError(f"cache entry {entry.id} holds rows {tuple(features.x.shape[1:])}, a head needs (d,)")
    rows = choose_rows(features, val_fraction=val_fraction, split_seed=split_seed)
    where = resolve_device(device)
    threads = _threads(settings, features)
    if on_plan is not None:
        on_plan(_plan(features, rows, settings, where.type, threads))
    with cpu_threads(threads):
        fitted = fit_head(features, rows.train, rows.val, settings, where, on_epoch)
    head, epochs = fitted.head, fitted.epochs
    solver = {"name": settings.solver, **fitted.report}
    metrics = None
    if len(rows.val):
        metrics = classification_metrics(
            head.logits(features.x[rows.val]).numpy(), features.y[rows.val].numpy(), features.classes
        )
    seconds = time.perf_counter() - started
    counts = {"train": len(rows.train), "val": len(rows.val)}
    body = {
        **_origin(features, entry, name, command),
        "settings": settings.to_json(),
        "rows": counts,
        "val_rule": rows.rule,
        "device": where.type,
        "threads": threads,
        "epochs": [epoch.to_json() for epoch in epochs],
        "solver": solver,
        "metrics": metrics,
        "seconds": seconds,
    }
    run = save_run(Path(runs_dir), name, body, head.to_files())
    return TrainResult(run.id, str(run.path), head, epochs, metrics, counts, seconds, solver)


def save_head(
    head: Head,
    features: Features,
    *,
    name: str = "",
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
    command: str | None = None,
) -> str:
    """Save a head that other code trained on features of the cache as a run, and return the run's id.

    `evaluate`, `predict`, `export` and `fuse` then take it like any other.

    Args:
        head: a `LinearHead` or `MlpHead` with the features' classes, `space` and `space_sha256`.
        features: what it was trained on, as `open_cache` gave them.
        name: goes behind the run's number.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        command: recorded in the run; by default this process's own.

    Raises:
        UsageError: if the head is not bound to these features, or its tensors do not fit them.
        CacheError: if their entry is gone.
    """
    check_name(name)
    bound = (head.classes, head.space_sha256) == (features.classes, features.space_sha256)
    if not bound or not features.cache:
        raise UsageError(
            "the head is not bound to these features",
            "Make it with features.classes, features.space and features.space_sha256, of features from open_cache.",
        )
    try:
        fits = head.logits(features.x[:1]).shape == (1, len(features.classes))
    except RuntimeError:
        fits = False
    if not fits:
        raise UsageError(
            f"the head does not map {features.x.shape[1]} features to {len(features.classes)} logits",
            "weight is (classes, features), bias (classes,), both float32.",
        )
    entry = find_entry(Path(cache_dir), features.cache)
    body = {
        **_origin(features, entry, name, command),
        "settings": {"solver": "yours", "optimizer": "yours", "lr": 0.0, "epochs": 0},
        "metrics": None,
    }
    return save_run(Path(runs_dir), name, body, head.to_files()).id


def _origin(features: Features, entry: Entry, name: str, command: str | None) -> dict[str, Any]:
    """Return the fields of a run that say what its head was trained on, where and when."""
    return {
        "name": name,
        "cache": {"id": entry.id, "path": str(entry.path.resolve()), "manifest_sha256": entry.digest},
        "source": entry.manifest["source"],
        "backbone": entry.manifest["backbone"],
        "space_sha256": features.space_sha256,
        "classes": list(features.classes),
        "versions": versions(),
        "command": command if command is not None else shlex.join(["pipeline", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _threads(settings: HeadSettings, features: Features) -> int:
    """Return CPU threads: few for many small products, torch's own number for a few large ones."""
    if settings.solver != "minibatch":
        return 0
    return threads_for(settings.batch_size, features.x.shape[1], max(settings.hidden, len(features.classes)))


def _changed(settings: HeadSettings, changes: dict[str, Any]) -> HeadSettings:
    unknown = sorted(set(changes) - set(settings.to_json()))
    if unknown:
        raise UsageError(f"unknown head setting {unknown[0]!r}", f"Known: {', '.join(settings.to_json())}")
    return HeadSettings(**{**settings.to_json(), **changes})


def _plan(features: Features, rows: Rows, settings: HeadSettings, device: str, threads: int) -> TrainPlan:
    rule = "named by the source" if rows.rule is None else "drawn from train by content hash"
    return TrainPlan(
        features.cache,
        str(features.space["architecture"]),
        features.x.shape[1],
        len(features.classes),
        len(rows.train),
        len(rows.val),
        rule if len(rows.val) else "none",
        settings,
        device,
        threads,
    )
