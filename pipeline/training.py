"""The verb `train-head`: from a cache entry to a run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.calibration import Calibration, vote_smoothing
from pipeline.device import resolve_device
from pipeline.errors import UsageError
from pipeline.features import Features
from pipeline.heads.calibration import fit_temperature, fit_vote_temperature
from pipeline.heads.head import Head
from pipeline.heads.minibatch import Epoch
from pipeline.heads.neighbours import NeighboursHead
from pipeline.heads.rows import logits_of, pick
from pipeline.heads.settings import HeadSettings
from pipeline.heads.solvers import Problem, Solved, problem_of, solve_head, solver_threads
from pipeline.heads.viewed import ViewedRows
from pipeline.metrics import classification_metrics
from pipeline.runs import check_name, save_run
from pipeline.saving import provenance
from pipeline.selection import Rows, choose_rows
from pipeline.store.catalog import find_entry
from pipeline.store.entry import Entry
from pipeline.streaming import Stream, StreamedRows
from pipeline.threads import cpu_threads
from pipeline.views import HowMany, Views, open_for_training

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainResult:
    """A trained head and what is known of it; `to_json` has the fields other programs rely on."""

    run: str
    path: str
    head: Head
    settings: HeadSettings
    """As asked, with values that were chosen on validation rows."""
    solver: dict[str, Any]
    """What the solver says of its work; docs/HEADS.md lists the fields."""
    epochs: list[Epoch]
    """Of a solver without epochs: one, the finished head; none for k-NN."""
    metrics: dict[str, Any] | None
    """On validation rows; None without any. Never the test split's."""
    calibration: dict[str, Any] | None
    """`temperature` and `smoothing` of `calibration.Calibration`, the `rows` it was fitted on, and which these were;
    None without any."""
    rows: dict[str, int]
    streamed: bool
    """Whether features stayed on disk."""
    seconds: float
    views: dict[str, Any] | None = None
    """`count`, `augment` and `entries` of the views that trained; None where plain images did."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "run": self.run,
            "path": self.path,
            "epochs": [epoch.to_json() for epoch in self.epochs],
            "metrics": self.metrics,
            "calibration": self.calibration,
            "settings": self.settings.to_json(),
            "solver": self.solver,
            "rows": self.rows,
            "streamed": self.streamed,
            **({"views": self.views} if self.views is not None else {}),
            "seconds": self.seconds,
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
    streamed: bool
    views: str
    """How many of what augmentation; empty where plain images train."""


def train_head(
    cache: str | Path = "latest",
    *,
    settings: HeadSettings | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    refit: bool = False,
    views: HowMany = 1,
    augment: str | None = None,
    sweep: dict[str, Any] | None = None,
    stream: Stream = "auto",
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
        refit: train on validation rows too, once everything is chosen; there are no validation figures then. The
            temperature is that of one more head of the same settings, trained without rows that are drawn as above.
        views: train on so many views of each image, or `all` there are: a minibatch head draws one a row and epoch,
            other solvers take all as rows. Validation rows, and all that is measured, are plain images.
        augment: of which augmentation, where the entry has views of several.
        sweep: what the run is to say of the sweep that chose its settings, as plain JSON fields.
        stream: whether features are read from disk in every pass, or once into memory (`pipeline.streaming`).
        device: where the head is trained.
        name: goes behind the run's number.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        on_plan: called once before training.
        on_epoch: called after every epoch; never by solvers that have none.
        command: recorded in the run; by default this process's own.
        changes: fields of HeadSettings.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    check_name(name)
    settings = HeadSettings.of(settings, **changes)
    opened = open_training(
        cache,
        val_fraction=val_fraction,
        split_seed=split_seed,
        refit=refit,
        views=views,
        augment=augment,
        stream=stream,
        cache_dir=cache_dir,
    )
    return train_opened(
        opened,
        settings,
        more={} if sweep is None else {"sweep": sweep},
        device=device,
        name=name,
        runs_dir=runs_dir,
        on_plan=on_plan,
        on_epoch=on_epoch,
        command=command,
        started=started,
    )


@dataclass(frozen=True, eq=False)
class Opened:
    """An entry's features, read once, and which of its rows train."""

    entry: Entry
    features: Features
    x: "torch.Tensor | StreamedRows | ViewedRows"
    rows: Rows
    held_out: Rows
    """The same where there are validation rows; of a refit, the rows of the head that its temperature comes from."""
    views: Views | None = None
    """The entries of the views that train; None where plain images do."""


