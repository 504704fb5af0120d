"""The verb `compare`: recipes side by side on the same test rows, from what `evaluate` kept; no feature is read."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import CacheError, DataError, UsageError, nearest
from pipeline.heads.files import DESCRIPTION, TAIL, WEIGHTS
from pipeline.intervals import LOWER_IS_BETTER, METRICS, RESAMPLES, value_of
from pipeline.outcomes import Outcomes, evaluate_command, read_outcomes
from pipeline.paired import Standing, aligned, row_keys, standings
from pipeline.runs import Run, check_run, find_run, group_id, list_runs, open_run, read_evaluations
from pipeline.store.commit import read_json
from pipeline.store.entry import open_entry


@dataclass(frozen=True)
class Cost:
    """What a recipe takes."""

    extraction_seconds: float | None
    """Of all rows of the entry, added up over processes; None where the entry is gone or does not say."""
    training_seconds: float
    """Of one run, the mean over seeds."""
    dim: int
    """Width of a feature row."""
    head_bytes: int


@dataclass(frozen=True)
class Line:
    """A run, or all seeds of one recipe."""

    runs: tuple[Run, ...]
    standing: Standing
    values: tuple[float, ...]
    """The metric of each run."""
    val_accuracy: float | None
    """On validation rows, the mean over seeds; None where one has none."""
    cost: Cost

    @property
    def std(self) -> float | None:
        """Standard deviation (of n - 1) over seeds, None of a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        first = self.runs[0].body
        return {
            "runs": [run.id for run in self.runs],
            "backbone": first["backbone"]["name"],
            "cache": first["cache"]["id"],
            "settings": first["settings"],
            "values": list(self.values),
            "std": self.std,
            "val_accuracy": self.val_accuracy,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.standing).items()},
            **asdict(self.cost),
        }


@dataclass(frozen=True)
class ComparisonResult:
    """All that were compared, best first."""

    metric: str
    n: int
    """Test rows."""
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]
    """Runs that were not named, and are not comparable: not evaluated, or on other test rows."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "metric": self.metric,
            "n": self.n,
            "resamples": RESAMPLES,
            "correction": "Holm",
            "lines": [line.to_json() for line in self.lines],
            "left_out": list(self.left_out),
        }


def compare(
    runs: Sequence[str | Path] = (),
    *,
    metric: str = "accuracy",
    cache: str | None = None,
    runs_dir: str | Path = "runs",
) -> ComparisonResult:
    """Rank runs by a metric on the test rows that all were measured on.

    Intervals and p are of these rows: they say what other rows of the same kind might have shown, not what other
    training rows might have. The best is the best of those shown, which flatters it a little.

    Args:
        runs: at least two, each a unique prefix, a path, or `latest`; none are all with an evaluation on the test rows
            of the latest that has one.
        metric: `accuracy`, `balanced_accuracy`, `macro_f1`, `nll`, `brier` or `ece`.
        cache: of evaluations on several entries (`evaluate --cache`), those on the one whose id begins so.
        runs_dir: where runs are kept.

    Raises:
        UsageError: if the metric is unknown or there are not two recipes.
        DataError: if a run was not evaluated, or two on different rows.
    """
    if metric not in METRICS:
        raise UsageError(f"unknown metric {metric!r}.{nearest(metric, METRICS)}", f"Known: {', '.join(METRICS)}")
    root = Path(runs_dir)
    left_out: list[str] = []
    if runs:
        named = list({run.path.resolve(): run for run in (find_run(root, str(name)) for name in runs)}.values())
        pairs = [(run, read_outcomes(run, _evaluation(run, cache))) for run in named]
    else:
        pairs, left_out = _comparable(root, cache)
    for run, _ in pairs:
        check_run(run)
    ordered = aligned([outcomes for _, outcomes in pairs], [run.id for run, _ in pairs]) if pairs else []
    grouped: dict[str, list[tuple[Run, Outcomes]]] = {}
    for (run, _), outcomes in zip(pairs, ordered, strict=True):
        grouped.setdefault(group_id(run) or str(run.path), []).append((run, outcomes))
    groups = list(grouped.values())
    if len(groups) < 2:
        raise UsageError(
            f"comparing takes two evaluated recipes, and there {'is one' if groups else 'are none'}"
            + (f" under {root}" if not runs else ""),
            "Name another, or none to compare all that were measured."
            if runs
            else _how_to_get_another(root, left_out, bool(groups)),
        )
    stands = standings([[outcomes for _, outcomes in group] for group in groups], metric)
    sign = 1 if metric in LOWER_IS_BETTER else -1
    made = [_line(group, stand, metric) for group, stand in zip(groups, stands, strict=True)]
    lines = sorted(made, key=lambda line: (line.standing.difference is not None, sign * line.standing.value))
    return ComparisonResult(metric, len(ordered[0]), tuple(lines), tuple(left_out))


def _how_to_get_another(root: Path, left_out: Sequence[str], one_is_there: bool) -> str:
    if left_out:
        command = evaluate_command(open_run(root / left_out[-1]), "test")
        what = "not measured, or on other test rows" if one_is_there else "not measured"
        return f"Measure another: {command}. Left out, {what}: {', '.join(left_out[-5:])}"
    return "Train another head and measure it: pipeline train-head CACHE, pipeline evaluate latest"


def _evaluation(run: Run, cache: str | None) -> str:
    """Return the name of a run's evaluation on an entry's test rows."""
    if cache is None or str(run.body["cache"]["id"]).startswith(cache):
        return "test"
    other = [name for name in read_evaluations(run) if name.startswith(f"test-{cache}")]
    return other[0] if other else f"test-{cache}"


def _comparable(root: Path, cache: str | None) -> tuple[list[tuple[Run, Outcomes]], list[str]]:
    """Return the runs on the test rows of the latest that was evaluated, and the ids of the others."""
    found, left_out = [], []
    for run in list_runs(root):
        try:
            found.append((run, read_outcomes(run, _evaluation(run, cache))))
        except DataError:
            left_out.append(run.id)
    if not found:
        return [], left_out
    wanted = Counter(row_keys(found[-1][1]))
    kept = [(run, one) for run, one in found if Counter(row_keys(one)) == wanted]
    there = {run.id for run, _ in kept}
    return kept, sorted([*left_out, *(run.id for run, _ in found if run.id not in there)])


def _line(group: list[tuple[Run, Outcomes]], standing: Standing, metric: str) -> Line:
    runs = tuple(run for run, _ in group)
    values = tuple(value_of(one, metric) for _, one in group)
    metrics = [run.body["metrics"] for run in runs]
    val = None if None in metrics else statistics.fmean(one["accuracy"] for one in metrics)
    return Line(runs, standing, values, val, _cost(runs))


def _cost(runs: tuple[Run, ...]) -> Cost:
    first = runs[0]
    try:
        dim, size = int(read_json(first.path / DESCRIPTION)["dim"]), (first.path / WEIGHTS).stat().st_size
        size += (first.path / TAIL).stat().st_size if (first.path / TAIL).exists() else 0
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is not there: run {first.id} has no head", "Compare other runs.") from error
    seconds = statistics.fmean(float(run.body.get("seconds", 0.0)) for run in runs)
    return Cost(_extraction_seconds(first), seconds, dim, size)


def _extraction_seconds(run: Run) -> float | None:
    try:
        entry = open_entry(Path(run.body["cache"]["path"]))
    except CacheError:
        return None
    seconds = [shard.get("facts", {}).get("seconds") for shard in entry.shards]
    return None if None in seconds else float(sum(seconds))
