"""The verb `sweep`: many heads on the same features, one setting chosen on validation rows or folds, never on test."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, UsageError
from pipeline.features import Features
from pipeline.heads.grid import Grid, grid_of
from pipeline.heads.rows import Rows as FeatureRows
from pipeline.heads.settings import HeadSettings
from pipeline.heads.solvers import Problem, problem_of
from pipeline.heads.trials import Trial, run_trials
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.runs import check_name
from pipeline.selection import Rows, choose_folds, choose_rows
from pipeline.store.catalog import find_entry
from pipeline.store.commit import write_json
from pipeline.streaming import Stream, StreamedRows
from pipeline.training import TrainResult, device_for, train_head
from pipeline.views import HowMany, Views, open_for_training

REPORT_SECONDS = 0.1
TABLE = "sweep.json"


@dataclass(frozen=True)
class Candidate:
    """A recipe and how it did over all seeds and folds."""

    settings: HeadSettings
    val_accuracy: float
    """The mean; NaN if a head of it diverged."""
    val_accuracy_std: float | None
    """Over seeds and folds (of n - 1), None for a single head."""
    val_loss: float
    trials: tuple[Trial, ...]

    @property
    def usable(self) -> bool:
        """Whether all its heads ended in numbers."""
        return self.val_loss < float("inf")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; None where heads diverged."""
        figures = {
            "val_accuracy": self.val_accuracy,
            "val_loss": self.val_loss,
            "val_accuracy_std": self.val_accuracy_std,
        }
        return {
            "settings": self.settings.to_json(),
            **(figures if self.usable else dict.fromkeys(figures)),
            "heads": len(self.trials),
        }


@dataclass(frozen=True)
class SweepResult:
    """What was tried, best first, and the run that came of it."""

    cache: str
    candidates: tuple[Candidate, ...]
    """Best first; those of which a head diverged, or did not reach its optimum, last."""
    chosen_by: str
    run: TrainResult
    seconds: float
    """The run included."""

    @property
    def chosen(self) -> Candidate:
        """The best."""
        return self.candidates[0]

    @property
    def table(self) -> Path:
        """The file in the run's folder that keeps what was tried."""
        return Path(self.run.path) / TABLE

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "sweep": str(self.table),
            "cache": self.cache,
            "run": self.run.run,
            "path": self.run.path,
            "chosen": self.chosen.to_json(),
            "chosen_by": self.chosen_by,
            "metrics": self.run.metrics,
            "settings": [candidate.to_json() for candidate in self.candidates],
            "trials": [trial.to_json() for candidate in self.candidates for trial in candidate.trials],
            "heads": sum(len(candidate.trials) for candidate in self.candidates),
            "streamed": self.run.streamed,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is about to do, for people."""

    cache: str
    backbone: str
    dim: int
    classes: int
    train: int
    """Rows that train; with folds each of them also chooses once."""
    val: int
    folds: int
    settings: int
    heads: int
    solver: str
    device: str
    streamed: bool
    views: str
    """How many of what augmentation; empty where plain images train."""


def sweep(
    cache: str | Path = "latest",
    *,
    grid: Grid | None = None,
    settings: HeadSettings | None = None,
    folds: int = 0,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    refit: bool = False,
    views: HowMany = 1,
    augment: str | None = None,
    stream: Stream = "auto",
    device: str = "auto",
    name: str = "",
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
    on_plan: Callable[[SweepPlan], None] | None = None,
    on_progress: OnProgress = ignore,
    command: str | None = None,
    **changes: Any,  # noqa: ANN401 - fields of HeadSettings
) -> SweepResult:
    """Train a head for every point of a grid, choose one by its validation accuracy, and save it as a run.

    Means over seeds and folds decide; of equal ones the lower loss, then the one tried first. The run is the one that
    `train_head` makes with the chosen settings and the first seed. Test rows are not looked at.

    Args:
        cache: a unique prefix of the entry's id, its path, or `latest`.
        grid: what is tried; its fields can also be given by name (`lr=(1e-3, 1e-2)`).
        settings: the rest of the recipe, whose fields can be given by name too (`epochs=20`).
        folds: choose by cross-validation with so many folds; 0 by validation rows. The run is then trained on all.
        val_fraction: share of train rows held out where the source names no validation split and there are no folds.
        split_seed: seed of that draw, and of folds.
        refit: train the run on validation rows too.
        views: as for `train_head`.
        augment: as for `train_head`.
        stream: whether features are read from disk in every pass, or once into memory (`pipeline.streaming`).
        device: where heads are trained.
        name: goes behind the run's number.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        on_plan: called once before training.
        on_progress: called with the heads that are done.
        command: recorded in the run; by default this process's own.
        changes: fields of Grid and of HeadSettings.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    check_name(name)
    grid, base = grid_of(grid, settings, changes)
    tried = grid.settings(base)
    entry = find_entry(Path(cache_dir), str(cache))
    features, x, found = open_for_training(entry, views, augment, stream)
    streamed = isinstance(x, StreamedRows)
    parts = _parts(features, folds, val_fraction, split_seed)
    seeds = grid.seeds if base.solver == "minibatch" else (0,)
    heads = len(tried) * len(seeds) * len(parts)
    where = device_for(device, base)
    if on_plan is not None:
        on_plan(_plan(features, parts, folds, len(tried), heads, base, where.type, found, streamed=streamed))
    placed: FeatureRows = x.to(where)
    problems = [problem_of(features, placed, rows.train, rows.val) for rows in parts]
    trials = _reported(_trials(problems, tried, seeds), heads, on_progress)
    ranked = _ranked(tried, trials)
    best = ranked[0]
    if not best.usable:
        raise _none_usable(best.settings, len(tried))
    by = _chosen_by(folds, len(seeds), parts[0])
    del features, problems, x, placed  # train_head reads them again; they fitted once, and need not fit twice
    run = train_head(
        entry.path,
        settings=best.settings,
        val_fraction=val_fraction,
        split_seed=split_seed,
        refit=refit or bool(folds),
        views=views,
        augment=augment,
        stream="always" if streamed else "never",
        sweep={"settings": len(tried), "heads": heads, "chosen_by": by, "val_accuracy": best.val_accuracy},
        device=device,
        name=name,
        cache_dir=cache_dir,
        runs_dir=runs_dir,
        command=command,
    )
    result = SweepResult(entry.id, tuple(ranked), by, run, time.perf_counter() - started)
    write_json(result.table, result.to_json(), replace=True)
    return result


