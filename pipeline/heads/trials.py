"""Heads trained to be compared: what each makes of validation rows."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.heads.batched import can_batch, train_batched
from pipeline.heads.calibration import best_scale
from pipeline.heads.group import Rates
from pipeline.heads.head import CHUNK_ROWS
from pipeline.heads.logistic import NotReached, solve_logistic_path
from pipeline.heads.minibatch import train_network
from pipeline.heads.ridge import ridge_path
from pipeline.heads.rows import Rows, scores_of
from pipeline.heads.settings import HeadSettings
from pipeline.heads.solvers import Problem, regularisation, row_weights, solver_threads
from pipeline.heads.transform import fit_transform
from pipeline.threads import cpu_threads

if TYPE_CHECKING:
    from torch import Tensor

SCORES_BYTES = 256 << 20
"""Of validation rows by ridge heads that are measured together."""


@dataclass(frozen=True)
class Trial:
    """A head and what it makes of validation rows."""

    place: int
    """Of its settings among those that were tried."""
    settings: HeadSettings
    """With its seed."""
    val_accuracy: float
    val_loss: float
    """Mean cross-entropy; NaN or infinity of a head that diverged, or whose optimum was not reached."""
    seconds: float
    """Its share of the time that heads trained together took."""
    fold: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; None for figures that are no numbers."""
        options = self.settings.to_json()
        varied = ("lr", "weight_decay", "l2", "C", "standardize", "l2_norm", "seed")
        finite = bool(np.isfinite(self.val_loss))
        return {
            **{name: options[name] for name in varied if options.get(name) is not None},
            "fold": self.fold,
            "val_accuracy": self.val_accuracy if finite else None,
            "val_loss": self.val_loss if finite else None,
            "seconds": self.seconds,
        }


def run_trials(problem: Problem[Rows], tried: Sequence[HeadSettings], seeds: Sequence[int]) -> Iterator[Trial]:
    """Train a head for each of several settings, which share solver and transform, and for each seed.

    Raises:
        DataError: if features are not finite.
    """
    first = tried[0]
    transform = fit_transform(problem.train_rows()[0], l2_norm=first.l2_norm, standardize=first.standardize)
    seen = replace(problem, x=transform.apply(problem.x))
    if first.solver != "minibatch":
        solve = {"exact": _exact, "ridge": _ridge}[first.solver]
        with cpu_threads(solver_threads(first, len(problem.train), problem.x.shape[1], len(problem.classes))):
            yield from solve(seen, tried)
        return
    for seed in seeds:
        seeded = [replace(settings, seed=seed) for settings in tried]
        yield from (_batched if can_batch(first) else _one_by_one)(seen, seeded)


def _batched(problem: Problem[Rows], tried: Sequence[HeadSettings]) -> Iterator[Trial]:
    val = problem.rows(problem.val)
    rates = [Rates(settings.lr, settings.weight_decay) for settings in tried]
    for group in train_batched(problem.x, problem.y, problem.train, len(problem.classes), tried[0], rates):
        losses, accuracies = measure_heads(*val, group.weight, group.bias)
        for place, loss, accuracy in zip(group.places, losses, accuracies, strict=True):
            yield Trial(place, tried[place], accuracy, loss, group.seconds)


def _one_by_one(problem: Problem[Rows], tried: Sequence[HeadSettings]) -> Iterator[Trial]:
    """Train heads that cannot share batches: those with a hidden layer, or that stop early."""
    classes = len(problem.classes)
    for place, settings in enumerate(tried):
        started = time.perf_counter()
        with cpu_threads(solver_threads(settings, len(problem.train), problem.x.shape[1], classes)):
            trained = train_network(
                problem.x, problem.y, problem.train, problem.val, classes, settings, stop_if_diverged=False
            )
        epoch = trained.epochs[trained.best_epoch - 1]
        assert epoch.val_accuracy is not None
        assert epoch.val_loss is not None
        yield Trial(place, settings, epoch.val_accuracy, epoch.val_loss, time.perf_counter() - started)


def _exact(problem: Problem[Rows], tried: Sequence[HeadSettings]) -> Iterator[Trial]:
    x, y = problem.train_rows()
    val = problem.rows(problem.val)
    places: dict[float, list[int]] = {}
    for place, settings in enumerate(tried):
        places.setdefault(regularisation(settings, len(y)), []).append(place)
    started = time.perf_counter()
    path = solve_logistic_path(x, y, len(problem.classes), list(places), row_weights(y, problem, tried[0]))
    for l2, optimum in path:
        loss = accuracy = float("nan")
        if not isinstance(optimum, NotReached):
            head = (optimum.weight.to(x.device)[None], optimum.bias.to(x.device)[None])
            (loss,), (accuracy,) = measure_heads(*val, *head)
        seconds = (time.perf_counter() - started) / len(places[l2])
        yield from (Trial(place, tried[place], accuracy, loss, seconds) for place in places[l2])
        started = time.perf_counter()


def _ridge(problem: Problem[Rows], tried: Sequence[HeadSettings]) -> Iterator[Trial]:
    """Solve for every l2 from one decomposition; losses are those of the best scale, as of the head that is saved.

    Scores of several heads are taken in one pass over validation rows: those of a stream may lie all over the disk.
    """
    import torch

    x, y = problem.train_rows()
    started = time.perf_counter()
    path = ridge_path(x, y, len(problem.classes), row_weights(y, problem, tried[0]))
    val, labels = problem.rows(problem.val)
    together = max(1, SCORES_BYTES // (4 * len(labels) * len(problem.classes)))
    for first in range(0, len(tried), together):
        some = tried[first : first + together]
        weights, biases = zip(*(path.solve(settings.l2 or 0.0) for settings in some), strict=True)
        scores = scores_of(val, torch.cat(weights), torch.cat(biases)).view(len(labels), len(some), -1)
        figures = [_scaled_figures(one, labels) for one in scores.unbind(1)]
        seconds = (time.perf_counter() - started) / len(some)
        for offset, (settings, found) in enumerate(zip(some, figures, strict=True)):
            yield Trial(first + offset, settings, *found, seconds)
        started = time.perf_counter()


def _scaled_figures(scores: "Tensor", y: "Tensor") -> tuple[float, float]:
    """Return the accuracy of scores (n, c), and the mean cross-entropy of their best multiple."""
    from torch.nn import functional

    loss = functional.cross_entropy(best_scale(scores, y) * scores.double(), y)
    return float((scores.argmax(1) == y).double().mean()), float(loss)


def measure_heads(x: Rows, y: "Tensor", weight: "Tensor", bias: "Tensor") -> tuple[list[float], list[float]]:
    """Return the mean cross-entropy and the accuracy on rows (n, d) of each of k heads (k, c, d), (k, c)."""
    import torch

    k, c, d = weight.shape
    columns, offsets = weight.reshape(k * c, d).T, bias.reshape(-1)
    loss, right = (torch.zeros(k, dtype=torch.float64, device=x.device) for _ in range(2))
    rows = max(1, CHUNK_ROWS // k)
    with torch.inference_mode():
        for part, labels in zip(x.split(rows), y.split(rows), strict=True):
            logits = torch.addmm(offsets, part.float(), columns).view(-1, k, c)
            index = labels.view(-1, 1, 1).expand(-1, k, 1)
            loss -= logits.log_softmax(2).gather(2, index).double().sum((0, 2))
            right += (logits.argmax(2) == labels[:, None]).sum(0)
    return (loss / len(y)).tolist(), (right / len(y)).tolist()
