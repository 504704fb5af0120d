"""One number that makes probabilities of scores: temperature scaling, Guo et al. (ICML 2017), section 4."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

RANGE, HALVINGS = 1e4, 50
"""How far the scale may be from the inverse of the scores' own spread, either way; and the bisection's steps."""


def best_scale(scores: "Tensor", y: "Tensor", doubt: float = 0.0) -> float:
    """Return the s > 0 with the lowest mean cross-entropy of softmax(s x scores).

    The cross-entropy is convex in s, so that bisection of its slope finds it. Where it falls (or rises) for ever,
    as on rows that are all right (or worse than chance), s is the end of RANGE.

    Args:
        scores: (n, c), any float.
        y: (n,) positions of the classes.
        doubt: share of each row's target that is spread evenly over the other classes; above 0, s is never endless.
    """
    import torch

    z = scores.double()
    z = z - z.gather(1, y[:, None])
    spread = float(z.std()) or 1.0
    spread_out = doubt * float(z.sum()) / max(1, z.shape[1] - 1)  # of the label itself z is 0
    low: float = 1 / (RANGE * spread)
    high: float = RANGE / spread
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        slope = float((torch.softmax(middle * z, dim=1) * z).sum()) - spread_out
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.sqrt(low * high)


def fit_temperature(logits: "Tensor", y: "Tensor") -> float:
    """Return the temperature T > 0 that softmax(logits / T) is best calibrated with on held-out rows.

    Targets are Platt's, 1 - 1 / (n + 2) for the label (Advances in Large Margin Classifiers, 1999, section 2.2): of
    n rows that are all right, no more certainty is taken than n rows can give.

    Args:
        logits: (n, c), any float, n at least 1.
        y: (n,) positions of the classes.
    """
    return 1 / best_scale(logits, y, doubt=1 / (len(y) + 2))


def fit_vote_temperature(logits: "Tensor", y: "Tensor") -> float:
    """Return the temperature T in [1/20, 20] whose confidence is nearest to being right on held-out rows.

    For heads that vote, as k-NN does: where no neighbour has the label its probability is next to nothing, and the
    cross-entropy of those few rows would outweigh all others. This is the Brier score of the predicted class alone,
    mean (max p - [right])^2, which is proper for what a confidence says, and bounded.

    Args:
        logits: (n, c), any float, n at least 1.
        y: (n,) positions of the classes.
    """
    import torch
    from scipy.optimize import minimize_scalar

    z, right = logits.double(), (logits.argmax(1) == y).double()

    def score(log: float) -> float:
        return float(((torch.softmax(z / math.exp(log), dim=1).amax(1) - right) ** 2).mean())

    # Bounded: of rows that are all right, or all wrong, an end of the range is best.
    found = minimize_scalar(score, bounds=(-math.log(20), math.log(20)), method="bounded")
    return math.exp(found.x)
