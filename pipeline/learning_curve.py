"""The verb `learn-curve`: accuracy over the number of training images, on validation rows. Does more data help?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.extrapolation import Extrapolation, Verdict, extrapolate, paired_gain, verdict_of
from pipeline.features import Features
from pipeline.findings import CURVE, read_finding, write_finding
from pipeline.heads.rows import logits_of, pick
from pipeline.heads.settings import HeadSettings, width_neutral
from pipeline.heads.solvers import Problem, problem_of, solve_head, solver_threads
from pipeline.metrics import wilson_interval
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.selection import Rows, choose_rows
from pipeline.store.catalog import find_entry
from pipeline.streaming import features_in_memory
from pipeline.subsets import TrainingSize, draw_subsets, training_sizes
from pipeline.threads import cpu_threads
from pipeline.training import device_for

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CurvePoint:
    """A training-set size and how its heads did on validation rows."""

    size: TrainingSize
    accuracies: tuple[float, ...]
    """One a draw; a single one where all train rows train, and nothing is drawn."""
    seconds: float
    """Of all its heads."""

    @property
    def mean(self) -> float:
        """Over draws."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float | None:
        """Over draws (of n - 1), None for a single one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "rows": self.size.rows,
            "shots": self.size.shots,
            "fraction": self.size.fraction,
            "draws": len(self.accuracies),
            "val_accuracy": self.mean,
            "val_accuracy_std": self.std,
            "val_accuracies": list(self.accuracies),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class CurveResult:
    """A learning curve, smallest size first, and what it says."""

    cache: str
    manifest_sha256: str
    """Of the entry, which names these very bytes."""
    settings: HeadSettings
    points: tuple[CurvePoint, ...]
    val_rows: int
    val_ci95: tuple[float, float]
    """Wilson interval of the accuracy at the largest size: how far all of the curve may lie from that of new images."""
    last_gain: float | None
    """Measured between the last two sizes, None for a single size."""
    last_gain_ci95: tuple[float, float] | None
    extrapolation: Extrapolation | None
    why_none: str | None
    """Why there is no extrapolation."""
    seconds: float

    @property
    def verdict(self) -> Verdict | None:
        """Whether twice the images would help: None where nothing can be foretold."""
        return None if self.extrapolation is None else verdict_of(self.extrapolation.gain_ci95)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "cache": self.cache,
            "manifest_sha256": self.manifest_sha256,
            "settings": self.settings.to_json(),
            "measured_on": "validation rows",
            "val_rows": self.val_rows,
            "val_ci95": list(self.val_ci95),
            "points": [point.to_json() for point in self.points],
            "last_gain": self.last_gain,
            "last_gain_ci95": None if self.last_gain_ci95 is None else list(self.last_gain_ci95),
            "extrapolation": None if self.extrapolation is None else self.extrapolation.to_json(),
            "no_extrapolation": self.why_none,
            "verdict": self.verdict,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class CurvePlan:
    """What is about to be trained, for people."""

    cache: str
    backbone: str
    dim: int
    classes: int
    train: int
    val: int
    sizes: tuple[int, ...]
    heads: int
    settings: HeadSettings
    device: str


def learn_curve(
    cache: str | Path = "latest",
    *,
    shots: Sequence[int] | None = None,
    fractions: Sequence[float] | None = None,
    draws: int = 5,
    seed: int = 0,
    settings: HeadSettings | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    device: str = "auto",
    cache_dir: str | Path = "cache",
    on_plan: Callable[[CurvePlan], None] | None = None,
    on_progress: OnProgress = ignore,
    **changes: Any,  # noqa: ANN401 - fields of HeadSettings
) -> CurveResult:
    """Train heads on more and more of the train rows and measure each on the same validation rows.

    By default the head is that of `heads.settings.width_neutral`, which favours no size. In each draw the larger
    sets hold the smaller. Nothing is saved, and test rows are not looked at.

    Args:
        cache: a unique prefix of the entry's id, its path, or `latest`.
        shots: images a class to try; by default, as with `fractions`, see `pipeline.subsets.training_sizes`.
        fractions: shares of the train rows to try.
        draws: heads a size, each on images of its own draw.
        seed: of the first draw, and of its minibatch heads; the next have the next.
        settings: another head; its fields can be given by name too (`C=0.1`; `solver="minibatch", epochs=20`).
        val_fraction: share of train rows held out where the source names no validation split.
        split_seed: seed of that draw.
        device: where heads are trained.
        cache_dir: the cache root.
        on_plan: called once before training.
        on_progress: called with the heads that are done.
        changes: fields of HeadSettings.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    if draws < 1:
        raise UsageError(f"draws must be at least 1, not {draws}")
    if seed < 0:
        raise UsageError(f"seed must be at least 0, not {seed}")
    features = features_in_memory(find_entry(Path(cache_dir), str(cache)), "a learning curve")
    recipe = _recipe(settings, changes, features.x.shape[1])
    rows = choose_rows(features, val_fraction=val_fraction, split_seed=split_seed)
    if not len(rows.val):
        raise UsageError(
            "a learning curve is measured on validation rows, and there are none",
            "Give a larger --val-fraction, or another --split-seed.",
        )
    y = features.y.numpy()
    sizes = training_sizes(np.bincount(y[rows.train], minlength=len(features.classes)).tolist(), shots, fractions)
    where = device_for(device, recipe)
    heads = sum(_draws_of(size, rows, recipe, draws) for size in sizes)
    if on_plan is not None:
        on_plan(_plan(features, rows, sizes, heads, recipe, where.type))
    problem = problem_of(features, features.x.to(where), rows.train, rows.val)
    right, seconds = _train(
        problem,
        y,
        sizes,
        [_draws_of(size, rows, recipe, draws) for size in sizes],
        recipe,
        seed,
        _Counter(heads, on_progress),
    )
    points = tuple(
        CurvePoint(size, tuple(float(mean) for mean in hits.mean(axis=1)), spent)
        for size, hits, spent in zip(sizes, right, seconds, strict=True)
    )
    return _result(features, recipe, points, right, time.perf_counter() - started)


