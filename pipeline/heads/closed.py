"""Linear heads in closed form: ridge regression on one-hot labels, and the nearest class mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ROWS = 8192


@dataclass(frozen=True)
class Solution:
    """Weight (c, d) and bias (c,) float32 of a linear head."""

    weight: "Tensor"
    bias: "Tensor"


def ridge_path(x: "Tensor", y: "Tensor", n_classes: int, alphas: Sequence[float]) -> list[Solution]:
    """Solve ridge regression on one-hot labels for every alpha from one eigendecomposition.

    Minimises the squared errors plus alpha times the squared norm of the weights; the bias is not penalised. With
    X and Y centred and X'X = V diag(s) V', the weights are V diag(1 / (s + alpha)) V' X'Y, in float64.

    Args:
        x: features (n, d) float32.
        y: labels (n,) int64.
        n_classes: c.
        alphas: penalties, each above 0.
    """
    import torch
    from torch.nn import functional

    mean_x = torch.zeros(x.shape[1], dtype=torch.float64)
    for chunk in x.split(CHUNK_ROWS):
        mean_x += chunk.double().sum(0)
    mean_x /= len(x)
    mean_y = torch.bincount(y, minlength=n_classes).double() / len(y)
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    cross = torch.zeros(x.shape[1], n_classes, dtype=torch.float64)
    for chunk, labels in zip(x.split(CHUNK_ROWS), y.split(CHUNK_ROWS), strict=True):
        centred = chunk.double() - mean_x
        gram += centred.T @ centred
        cross += centred.T @ (functional.one_hot(labels, n_classes).double() - mean_y)
    values, vectors = torch.linalg.eigh(gram)
    turned = vectors.T @ cross
    found = []
    for alpha in alphas:
        weight = (vectors @ (turned / (values.clamp_min(0.0) + alpha)[:, None])).T
        found.append(Solution(weight.float(), (mean_y - weight @ mean_x).float()))
    return found


def class_means(x: "Tensor", y: "Tensor", n_classes: int) -> Solution:
    """Return the head whose logit of a class is minus half the squared distance to the mean of its rows.

    Up to what is the same for all classes, -|x - m|^2 / 2 = m'x - m'm / 2: a linear head. A class without rows is
    never predicted.

    Args:
        x: features (n, d) float32.
        y: labels (n,) int64.
        n_classes: c.
    """
    import torch

    sums = torch.zeros(n_classes, x.shape[1], dtype=torch.float64)
    for chunk, labels in zip(x.split(CHUNK_ROWS), y.split(CHUNK_ROWS), strict=True):
        sums.index_add_(0, labels, chunk.double())
    counts = torch.bincount(y, minlength=n_classes)
    means = sums / counts.clamp_min(1)[:, None]
    bias = -means.square().sum(1) / 2
    # Finite, so that it can be stored and exported, and below anything that a class with rows can have.
    bias[counts == 0] = torch.finfo(torch.float32).min / 4
    return Solution(means.float(), bias.float())
