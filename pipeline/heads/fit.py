"""From features and a recipe to a head, whatever the solver."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.features import Features
from pipeline.heads.closed import class_means, ridge_path
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.logistic import solve_logistic
from pipeline.heads.minibatch import Epoch, mlp, train_minibatch, train_module
from pipeline.heads.mlp import MlpHead
from pipeline.heads.neighbours import KnnHead
from pipeline.heads.settings import HeadSettings
from pipeline.heads.transform import Transform, fit_transform

OnEpoch = Callable[[Epoch], None] | None
ALPHAS = tuple(10.0**power for power in range(-4, 7))
"""Penalties of ridge that are tried, times the mean squared length of a feature's column."""


@dataclass(frozen=True)
class Fitted:
    """A head and how it was found."""

    head: Head
    epochs: list[Epoch]
    """Of solvers without epochs one, of the finished head."""
    report: dict[str, Any]
    """What the solver says of itself, plain JSON."""


def fit_head(
    features: Features,
    train: np.ndarray,
    val: np.ndarray,
    settings: HeadSettings,
    device: torch.device,
    on_epoch: OnEpoch = None,
) -> Fitted:
    """Train a head on rows (n,) of features, with validation rows (m,) for figures, choices and stopping.

    Raises:
        DataError: if the loss stops being a number, or an optimum is not reached.
        UsageError: if training is to stop early and there are no validation rows.
    """
    transform = fit_transform(features.x, train, standardize=settings.standardize, l2_norm=settings.l2_norm)
    bound = _Bound(features, transform)
    if settings.solver == "minibatch":
        return _minibatch(bound, train, val, settings, device, on_epoch)
    started = time.perf_counter()
    rows = torch.from_numpy(np.ascontiguousarray(train))
    x, y = transform(features.x[rows]), features.y[rows]
    head, report = SOLVERS[settings.solver](bound, x, y, val, settings)
    epoch = Epoch(1, time.perf_counter() - started, *_loss(head, features, train), *_loss(head, features, val))
    if on_epoch is not None:
        on_epoch(epoch)
    return Fitted(head, [epoch], report)


Found = tuple[Head, dict[str, Any]]
"""A head, and what its solver says of itself."""


@dataclass(frozen=True)
class _Bound:
    """What every head of these features is bound to."""

    features: Features
    transform: Transform

    @property
    def n_classes(self) -> int:
        return len(self.features.classes)

    def linear(self, weight: Tensor, bias: Tensor) -> LinearHead:
        f = self.features
        return LinearHead(weight, bias, f.classes, f.space, f.space_sha256, self.transform)


def _minibatch(
    bound: _Bound, train: np.ndarray, val: np.ndarray, settings: HeadSettings, device: torch.device, on_epoch: OnEpoch
) -> Fitted:
    f, transform = bound.features, bound.transform
    x = (f.x if transform.plain else _transformed(transform, f.x)).to(device)
    arguments: Any = (x, f.y.to(device), train, val, bound.n_classes, settings, on_epoch)
    if not settings.hidden and not settings.early_stopping:
        weight, bias, epochs = train_minibatch(*arguments)
        return Fitted(bound.linear(weight, bias), epochs, {})

    def make() -> torch.nn.Module:
        if settings.hidden:
            return mlp(x.shape[1], settings.hidden, bound.n_classes, settings.dropout)
        return torch.nn.Linear(x.shape[1], bound.n_classes)

    module, epochs, best = train_module(make, *arguments)
    state = [tensor.cpu() for tensor in module.state_dict().values()]
    head: Head = bound.linear(state[0], state[1])
    if settings.hidden:
        head = MlpHead(state[0], state[1], state[2], state[3], f.classes, f.space, f.space_sha256, transform)
    return Fitted(head, epochs, {"best_epoch": best} if settings.early_stopping else {})


def _transformed(transform: Transform, x: Tensor) -> Tensor:
    return torch.cat([transform(chunk) for chunk in x.split(8192)])


def _exact(bound: _Bound, x: Tensor, y: Tensor, _val: np.ndarray, settings: HeadSettings) -> Found:
    weights = None
    if settings.class_weight == "balanced":
        counts = torch.bincount(y, minlength=bound.n_classes)
        weights = (len(y) / (bound.n_classes * counts.clamp_min(1)))[y]
    found = solve_logistic(x, y, bound.n_classes, 1.0 / (settings.c * len(x)), weights)
    report = {
        "iterations": found.iterations,
        "products": found.products,
        "gradient_norm_ratio": found.gradient_norm_ratio,
        "objective": found.objective,
    }
    return bound.linear(found.weight, found.bias), report


def _ridge(bound: _Bound, x: Tensor, y: Tensor, val: np.ndarray, settings: HeadSettings) -> Found:
    scale = float(x.double().square().sum() / x.shape[1])
    alphas = (settings.alpha,) if settings.alpha is not None else tuple(alpha * scale / len(x) for alpha in ALPHAS)
    if settings.alpha is None and not len(val):
        alphas = (scale / len(x),)
    heads = [bound.linear(found.weight, found.bias) for found in ridge_path(x, y, bound.n_classes, alphas)]
    right = [_loss(head, bound.features, val)[1] or 0.0 for head in heads]
    best = max(range(len(heads)), key=right.__getitem__)
    return heads[best], {"alpha": alphas[best], "tried": [list(pair) for pair in zip(alphas, right, strict=True)]}


def _centroid(bound: _Bound, x: Tensor, y: Tensor, _val: np.ndarray, _: HeadSettings) -> Found:
    found = class_means(x, y, bound.n_classes)
    return bound.linear(found.weight, found.bias), {}


def _knn(bound: _Bound, x: Tensor, y: Tensor, _val: np.ndarray, settings: HeadSettings) -> Found:
    f = bound.features
    rows = functional.normalize(x, dim=1)
    k, temperature = min(settings.k, len(x)), settings.temperature
    return KnnHead(rows, y, k, temperature, f.classes, f.space, f.space_sha256, bound.transform), {"k": k}


SOLVERS = {"exact": _exact, "ridge": _ridge, "centroid": _centroid, "knn": _knn}


def _loss(head: Head, features: Features, rows: np.ndarray) -> tuple[Any, Any]:
    """Return the mean loss and the accuracy on some rows, Nones without any."""
    if not len(rows):
        return None, None
    at = torch.from_numpy(np.ascontiguousarray(rows))
    logits, labels = head.logits(features.x[at]), features.y[at]
    return float(functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())
