"""What heads say of rows that they were not trained on."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.features import Features
from pipeline.heads.rows import logits_of, pick
from pipeline.heads.settings import HeadSettings, width_neutral
from pipeline.heads.solvers import Problem, problem_of, solve_head, solver_threads
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.selection import Rows, choose_folds, choose_rows
from pipeline.threads import cpu_threads
from pipeline.training import device_for

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Judged:
    """Probabilities of rows by heads that did not see them."""

    rows: "NDArray[np.int64]"
    """(n,) positions in the features, rising."""
    y: "NDArray[np.int64]"
    """(n,) their labels."""
    probabilities: "NDArray[np.float64]"
    """(n, c)."""

    @property
    def right(self) -> "NDArray[np.bool_]":
        """Whether the likeliest class of each row (n,) is its label."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.y)


def judge(
    features: Features,
    *,
    folds: int = 5,
    split_seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> tuple[Judged, Judged]:
    """Judge train and validation rows out of fold, and test rows by a head of all train and validation rows.

    An image, or a group, lies in one fold whole, so that no row is judged by a head that saw its exact copy.

    Returns what is said of train and validation rows, and of test rows (none where there are none).

    Raises:
        UsageError, DataError: as `choose_folds`, and where a head does not come to its optimum.
    """
    parts = choose_folds(features, folds, split_seed)
    # Strongly regularised: a head that fits every label fits the wrong ones too.
    settings = width_neutral(features.x.shape[1])
    where = device_for(device, settings)
    nothing = np.empty(0, np.int64)
    problem = problem_of(features, features.x.to(where), nothing, nothing)
    test = features.rows("test") if len(features.split) else nothing
    if len(test):
        parts = [*parts, Rows(choose_rows(features, refit=True).train, test, None)]
    said = []
    on_progress(Progress(0, len(parts)))
    for done, rows in enumerate(parts, 1):
        said.append(_say(problem, rows, settings))
        on_progress(Progress(done, len(parts), computed=done))
    y = features.y.numpy()
    inner = np.concatenate([rows.val for rows in parts[:folds]])
    order = np.argsort(inner)
    learnt = Judged(inner[order], y[inner[order]], np.concatenate(said[:folds])[order])
    outer = said[folds] if len(test) else np.empty((0, len(features.classes)))
    return learnt, Judged(test, y[test], outer)


def _say(problem: "Problem[Tensor]", rows: Rows, settings: HeadSettings) -> np.ndarray:
    """Return probabilities (m, c) of a part's held-out rows."""
    from scipy.special import softmax

    threads = solver_threads(settings, len(rows.train), problem.x.shape[1], len(problem.classes))
    with cpu_threads(threads):
        head = solve_head(replace(problem, train=rows.train), settings).head
        logits = logits_of(head, pick(problem.x, rows.val))
    return np.asarray(softmax(logits.astype(np.float64), axis=1))
