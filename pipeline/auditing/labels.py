"""Labels that are probably wrong, by confident learning: Northcutt, Jiang and Chuang, JAIR 70 (2021) 1373.

Of rows (n,) with labels y and probabilities p (n, c) by heads that did not see them:

    t_j    = mean of p_j over rows labelled j               what is confident for class j
    k      = argmax of p_j over classes with p_j >= t_j     the class a row confidently counts to, if there is one
    wrong  = sum over i of n_i x (share of k != i among rows labelled i that count to any)
    margin = p_y - max of p_j over j != y, in [-1, 1]       the paper's normalised margin

Suspect are the rows of the lowest margins, as many as labels are estimated to be wrong, and none above 0: there the
head agrees with the label. Those with k != y, off the diagonal of the confident joint, are called confident.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDING = 1e-6
"""As in cleanlab: the mean of equal probabilities may come out above each of them."""


@dataclass(frozen=True, eq=False)
class ConfidentJoint:
    """How confidently each row counts to a class, and what that says of all labels."""

    thresholds: "NDArray[np.float64]"
    """t (c,), NaN of a class without rows."""
    counted: "NDArray[np.int64]"
    """k (n,), -1 of rows that count to none."""
    wrong: float
    """Estimated number of wrong labels among the n."""


@dataclass(frozen=True, eq=False)
class Suspects:
    """Positions (m,) of rows with suspect labels, the surest first."""

    places: "NDArray[np.int64]"
    suggested: "NDArray[np.int64]"
    """(m,) the likeliest other class."""
    margins: "NDArray[np.float64]"
    confident: "NDArray[np.bool_]"
    joint: ConfidentJoint


def confident_joint(probabilities: np.ndarray, y: np.ndarray) -> ConfidentJoint:
    """Count rows with probabilities (n, c) and labels (n,) to the classes they confidently belong to."""
    n, c = probabilities.shape
    sizes = np.bincount(y, minlength=c)
    own = np.bincount(y, probabilities[np.arange(n), y], minlength=c)
    thresholds = np.divide(own, sizes, out=np.full(c, np.nan), where=sizes > 0)
    sure = probabilities >= np.where(sizes > 0, thresholds, np.inf) - ROUNDING
    counted = np.where(sure.any(axis=1), np.where(sure, probabilities, -1).argmax(axis=1), -1)
    there = np.bincount(y[counted >= 0], minlength=c)
    off = np.bincount(y[(counted >= 0) & (counted != y)], minlength=c)
    shares = np.divide(off, there, out=np.zeros(c), where=there > 0)
    return ConfidentJoint(thresholds, counted, float(shares @ sizes))


def find_suspects(probabilities: np.ndarray, y: np.ndarray) -> Suspects:
    """Return the rows whose label is probably wrong, of probabilities (n, c) and labels (n,)."""
    found = confident_joint(probabilities, y)
    everywhere = np.arange(len(y))
    others = probabilities.copy()
    others[everywhere, y] = -1
    suggested = others.argmax(axis=1)
    margins = probabilities[everywhere, y] - others[everywhere, suggested]
    places = np.argsort(margins, kind="stable")[: round(found.wrong)]
    places = places[margins[places] < 0]
    confident = (found.counted[places] >= 0) & (found.counted[places] != y[places])
    return Suspects(places, suggested[places], margins[places], confident, found)
