"""What more data would bring: a power law through a learning curve, and how far it can be believed.

    accuracy(n) = a - b n^-c,  b > 0, c > 0

is the form that errors of classifiers have been found to follow over the number of training images (Cortes et al.,
"Learning Curves: Asymptotic Values and Rate of Convergence", NIPS 1993; Hestness et al., 2017). It is fitted by least
squares to the larger sizes only: the smallest ones follow another law. Two things say what it is worth: intervals by
resampling validation rows and draws (the percentile bootstrap), and the same fit without the largest size, which has to
foretell it. A fit that fails is not shown.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

FITTED_SIZES = 7
FEWEST_SIZES = 5
"""Three parameters, the largest size held back once, and one to spare."""
REPEATS = 300
WORTH = 0.005
"""Half a point: a gain below it is called little."""
LARGEST_MISS = 0.02
"""How far off the foretold accuracy of the largest size, or a fitted one, may be before the fit is given up."""
SLOWEST, FASTEST = 0.01, 3.0
"""Bounds of c."""

Verdict = Literal["yes", "little", "unclear"]
VERDICTS: dict[Verdict, str] = {
    "yes": "More data helps",
    "little": "More data helps little with this backbone and head: under half a point for twice the images",
    "unclear": "Whether more data helps is not clear: the interval holds half a point",
}
"""In words, without a full stop."""


@dataclass(frozen=True)
class PowerLaw:
    """accuracy(n) = a - b (n / n0)^-c, with n0 the largest size."""

    a: float
    b: float
    c: float
    n0: float

    def at(self, n: "np.ndarray | float") -> np.ndarray:
        """Return the accuracy at a training-set size, or at several."""
        return np.asarray(self.a - self.b * (np.asarray(n, np.float64) / self.n0) ** -self.c)


@dataclass(frozen=True)
class Extrapolation:
    """What doubling the training set would bring if the curve went on as it does."""

    law: PowerLaw
    gain: float
    """Accuracy at twice the largest size, at most 1, less that at the largest."""
    gain_ci95: tuple[float, float]
    """The bootstrap's 2.5 and 97.5 percentiles, widened to `miss` on either side where that is more."""
    miss: float
    """Measured less foretold accuracy of the largest size, by a fit that had not seen it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; b is that of n in images."""
        return {
            "form": "a - b n^-c",
            "a": self.law.a,
            "b": self.law.b * self.law.n0**self.law.c,
            "c": self.law.c,
            "rows": int(2 * self.law.n0),
            "gain": self.gain,
            "gain_ci95": list(self.gain_ci95),
            "largest_size_missed_by": self.miss,
        }


def extrapolate(sizes: np.ndarray, right: np.ndarray, seed: int = 0) -> Extrapolation | str:
    """Extrapolate a learning curve to twice its largest size.

    Args:
        sizes: training-set sizes (s,), rising.
        right: (draws, s, m) bool: which validation rows the head of each draw and size had right. Sizes that were
            trained once stand in each draw alike.
        seed: of the resampling.

    Returns:
        What was found, or in a few words why nothing can be said.
    """
    if len(sizes) < FEWEST_SIZES:
        return f"a fit needs {FEWEST_SIZES} sizes, there are {len(sizes)}"
    sizes, right = sizes[-FITTED_SIZES:].astype(np.float64), right[:, -FITTED_SIZES:].astype(np.float32)
    mean = right.mean(axis=(0, 2), dtype=np.float64)
    law, before = fit_power_law(sizes, mean), fit_power_law(sizes[:-1], mean[:-1])
    if law is None or before is None:
        return "accuracy does not follow a power law of the size"
    worst = float(np.abs(law.at(sizes) - mean).max())
    if worst > LARGEST_MISS:
        return f"the best power law is {100 * worst:.1f} points off a measured size"
    miss = float(mean[-1] - before.at(sizes[-1]))
    if abs(miss) > LARGEST_MISS:
        return f"a power law fitted to the smaller sizes misses the largest by {100 * abs(miss):.1f} points"
    room = 1 - float(mean[-1])  # a power law goes on above 100 %
    gain = min(_gain(law), room)
    resampled = _resampled_gains(sizes, right, seed)
    if len(resampled) < 0.9 * REPEATS:
        return "the fit depends on which validation rows are looked at"
    low, high = np.percentile(resampled, [2.5, 97.5])
    within = (min(float(low), gain - abs(miss)), min(max(float(high), gain + abs(miss)), room))
    return Extrapolation(law, gain, within, miss)


def fit_power_law(sizes: np.ndarray, accuracies: np.ndarray) -> PowerLaw | None:
    """Fit a power law to accuracies (s,) at sizes (s,) by least squares; None where none rises with the size.

    For a given c the best a and b are those of a line; c is found by a bounded search over its logarithm.
    """
    from scipy.optimize import minimize_scalar

    scaled = sizes / sizes[-1]

    def line(log_c: float) -> tuple[float, float, float]:
        powers = scaled ** -np.exp(log_c)
        centred = powers - powers.mean()
        slope = float(centred @ accuracies / (centred @ centred))
        offset = float(accuracies.mean() - slope * powers.mean())
        return float(((offset + slope * powers - accuracies) ** 2).sum()), offset, -slope

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = minimize_scalar(
            lambda log_c: line(log_c)[0], bounds=(np.log(SLOWEST), np.log(FASTEST)), method="bounded"
        )
    _, a, b = line(float(found.x))
    return PowerLaw(a, b, float(np.exp(found.x)), float(sizes[-1])) if b > 0 else None


def verdict_of(gain_ci95: tuple[float, float]) -> Verdict:
    """Say whether more data helps: yes where all the interval is above half a point, little where all is below."""
    low, high = gain_ci95
    return "yes" if low >= WORTH else "little" if high < WORTH else "unclear"


def paired_gain(before: np.ndarray, after: np.ndarray, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """Return the measured gain between two sizes, and its 95 % bootstrap interval over draws and validation rows.

    Args:
        before: (draws, m) bool, validation rows that heads of the smaller size had right.
        after: the same of the larger.
        seed: of the resampling.
    """
    random = np.random.default_rng(seed)
    difference = after.astype(np.float32) - before
    gains = [_resample(difference[:, None], random).item() for _ in range(REPEATS)]
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(difference.mean()), (float(low), float(high))


def _gain(law: PowerLaw) -> float:
    return float(law.at(2 * law.n0) - law.at(law.n0))


def _resampled_gains(sizes: np.ndarray, right: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    laws = (fit_power_law(sizes, _resample(right, random)) for _ in range(REPEATS))
    return np.array([_gain(law) for law in laws if law is not None])


def _resample(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return means (s,) of values (draws, s, m) over draws and rows that are drawn with replacement."""
    draws, _, m = values.shape
    weights = np.bincount(random.integers(0, m, m), minlength=m).astype(np.float32)
    chosen = np.bincount(random.integers(0, draws, draws), minlength=draws)
    return np.asarray(np.tensordot(chosen, values @ weights, 1) / (draws * m), np.float64)
