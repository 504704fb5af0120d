"""A cheap stand-in for the Hessian of logistic regression, inverted once: the preconditioner of `logistic`.

The Hessian of a row is (diag(p) - p p') ⊗ x x'. Its mean over rows is replaced by the product of the means,
A ⊗ S + l2 I, as in K-FAC (Martens & Grosse, ICML 2015), whose inverse needs one eigendecomposition of S (d, d) and
one of A (c, c). With it conjugate gradients need tens of products whatever the spread of the features.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.heads.rows import Rows, pick

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_ROWS, SAMPLE_FACTOR = 8192, 8
"""Rows that S is estimated from: at least so many, or so many times d."""
SMALLEST = 1e-4
"""Share of the largest eigenvalue of A below which a bias direction counts as flat (one always is: all ones)."""


@dataclass(frozen=True)
class FeatureCurvature:
    """S, the covariance of the features, as eigenvectors (d, d) and eigenvalues (d,), float32."""

    vectors: "Tensor"
    values: "Tensor"

    def preconditioner(self, a: "Tensor", l2: float) -> "Preconditioner":
        """Return the inverse for class curvature `a` (c, c)."""
        class_values, class_vectors = _eigen(a.cpu())
        class_values, class_vectors = class_values.clamp(min=0).to(a.device), class_vectors.to(a.device)
        flat = SMALLEST * class_values.max()
        return Preconditioner(
            self.vectors,
            class_vectors.float(),
            (class_values[:, None] * self.values + l2).float(),
            class_values.clamp(min=flat)[:, None].float(),
        )


@dataclass(frozen=True)
class Preconditioner:
    """(A ⊗ S + l2 I)^-1 in factors; the bias, which nothing regularises, is the last column."""

    feature_vectors: "Tensor"
    class_vectors: "Tensor"
    weight_values: "Tensor"
    bias_values: "Tensor"

    def __call__(self, gradient: "Tensor") -> "Tensor":
        """Map a gradient (c, d + 1) float64 to a step (c, d + 1) float64."""
        import torch

        rotated = self.class_vectors.T @ gradient.float()
        weight = (rotated[:, :-1] @ self.feature_vectors / self.weight_values) @ self.feature_vectors.T
        return (self.class_vectors @ torch.cat([weight, rotated[:, -1:] / self.bias_values], dim=1)).double()


def feature_curvature(x: Rows) -> tuple[FeatureCurvature, "Tensor"]:
    """Return the covariance of rows of `x` (n, d), estimated from evenly spread ones, and their mean (d,) float64.

    Raises:
        DataError: if features are not finite.
    """
    import torch

    n, d = x.shape
    step = max(1, n // max(SAMPLE_ROWS, SAMPLE_FACTOR * d))
    [sample] = (chunk.float() for chunk in pick(x, np.arange(0, n, step)).split(n))
    mean = sample.mean(dim=0, dtype=torch.float64)
    centred = sample - mean.float()
    covariance = centred.T @ centred / len(sample)
    if not torch.isfinite(covariance).all():
        raise DataError("features are not finite, or their squares are not: logistic regression has no optimum on them")
    values, vectors = _eigen(covariance)
    return FeatureCurvature(vectors, values.clamp(min=0)), mean


def _eigen(matrix: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return eigenvalues (d,) and eigenvectors (d, d) of a symmetric matrix, in its dtype.

    LAPACK's float32 routine gives up on some matrices of few rows, whose eigenvalues are nearly all 0; its float64 one,
    which takes twice as long, does not.
    """
    import torch

    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # made at run time
        values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(matrix.dtype), vectors.to(matrix.dtype)