def open_training(
    cache: str | Path,
    *,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    refit: bool = False,
    views: HowMany = 1,
    augment: str | None = None,
    stream: Stream = "auto",
    cache_dir: str | Path = "cache",
) -> Opened:
    """Read an entry and choose its rows, as `train_head` does."""
    entry = find_entry(Path(cache_dir), str(cache))
    features, x, found = open_for_training(entry, views, augment, stream)
    held_out = choose_rows(features, val_fraction=val_fraction, split_seed=split_seed)
    rows = choose_rows(features, refit=True) if refit else held_out
    return Opened(entry, features, x, rows, held_out, found)


def train_opened(
    opened: Opened,
    settings: HeadSettings,
    *,
    more: Mapping[str, Any],
    device: str,
    name: str,
    runs_dir: str | Path,
    on_plan: Callable[[TrainPlan], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    command: str | None = None,
    started: float | None = None,
) -> TrainResult:
    """Train a head on what is opened already and save it as a run; `more` are further fields of the run."""
    started = time.perf_counter() if started is None else started
    features, x, rows = opened.features, opened.x, opened.rows
    streamed = isinstance(x, StreamedRows)
    where = device_for(device, settings)
    threads = solver_threads(settings, len(rows.train), features.x.shape[1], len(features.classes))
    if on_plan is not None:
        on_plan(_plan(opened, settings, where.type, threads))
    problem: Problem[Any] = problem_of(features, x.to(where), rows.train, rows.val)
    with cpu_threads(threads):
        solved = solve_head(problem, settings, on_epoch)
        held_out, logits = _held_out(opened, problem, solved)
    metrics = None
    if len(rows.val):
        metrics = classification_metrics(logits, features.y[rows.val].numpy(), features.classes)
    calibration = _calibration(features, held_out, logits, solved.head, refitted=opened.held_out is not rows)
    seconds = time.perf_counter() - started
    counts = {"train": len(rows.train), "val": len(rows.val)}
    body = {
        **provenance(opened.entry, solved.head, name, command),
        "settings": solved.settings.to_json(),
        "solver": solved.facts,
        "rows": counts,
        "val_rule": rows.rule,
        **more,
        "calibration": calibration,
        "device": where.type,
        "threads": threads,
        "streamed": streamed,
        **({"views": opened.views.to_json()} if opened.views is not None else {}),
        "epochs": [epoch.to_json() for epoch in solved.epochs],
        "metrics": metrics,
        "seconds": seconds,
    }
    run = save_run(Path(runs_dir), name, body, solved.head.to_files())
    return TrainResult(
        run.id,
        str(run.path),
        solved.head,
        solved.settings,
        solved.facts,
        solved.epochs,
        metrics,
        calibration,
        counts,
        streamed,
        seconds,
        opened.views.to_json() if opened.views is not None else None,
    )


def _held_out(opened: Opened, problem: "Problem[Any]", solved: Solved) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (m,) that a head of these settings did not train on, and its logits (m, c) of them.

    That is the head itself, and after a refit, which leaves no such rows, another.
    """
    rows = opened.held_out
    if not len(rows.val):
        return rows.val, np.empty((0, len(problem.classes)), np.float32)
    head = solved.head
    if rows is not opened.rows:
        head = solve_head(replace(problem, train=rows.train, val=rows.val), solved.settings).head
    return rows.val, logits_of(head, pick(opened.x, rows.val))


def _calibration(
    features: Features, rows: np.ndarray, logits: np.ndarray, head: Head, *, refitted: bool
) -> dict[str, Any] | None:
    import torch

    if not len(rows):
        return None
    y = features.y[rows]
    smoothing = vote_smoothing(head.k) if isinstance(head, NeighboursHead) else 0.0
    fit = fit_vote_temperature if smoothing else fit_temperature
    return {
        "temperature": fit(torch.from_numpy(Calibration(smoothing=smoothing).scale(logits)), y),
        "smoothing": smoothing,
        "rows": len(rows),
        "fitted_on": "validation rows, by a head trained without them" if refitted else "validation rows",
    }


def device_for(asked: str, settings: HeadSettings) -> "torch.device":
    """Return the device for these settings.

    Apple's GPUs have no float64, which all but the plain minibatch recipe need.
    """
    where = resolve_device(asked)
    if where.type != "mps" or (settings.solver == "minibatch" and not settings.standardize):
        return where
    if asked != "auto":
        raise UsageError(f"--device {asked} has no float64, which these settings need", "Use --device cpu.")
    return resolve_device("cpu")


def _plan(opened: Opened, settings: HeadSettings, device: str, threads: int) -> TrainPlan:
    features, rows, views = opened.features, opened.rows, opened.views
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
        isinstance(opened.x, StreamedRows),
        "" if views is None else str(views),
    )
