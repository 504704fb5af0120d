"""Several heads on the same test rows: what each scores, and how far each is from the best."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DataError
from pipeline.intervals import LOWER_IS_BETTER, Resampled, Statistic, interval_of, metric_of, resample
from pipeline.outcomes import Outcomes


@dataclass(frozen=True)
class Standing:
    """Where a recipe stands among others on the same rows."""

    value: float
    """The metric; the mean over seeds."""
    interval: tuple[float, float]
    difference: float | None
    """To the best: value - best value. None of the best itself, and so are the next three."""
    difference_interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    """p, corrected for all that are compared with the best: S. Holm, Scandinavian J. of Statistics 6 (1979) 65."""


def aligned(outcomes: Sequence[Outcomes], names: Sequence[str]) -> list[Outcomes]:
    """Return each with its rows in an order that all share: by image digest and label.

    Raises:
        DataError: if they are not of the same rows; it says how many are shared.
    """
    keys = [row_keys(one) for one in outcomes]
    first = Counter(keys[0])
    for other, name in zip(keys[1:], names[1:], strict=True):
        if Counter(other) != first:
            shared = (first & Counter(other)).total()
            raise DataError(
                f"runs {names[0]} and {name} were measured on different test rows: {len(keys[0]):,} and "
                f"{len(other):,}, of which {shared:,} have the same image and label",
                "Measure them on one entry: pipeline evaluate RUN --cache CACHE, then pipeline compare --cache CACHE.",
            )
    orders = [np.array(sorted(range(len(own)), key=own.__getitem__), np.int64) for own in keys]
    return [one.take(order) for one, order in zip(outcomes, orders, strict=True)]


def row_keys(outcomes: Outcomes) -> list[bytes]:
    """Return what makes each row (n,) the same in all evaluations: its image's digest and its label's name."""
    labels = [name.encode("utf-8", "surrogatepass") for name in outcomes.classes]
    pairs = zip(outcomes.digests, outcomes.y.tolist(), strict=True)
    return [digest.tobytes() + labels[label] for digest, label in pairs]


def standings(groups: Sequence[Sequence[Outcomes]], metric: str) -> list[Standing]:
    """Return where each group of outcomes (one, or one a seed), all aligned, stands by a metric.

    All are resampled with the same rows. p of accuracy between two single runs is McNemar's exact test (Q. McNemar,
    Psychometrika 12 (1947) 153, by the binomial); of anything else it is the paired bootstrap's.
    """
    statistics = [_mean(group, metric) for group in groups]
    drawn = resample(len(groups[0][0]), lambda weights: np.stack([one(weights) for one in statistics]))
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best = max(range(len(groups)), key=lambda place: sign * drawn[place].value)
    differences = [Resampled(one.value - drawn[best].value, one.values - drawn[best].values) for one in drawn]
    ps = []
    for place, difference in enumerate(differences):
        exact = metric == "accuracy" and len(groups[place]) == len(groups[best]) == 1
        ps.append(mcnemar(groups[place][0].right, groups[best][0].right) if exact else difference.p)
    others = [place for place in range(len(groups)) if place != best]
    corrected = dict(zip(others, holm([ps[place] for place in others]), strict=True))
    return [
        Standing(
            one.value,
            interval_of(metric, one),
            *(
                (None, None, None, None)
                if place == best
                else (differences[place].value, differences[place].interval(), ps[place], corrected[place])
            ),
        )
        for place, one in enumerate(drawn)
    ]


def _mean(group: Sequence[Outcomes], metric: str) -> Statistic:
    """Return the mean of a metric over seeds as a function of weights (r, n) of rows."""
    each = [metric_of(one, metric) for one in group]
    return lambda weights: np.asarray(np.mean([one(weights) for one in each], axis=0))


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Return the exact two-sided p of two sets of right and wrong answers (n,) coming from equally good heads."""
    from scipy.stats import binomtest

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    differing = only_one + only_other
    return float(binomtest(only_one, differing).pvalue) if differing else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected step by step for their number, in the order given."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    found, highest = [1.0] * len(ps), 0.0
    for step, place in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - step) * ps[place]))
        found[place] = highest
    return found