def _parts(features: Features, folds: int, val_fraction: float, split_seed: int) -> list[Rows]:
    if folds:
        return choose_folds(features, folds, split_seed)
    rows = choose_rows(features, val_fraction=val_fraction, split_seed=split_seed)
    if not len(rows.val):
        raise UsageError("a sweep chooses on validation rows, and there are none", "Give a --val-fraction, or --folds.")
    return [rows]


def _none_usable(settings: HeadSettings, tried: int) -> DataError:
    number = f"{tried:,} setting{'' if tried == 1 else 's'}"
    if settings.solver == "minibatch":
        return DataError(f"heads of all {number} diverged", "Lower rates: --lr 1e-5,1e-4. Are the features finite?")
    return DataError(
        f"the optimum was reached for none of {number}",
        "Stronger regularisation: --l2 1e-3,1e-2, on --transforms standardize.",
    )


def _reported(trials: Iterator[Trial], heads: int, on_progress: OnProgress) -> list[Trial]:
    found: list[Trial] = []
    on_progress(Progress(0, heads))
    reported = time.perf_counter()
    for trial in trials:
        found.append(trial)
        # Heads trained together come all at once.
        if time.perf_counter() - reported > REPORT_SECONDS or len(found) == heads:
            on_progress(Progress(len(found), heads, computed=len(found)))
            reported = time.perf_counter()
    return found


def _trials(problems: list[Problem[FeatureRows]], tried: list[HeadSettings], seeds: Sequence[int]) -> Iterator[Trial]:
    """Train everything; heads that share rows, seed and transform together."""
    by_transform: dict[tuple[bool, bool], list[int]] = {}
    for place, one in enumerate(tried):
        by_transform.setdefault((one.l2_norm, one.standardize), []).append(place)
    for fold, problem in enumerate(problems):
        for places in by_transform.values():
            for trial in run_trials(problem, [tried[place] for place in places], seeds):
                yield replace(trial, place=places[trial.place], fold=fold if len(problems) > 1 else None)


def _ranked(tried: list[HeadSettings], trials: list[Trial]) -> list[Candidate]:
    import numpy as np

    by_place: list[list[Trial]] = [[] for _ in tried]
    for trial in trials:
        by_place[trial.place].append(trial)
    found = []
    for settings, own in zip(tried, by_place, strict=True):
        accuracies = [trial.val_accuracy for trial in own]
        loss = float(np.mean([trial.val_loss for trial in own]))
        spread = float(np.std(accuracies, ddof=1)) if len(own) > 1 else None
        usable = bool(np.isfinite(loss))
        found.append(
            Candidate(settings, float(np.mean(accuracies)), spread, loss if usable else float("inf"), tuple(own))
        )
    return sorted(found, key=lambda one: (not one.usable, -one.val_accuracy, one.val_loss))


def _chosen_by(folds: int, seeds: int, rows: Rows) -> str:
    over = f"{folds} folds" if folds else f"{len(rows.val):,} validation rows"
    return f"accuracy on {over}" + (f", mean of {seeds} seeds" if seeds > 1 else "")


def _plan(
    features: Features,
    parts: list[Rows],
    folds: int,
    settings: int,
    heads: int,
    base: HeadSettings,
    device: str,
    views: Views | None,
    *,
    streamed: bool,
) -> SweepPlan:
    return SweepPlan(
        features.cache,
        str(features.space["architecture"]),
        features.x.shape[1],
        len(features.classes),
        len(parts[0].train) + (len(parts[0].val) if folds else 0),
        0 if folds else len(parts[0].val),
        folds,
        settings,
        heads,
        base.solver,
        device,
        streamed,
        "" if views is None else str(views),
    )