def _recipe(settings: HeadSettings | None, changes: dict[str, Any], dim: int) -> HeadSettings:
    if settings is None and changes.get("solver", "exact") == "exact":
        settings = width_neutral(dim)
        if "l2" in changes:
            changes = {"C": None, **changes}
    recipe = HeadSettings.of(settings, **changes)
    if recipe.solver == "ridge" and recipe.l2 is None:
        raise UsageError(
            "ridge would choose --l2 on the validation rows that measure the curve", "Give --l2 VALUE for all sizes."
        )
    if recipe.early_stopping:
        raise UsageError(
            "--early-stopping would choose epochs on the validation rows that measure the curve", "Give --epochs."
        )
    return recipe


def _draws_of(size: TrainingSize, rows: Rows, recipe: HeadSettings, draws: int) -> int:
    """Return how many heads of a size differ: one where all rows train and chance has no part in training."""
    return 1 if size.rows == len(rows.train) and recipe.solver != "minibatch" else draws


class _Counter:
    """Reports heads as they are done."""

    def __init__(self, heads: int, on_progress: OnProgress) -> None:
        self.heads, self.on_progress, self.done = heads, on_progress, 0
        on_progress(Progress(0, heads))

    def add(self) -> None:
        self.done += 1
        self.on_progress(Progress(self.done, self.heads, computed=self.done))


def _train(
    problem: "Problem[Tensor]",
    y: np.ndarray,
    sizes: list[TrainingSize],
    draws: list[int],
    recipe: HeadSettings,
    seed: int,
    counter: _Counter,
) -> tuple[list[np.ndarray], list[float]]:
    """Return for each size which validation rows its heads had right, (draws, m) bool, and the seconds of all."""
    val, labels = pick(problem.x, problem.val), y[problem.val]
    right: list[list[np.ndarray]] = [[] for _ in sizes]
    seconds = [0.0] * len(sizes)
    for draw in range(max(draws)):
        settings = replace(recipe, seed=seed + draw) if recipe.solver == "minibatch" else recipe
        for place, subset in enumerate(draw_subsets(y, problem.train, sizes, seed + draw)):
            if draw >= draws[place]:
                continue
            started = time.perf_counter()
            with cpu_threads(solver_threads(settings, len(subset), val.shape[1], len(problem.classes))):
                # Scores need no scale to be compared, so validation rows have no part in training.
                head = solve_head(replace(problem, train=subset, val=problem.val[:0]), settings).head
                right[place].append(logits_of(head, val).argmax(axis=1) == labels)
            seconds[place] += time.perf_counter() - started
            counter.add()
    return [np.stack(hits) for hits in right], seconds


def _result(
    features: Features, recipe: HeadSettings, points: tuple[CurvePoint, ...], right: list[np.ndarray], seconds: float
) -> CurveResult:
    draws, m = max(len(hits) for hits in right), right[0].shape[1]
    everywhere = np.stack([np.broadcast_to(hits, (draws, m)) for hits in right], axis=1)
    found = extrapolate(np.array([point.size.rows for point in points]), everywhere)
    gain, interval = paired_gain(everywhere[:, -2], everywhere[:, -1]) if len(points) > 1 else (None, None)
    return CurveResult(
        features.cache,
        features.cache_digest,
        recipe,
        points,
        m,
        wilson_interval(round(points[-1].mean * m), m),
        gain,
        interval,
        found if isinstance(found, Extrapolation) else None,
        found if isinstance(found, str) else None,
        seconds,
    )


def _plan(
    features: Features, rows: Rows, sizes: list[TrainingSize], heads: int, recipe: HeadSettings, device: str
) -> CurvePlan:
    return CurvePlan(
        features.cache,
        str(features.space["architecture"]),
        features.x.shape[1],
        len(features.classes),
        len(rows.train),
        len(rows.val),
        tuple(size.rows for size in sizes),
        heads,
        recipe,
        device,
    )


def write_curve(folder: Path, result: CurveResult) -> None:
    """Keep a curve in a folder of findings.

    Raises:
        CacheError: if the folder cannot be written.
    """
    write_finding(folder, CURVE, result.to_json())


def read_curve(folder: str | Path) -> dict[str, Any]:
    """Return the fields of `CurveResult.to_json` of the curve in a folder.

    Raises:
        DataError: if there is none, it is damaged, or of another version.
    """
    return read_finding(folder, CURVE)
