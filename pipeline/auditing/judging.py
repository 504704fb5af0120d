"""What heads say of rows that they were not trained on."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.features import Features
from pipeline.heads.rows import logits_of, pick
from pipeline.heads.settings import HeadSettings, width_neutral
from pipeline.heads.solvers import Problem, problem_of, solve_head, solver_threads
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.selection import Rows, choose_folds, choose_rows, without_copies
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


def check_judging(features: Features, folds: int, split_seed: int, device: str) -> None:
    """Refuse, before any work, what `judge` refuses."""
    choose_folds(features, folds, split_seed)
    device_for(device, width_neutral(features.x.shape[1]))


def judge(
    features: Features,
    *,
    folds: int = 5,
    split_seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress = ignore,
) -> tuple[Judged, Judged]:
    """Judge train and validation rows out of fold, and test rows by a head of all train and validation rows.

    No row is judged by a head that saw an image of the same digest, whatever its group or split.

    Returns what is said of train and validation rows, and of test rows (none where there are none, or where train
    has two classes by copies of them alone).

    Raises:
        UsageError, DataError: as `choose_folds`, and where a head does not come to its optimum.
    """
    parts = choose_folds(features, folds, split_seed)
    # Strongly regularised: a head that fits every label fits the wrong ones too.
    settings = width_neutral(features.x.shape[1])
    where = device_for(device, settings)
    nothing = np.empty(0, np.int64)
    problem = problem_of(features, features.x.to(where), nothing, nothing)
    last = _test_part(features)
    test = last.val
    if len(test):
        parts = [*parts, last]
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


def _test_part(features: Features) -> Rows:
    """Return the rows that judge test rows as `train`, and those as `val`: none where they cannot be judged."""
    nothing = np.empty(0, np.int64)
    test = features.rows("test") if len(features.split) else nothing
    rows = without_copies(features, Rows(choose_rows(features, refit=True).train, test, None))
    return rows if len(np.unique(features.y.numpy()[rows.train])) > 1 else replace(rows, val=nothing)


def _say(problem: "Problem[Tensor]", rows: Rows, settings: HeadSettings) -> np.ndarray:
    """Return probabilities (m, c) of a part's held-out rows."""
    from scipy.special import softmax

    threads = solver_threads(settings, len(rows.train), problem.x.shape[1], len(problem.classes))
    with cpu_threads(threads):
        head = solve_head(replace(problem, train=rows.train), settings).head
        logits = logits_of(head, pick(problem.x, rows.val))
    return np.asarray(softmax(logits.astype(np.float64), axis=1))
