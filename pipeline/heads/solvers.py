"""From settings to a head: one function a solver."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.features import Features
from pipeline.heads.balance import balanced_weights
from pipeline.heads.calibration import best_scale
from pipeline.heads.centroid import fit_centroids
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.logistic import solve_logistic
from pipeline.heads.minibatch import Epoch, OnEpoch, measure, threads_for, train_network
from pipeline.heads.mlp import MLPHead
from pipeline.heads.neighbours import NeighboursHead, fit_neighbours
from pipeline.heads.ridge import ridge_path
from pipeline.heads.rows import Rows, pick, scores_of
from pipeline.heads.settings import HeadSettings
from pipeline.heads.transform import Transform, fit_transform
from pipeline.heads.viewed import ViewedRows
from pipeline.streaming import StreamedRows

if TYPE_CHECKING:
    from torch import Tensor


R = TypeVar("R", bound=Rows, covariant=True)
T = TypeVar("T", bound=Rows)


@dataclass(frozen=True)
class Problem(Generic[R]):
    """What a head is trained on, and what it is bound to."""

    x: R
    """(n, d) float32 or float16, a tensor or a stream."""
    y: "Tensor"
    """(n,) int64."""
    train: np.ndarray
    """Rows that train, and rows that choose: positions (m,) int64."""
    val: np.ndarray
    classes: tuple[str, ...]
    space: dict[str, Any]
    space_sha256: str

    def bound(self, transform: Transform) -> dict[str, Any]:
        """Return the fields that every head has."""
        return {
            "classes": self.classes,
            "space": self.space,
            "space_sha256": self.space_sha256,
            "transform": transform,
        }

    def rows(self, which: np.ndarray) -> tuple[R, "Tensor"]:
        """Return features and labels of some rows; no copy where these are all."""
        return pick(self.x, which), pick(self.y, which)

    def train_rows(self) -> "tuple[Rows, Tensor]":
        """Return features and labels of the rows that train, in all their views."""
        if isinstance(self.x, ViewedRows):
            return self.x.all_views(self.train, self.y)
        return self.rows(self.train)


def problem_of(features: Features, x: T, train: np.ndarray, val: np.ndarray) -> Problem[T]:
    """Take labels, and what a head is bound to, from where features `x` (n, d), on their device, come from."""
    y = features.y.to(x.device)
    return Problem(x, y, train, val, features.classes, features.space, features.space_sha256)


@dataclass(frozen=True)
class Solved:
    """A head, and how it was come by."""

    head: Head
    settings: HeadSettings
    """With values that were chosen on the way."""
    epochs: list[Epoch]
    """Of a solver without epochs: one, the finished head on train and validation rows; none for k-NN, whose train
    rows are their own neighbours."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the solver says of its work, as plain JSON fields."""


def solve_head(problem: Problem[Rows], settings: HeadSettings, on_epoch: OnEpoch | None = None) -> Solved:
    """Train a head as the settings say; test rows are not among the problem's.

    Raises:
        UsageError: if the settings ask for what these rows cannot give.
        DataError: if features are not finite, or training diverges or does not arrive.
    """
    transform = Transform()
    if settings.standardize or settings.l2_norm:
        transform = fit_transform(problem.train_rows()[0], l2_norm=settings.l2_norm, standardize=settings.standardize)
    seen = replace(problem, x=transform.apply(problem.x))
    if settings.solver == "minibatch":
        return _minibatch(seen, transform, settings, on_epoch)
    started = time.perf_counter()
    solved = SOLVERS[settings.solver](seen, transform, settings)
    seconds = time.perf_counter() - started
    if isinstance(solved.head, NeighboursHead):
        return solved
    epoch = _finished(problem, solved.head, seconds)
    if not np.isfinite(epoch.train_loss):
        raise DataError(
            f"--solver {settings.solver} ends in a loss of {epoch.train_loss}: what it multiplies is too large",
            "--standardize brings features to one size; a larger --l2 makes weights smaller.",
        )
    return replace(solved, epochs=[epoch])


ONE_THREAD_PASS = 250_000_000
"""Multiply-adds of a pass of the exact solver over all rows below which one thread is used: its products are small, and
on a machine that does other work besides two threads were measured to be 15 times slower than one."""


def solver_threads(settings: HeadSettings, rows: int, dim: int, n_classes: int) -> int:
    """Return CPU threads for a solver's products over so many train rows; 0 is torch's own number."""
    if settings.solver == "minibatch":
        return threads_for(settings.batch_size, dim, settings.hidden or n_classes)
    if settings.solver == "exact":
        return 1 if rows * dim * n_classes < ONE_THREAD_PASS else 0
    return 0


def _minibatch(
    problem: Problem[Rows], transform: Transform, settings: HeadSettings, on_epoch: OnEpoch | None
) -> Solved:
    classes = len(problem.classes)
    trained = train_network(problem.x, problem.y, problem.train, problem.val, classes, settings, on_epoch)
    state, bound = trained.network.state_dict(), problem.bound(transform)
    facts = {"best_epoch": trained.best_epoch} if settings.early_stopping else {}
    if not settings.hidden:
        return Solved(LinearHead(state["weight"], state["bias"], **bound), settings, trained.epochs, facts)
    head = MLPHead(
        hidden_weight=state["0.weight"],
        hidden_bias=state["0.bias"],
        weight=state["3.weight"],
        bias=state["3.bias"],
        dropout=settings.dropout,
        **bound,
    )
    return Solved(head, settings, trained.epochs, facts)


