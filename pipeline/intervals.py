"""95 % intervals by resampling test rows: how far a metric would move with other rows of the same kind.

Every metric here is a function of sums over rows, so that a resample is a vector of row counts, and all of a batch are
one sparse product. Resampling itself is scipy.stats.bootstrap. What is not covered: other training rows, other seeds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.metrics import ECE_BINS, confidence_bins, wilson_interval
from pipeline.outcomes import Outcomes

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
BATCH_VALUES = 1 << 21
"""Row counts that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric's value on the rows as they are, and on resamples of them."""

    value: float
    values: np.ndarray
    """(r,) float64."""

    @property
    def unbiased(self) -> np.ndarray:
        """The resampled values (r,), moved by twice their bias: to where the value is, and on as the value is biased.

        Macro-F1 of a resample, which has some rows of a class twice and others never, is lower than that of its rows:
        with many classes by more than the interval is wide. For normal resamples this is Efron's bias-corrected
        percentile method (Canadian J. of Statistics 9 (1981) 139). His quantiles run out where the bias is large.
        """
        bias = self.values.mean() - self.value
        return np.asarray(self.values - 2 * bias)

    def interval(self, *, reverse: bool = False) -> tuple[float, float]:
        """Return the bias-corrected percentile interval, or the reverse percentile one (2 v - high, 2 v - low).

        Davison and Hinkley, "Bootstrap Methods and their Application" (1997), chapter 5.
        """
        tail = (1 - LEVEL) / 2
        values = 2 * self.value - self.values if reverse else self.unbiased
        low, high = np.quantile(values, (tail, 1 - tail))
        return float(low), float(high)

    @property
    def p(self) -> float:
        """Two-sided p of the value being 0: twice the smaller share of resamples on one side of 0, at least 2/(r+1).

        Davison and Hinkley, equation 4.11 in both directions.
        """
        values = self.unbiased
        sides = (int((values <= 0).sum()), int((values >= 0).sum()))
        return min(1.0, 2 * (min(sides) + 1) / (len(values) + 1))


Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps weights (r, n) of rows, each summing to n, to values (r,) or (k, r)."""


def resample(n: int, statistic: Statistic, resamples: int = RESAMPLES) -> list[Resampled]:
    """Return each of a statistic's k values on n rows and on bootstrap resamples of them, the same for all."""
    from scipy.stats import bootstrap

    def of_rows(rows: np.ndarray, axis: int) -> np.ndarray:
        drawn = rows.reshape(-1, n).astype(np.int64)
        places = drawn + n * np.arange(len(drawn))[:, None]
        found = np.atleast_2d(statistic(np.bincount(places.ravel(), minlength=drawn.size).reshape(-1, n)))
        return found.reshape(len(found), *rows.shape[:-1])

    result = bootstrap(
        (np.arange(n),),
        of_rows,
        n_resamples=resamples,
        batch=max(1, BATCH_VALUES // n),
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    real = np.atleast_2d(statistic(np.ones((1, n))))[:, 0]
    return [Resampled(float(value), values) for value, values in zip(real, result.bootstrap_distribution, strict=True)]


METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece")
"""Those that can be resampled."""
LOWER_IS_BETTER = ("nll", "brier", "ece")
HIGHEST = {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0, "brier": 2.0, "ece": 1.0}
"""Of those that have an end above; all have one at 0."""


def metric_of(outcomes: Outcomes, metric: str) -> Statistic:
    """Return a metric as a function of weights (r, n) of an evaluation's rows.

    Classes that a resample has no row of are left out of its means, as `classification_metrics` leaves out those that
    the rows have none of.
    """
    if metric in ("accuracy", "nll", "brier"):
        column = (outcomes.right if metric == "accuracy" else getattr(outcomes, metric)).astype(np.float64)
        return lambda weights: weights @ column / weights.sum(axis=1)
    if metric == "ece":
        return _ece(outcomes)
    return _by_class(outcomes, f1=metric == "macro_f1")


def value_of(outcomes: Outcomes, metric: str) -> float:
    """Return a metric of an evaluation's rows as they are."""
    return float(metric_of(outcomes, metric)(np.ones((1, len(outcomes))))[0])


def _by_class(outcomes: Outcomes, *, f1: bool) -> Statistic:
    c = len(outcomes.classes)
    labels, said = _one_hot(outcomes.y, c), _one_hot(outcomes.predicted, c)
    hits = _one_hot(outcomes.y, c, outcomes.right)

    def of(weights: np.ndarray) -> np.ndarray:
        there, right = weights @ labels, weights @ hits
        whole = (there + weights @ said) / 2 if f1 else there
        shares = np.divide(right, whole, out=np.zeros(there.shape), where=whole > 0)
        return np.asarray((shares * (there > 0)).sum(axis=1) / (there > 0).sum(axis=1))

    return of


def _ece(outcomes: Outcomes) -> Statistic:
    bins = confidence_bins(outcomes.confidence)
    gaps = _one_hot(bins, ECE_BINS, outcomes.right - outcomes.confidence)
    return lambda weights: np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def _one_hot(places: np.ndarray, width: int, values: np.ndarray | None = None) -> "csr_array":
    """Return (n, width) with one value a row."""
    from scipy.sparse import csr_array

    n = len(places)
    return csr_array(((np.ones(n) if values is None else values.astype(float)), places, np.arange(n + 1)), (n, width))


def intervals(outcomes: Outcomes, metrics: dict[str, Any]) -> dict[str, list[float]]:
    """Return [low, high] of each metric: Wilson's for accuracy and top-5, of the others by RESAMPLES resamples.

    The expected calibration error of a resample is higher than that of its rows, which noise only adds to: its
    interval is the reverse percentile one, cut at 0. Of a single row there are only Wilson's.
    """
    n = len(outcomes)
    top5 = round(metrics["top5_accuracy"] * n)
    found = {"accuracy": list(metrics["accuracy_ci95"]), "top5_accuracy": list(wilson_interval(top5, n))}
    if n < 2:
        return found
    names = METRICS[1:]
    parts: Sequence[Statistic] = [metric_of(outcomes, name) for name in names]
    drawn = resample(n, lambda weights: np.stack([part(weights) for part in parts]))
    for name, one in zip(names, drawn, strict=True):
        found[name] = list(interval_of(name, one))
    return found


def interval_of(metric: str, drawn: Resampled) -> tuple[float, float]:
    """Return a metric's interval within the range that it can have."""
    low, high = drawn.interval(reverse=metric == "ece")
    return max(0.0, low), min(high, HIGHEST.get(metric, math.inf))
