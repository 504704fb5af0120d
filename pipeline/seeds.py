"""One recipe with several seeds: how much of a figure is luck of the draw."""

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.evaluation import EvaluateResult, evaluate
from pipeline.heads.settings import HeadSettings
from pipeline.runs import Run, check_name, find_run, group_id, list_runs
from pipeline.streaming import Stream
from pipeline.training import TrainPlan, TrainResult, open_training, train_opened
from pipeline.views import HowMany

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spread:
    """Means and standard deviations (of n - 1) of figures over seeds."""

    mean: dict[str, float]
    std: dict[str, float]

    @classmethod
    def of(cls, figures: Sequence[dict[str, Any] | None]) -> "Spread":
        """Take the numbers that every one of some metrics, at least two, has; none where one of them is missing."""
        known = [one for one in figures if one is not None]
        if not known or len(known) < len(figures):
            return cls({}, {})
        names = [name for name, value in known[0].items() if isinstance(value, float)]
        table = np.array([[one[name] for name in names] for one in known]).reshape(len(known), len(names))
        mean, std = table.mean(axis=0).tolist(), table.std(axis=0, ddof=1).tolist()
        return cls(dict(zip(names, mean, strict=True)), dict(zip(names, std, strict=True)))


@dataclass(frozen=True)
class SeedsTrained:
    """Runs of one recipe, by seed."""

    runs: tuple[TrainResult, ...]
    group: str

    @property
    def spread(self) -> Spread:
        """Of validation metrics."""
        return Spread.of([run.metrics for run in self.runs])

    def to_json(self) -> dict[str, Any]:
        """Return the first run's fields, and beside them `group`, `seeds`, `mean` and `std`."""
        each = [{"run": run.run, "seed": run.settings.seed, "metrics": run.metrics} for run in self.runs]
        spread = self.spread
        return {
            **self.runs[0].to_json(),
            "group": self.group,
            "seeds": each,
            "mean": spread.mean,
            "std": spread.std,
        }


@dataclass(frozen=True)
class SeedsEvaluated:
    """Evaluations of all runs of one recipe, by seed."""

    results: tuple[EvaluateResult, ...]
    seeds: tuple[int, ...]

    @property
    def spread(self) -> Spread:
        """Of their metrics."""
        return Spread.of([result.metrics for result in self.results])

    def to_json(self) -> dict[str, Any]:
        """Return the first evaluation's fields, and beside them `seeds`, `mean` and `std`."""
        pairs = zip(self.results, self.seeds, strict=True)
        each = [{"run": result.run, "seed": seed, "metrics": result.metrics} for result, seed in pairs]
        spread = self.spread
        return {**self.results[0].to_json(), "seeds": each, "mean": spread.mean, "std": spread.std}


def train_seeds(
    cache: str | Path = "latest",
    *,
    seeds: int = 5,
    settings: HeadSettings | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    views: HowMany = 1,
    augment: str | None = None,
    stream: Stream = "auto",
    device: str = "auto",
    name: str = "",
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
    on_plan: Callable[[TrainPlan], None] | None = None,
    on_run: Callable[[TrainResult], None] | None = None,
    command: str | None = None,
    **changes: Any,  # noqa: ANN401 - fields of HeadSettings
) -> SeedsTrained:
    """Train so many runs of one recipe, the seed rising by one from the recipe's own.

    Each is the run that `train_head` makes with its seed, bit for bit; features are read once. They are one group:
    `compare` shows them as one line, `evaluate_seeds` measures them together.

    Args:
        cache: as for `train_head`, and so is all that is not named here.
        seeds: how many, at least 2.
        settings: the recipe of the first.
        val_fraction: the same rows for all.
        split_seed: of that draw.
        views: as for `train_head`.
        augment: as for `train_head`.
        stream: as for `train_head`.
        device: where heads are trained.
        name: goes behind each run's number.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        on_plan: called once, with the first's.
        on_run: called after every run.
        command: recorded in the runs.
        changes: fields of HeadSettings.

    Raises:
        UsageError: if the solver draws nothing at random; and as `train_head`.
    """
    check_name(name)
    first = HeadSettings.of(settings, **changes)
    if first.solver != "minibatch":
        raise UsageError(
            f"--solver {first.solver} draws nothing at random: every seed gives the same head", "Leave out --seeds."
        )
    if seeds < 2:
        raise UsageError(f"--seeds must be at least 2, not {seeds}", "One seed is a plain train-head with --seed.")
    replace(first, seed=first.seed + seeds - 1)  # refused now, rather than after the others are trained
    opened = open_training(
        cache,
        val_fraction=val_fraction,
        split_seed=split_seed,
        views=views,
        augment=augment,
        stream=stream,
        cache_dir=cache_dir,
    )
    group, made = secrets.token_hex(8), []
    for number in range(seeds):
        result = train_opened(
            opened,
            replace(first, seed=first.seed + number),
            more={"group": {"id": group, "of": seeds}},
            device=device,
            name=name,
            runs_dir=runs_dir,
            on_plan=on_plan if not number else None,
            command=command,
        )
        made.append(result)
        if on_run is not None:
            on_run(result)
    return SeedsTrained(tuple(made), group)


def evaluate_seeds(run: str | Path = "latest", *, runs_dir: str | Path = "runs", **options: Any) -> SeedsEvaluated:  # noqa: ANN401 - of `evaluate`
    """Measure all runs of the group that a run belongs to; `options` are those of `evaluate`.

    Raises:
        DataError: if the run belongs to no group, or no other of it is left; and as `evaluate`.
    """
    members = group_of(find_run(Path(runs_dir), str(run)))
    asked = members[0].body["group"].get("of")
    if len(members) < 2:
        raise DataError(
            f"run {members[0].id} is all that is left of {asked} seeds", "Leave out --seeds, or train with --seeds 5."
        )
    if len(members) != asked:
        logger.warning("%d of %s seeds are there: training was stopped, or runs were removed", len(members), asked)
    results = tuple(evaluate(member.path, runs_dir=runs_dir, **options) for member in members)
    return SeedsEvaluated(results, tuple(member.body["settings"]["seed"] for member in members))


def group_of(run: Run) -> list[Run]:
    """Return the runs trained together with this one, itself among them, in order.

    Raises:
        DataError: if it was trained alone.
    """
    group = group_id(run)
    if group is None:
        raise DataError(
            f"run {run.id} was trained alone, with no other seeds", "Leave out --seeds, or train with --seeds 5."
        )
    return [other for other in list_runs(run.path.parent) if group_id(other) == group]