def _exact(problem: Problem[Rows], transform: Transform, settings: HeadSettings) -> Solved:
    x, y = problem.train_rows()
    l2 = regularisation(settings, len(y))
    optimum = solve_logistic(x, y, len(problem.classes), l2, row_weights(y, problem, settings))
    facts = {
        "l2": l2,
        "C": 1 / (l2 * len(y)),
        "objective": optimum.objective,
        "gradient_norm_ratio": optimum.gradient_norm_ratio,
        "iterations": optimum.iterations,
        "products": optimum.products,
    }
    return Solved(LinearHead(optimum.weight, optimum.bias, **problem.bound(transform)), settings, [], facts)


def _ridge(problem: Problem[Rows], transform: Transform, settings: HeadSettings) -> Solved:
    x, y = problem.train_rows()
    if settings.l2 is None and not len(problem.val):
        raise UsageError(
            "ridge chooses --l2 on validation rows, and there are none", "Give --l2 VALUE, or a --val-fraction."
        )
    path = ridge_path(x, y, len(problem.classes), row_weights(y, problem, settings))
    facts: dict[str, Any] = {}
    if settings.l2 is None:
        tried = path.default_l2()
        accuracies = path.accuracies(*problem.rows(problem.val), tried)
        # Of equals the most regularised.
        best = max(range(len(tried)), key=lambda place: (accuracies[place], tried[place]))
        settings = replace(settings, l2=tried[best])
        facts["path"] = [{"l2": l2, "val_accuracy": accuracy} for l2, accuracy in zip(tried, accuracies, strict=True)]
    l2 = settings.l2 or 0.0
    head, scale = _scaled(problem, transform, *path.solve(l2))
    return Solved(head, settings, [], {"l2": l2, "alpha": l2 * len(y), **scale, **facts})


def _knn(problem: Problem[Rows], transform: Transform, settings: HeadSettings) -> Solved:
    import torch

    if isinstance(problem.x, ViewedRows):
        raise UsageError(
            "--solver knn does not go with --views: the nearest rows would be views of a few images",
            "Leave out --views, or take another solver.",
        )
    x, y = problem.train_rows()
    if isinstance(x, StreamedRows):
        raise UsageError(
            "--solver knn keeps all train rows, and the features do not fit into memory",
            "Another --solver streams them; --stream never reads all features into memory.",
        )
    assert isinstance(x, torch.Tensor)
    bank, labels = fit_neighbours(x, y, k=settings.k)
    head = NeighboursHead(bank, labels, settings.k, settings.temperature, **problem.bound(transform))
    return Solved(head, settings, [], {"rows": len(bank)})


def _centroid(problem: Problem[Rows], transform: Transform, settings: HeadSettings) -> Solved:
    weight, bias = fit_centroids(*problem.train_rows(), problem.classes)
    head, scale = _scaled(problem, transform, weight, bias)
    return Solved(head, settings, [], scale)


SOLVERS: dict[str, Callable[[Problem[Rows], Transform, HeadSettings], Solved]] = {
    "exact": _exact,
    "ridge": _ridge,
    "knn": _knn,
    "centroid": _centroid,
}
"""Those without epochs."""


def _scaled(
    problem: Problem[Rows], transform: Transform, weight: "Tensor", bias: "Tensor"
) -> tuple[LinearHead, dict[str, Any]]:
    """Return the head whose logits are these scores times one number: the best on validation, else train, rows."""
    rows = "val" if len(problem.val) else "train"
    x, y = problem.rows(problem.val) if rows == "val" else problem.train_rows()
    scale = best_scale(scores_of(x, weight, bias), y)
    weight, bias = (scale * weight).float().cpu().contiguous(), (scale * bias).float().cpu()
    return LinearHead(weight, bias, **problem.bound(transform)), {"scale": scale, "scaled_on": rows}


def regularisation(settings: HeadSettings, rows: int) -> float:
    """Return l2 of the exact solver on so many train rows."""
    return settings.l2 or 1 / ((settings.C or 1.0) * rows)


def row_weights(y: "Tensor", problem: Problem[Rows], settings: HeadSettings) -> "Tensor | None":
    """Return the weights (n,) of train rows with labels `y` (n,), None where all weigh the same."""
    return balanced_weights(y, len(problem.classes))[y] if settings.class_weight == "balanced" else None


def _finished(problem: Problem[Rows], head: Head, seconds: float) -> Epoch:
    """Return what an epoch's line says, of a finished head: mean cross-entropy without weights, and accuracy."""
    import torch

    network = head.module().to(problem.x.device)
    train, val = (
        torch.from_numpy(np.ascontiguousarray(rows)).to(problem.x.device) for rows in (problem.train, problem.val)
    )
    train_loss, train_accuracy = measure(network, problem.x, problem.y, train)
    val_loss, val_accuracy = measure(network, problem.x, problem.y, val) if len(val) else (None, None)
    return Epoch(1, seconds, train_loss, train_accuracy, val_loss, val_accuracy)
