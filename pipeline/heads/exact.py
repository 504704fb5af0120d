"""Multinomial logistic regression to its optimum.

The loss is convex, so there is one best value; the gradient's norm tells how near it is. L-BFGS works on
preconditioned weights: Böhning's bound of the Hessian, (1/2) (I - 1/c) x X'X ("Multinomial logistic regression
algorithm", Ann. Inst. Statist. Math. 44 (1992) 197), has one eigendecomposition, after which the loss is nearly round
and tens of passes over the features are enough where plain L-BFGS takes hundreds.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CERTIFIED = 1e-6
"""Gradient norm relative to the start at which the optimum counts as reached."""
MAX_PASSES, HISTORY = 500, 20
CHUNK_ROWS = 8192
IN_FLOAT64_BYTES = 256 << 20
"""Features of up to so many bytes are computed in float64; larger ones in float32, summed in float64."""


@dataclass(frozen=True)
class Optimum:
    """Where the search ended."""

    weight: "Tensor"
    """(c, d) float32."""
    bias: "Tensor"
    """(c,) float32."""
    passes: int
    """Passes over the features, the one for the preconditioner included."""
    gradient_ratio: float
    """Norm of the gradient at the end over the norm at the start, where all weights are zero."""
    objective: float
    """C times the sum of the losses, plus half the squared norm of the weights."""

    @property
    def certified(self) -> bool:
        """Whether it is the optimum."""
        return self.gradient_ratio <= CERTIFIED


class _Problem:
    """The objective and its gradient over weights and bias (c, d + 1), divided by C n to be of order one."""

    def __init__(self, x: "Tensor", y: "Tensor", n_classes: int, c: float, class_weight: "Tensor | None") -> None:
        import torch

        self.n, self.d, self.c = len(x), x.shape[1], n_classes
        self.penalty = 1.0 / (c * self.n)
        small = x.numel() * 8 <= IN_FLOAT64_BYTES
        self.dtype = torch.float64 if small else torch.float32
        self.x = x.to(self.dtype)
        self.y = y
        self.row_weight = None if class_weight is None else class_weight[y].to(self.dtype)
        self.passes = 0

    def basis(self) -> "Tensor":
        """Return (d + 1, d + 1): columns in which the bound of the Hessian is the identity."""
        import torch

        gram = torch.zeros(self.d + 1, self.d + 1, dtype=torch.float64)
        for start in range(0, self.n, CHUNK_ROWS):
            chunk = self.x[start : start + CHUNK_ROWS]
            chunk = torch.cat([chunk, torch.ones(len(chunk), 1, dtype=chunk.dtype)], dim=1)
            if self.row_weight is not None:
                chunk = chunk * self.row_weight[start : start + CHUNK_ROWS, None].sqrt()
            gram += (chunk.T @ chunk).double()
        self.passes += 1
        # A probability p has p (1 - p), at most 1/4 and at the start (1/c) (1 - 1/c); in between is near enough.
        share = 1.0 / self.c
        curvature = gram / self.n * max(share * (1 - share), 0.05)
        curvature[range(self.d), range(self.d)] += self.penalty
        values, vectors = torch.linalg.eigh(curvature)
        floor = values[-1] * 1e-12
        basis: Tensor = vectors / values.clamp_min(float(floor)).sqrt()
        return basis

    def __call__(self, weights: "Tensor") -> tuple[float, "Tensor"]:
        """Return the objective and its gradient (c, d + 1) float64 at weights (c, d + 1) float64."""
        import torch
        from torch.nn import functional

        w, b = weights[:, : self.d].to(self.dtype), weights[:, self.d].to(self.dtype)
        gradient = torch.zeros_like(weights)
        total = 0.0
        for start in range(0, self.n, CHUNK_ROWS):
            chunk, labels = self.x[start : start + CHUNK_ROWS], self.y[start : start + CHUNK_ROWS]
            logs = functional.log_softmax(functional.linear(chunk, w, b).double(), dim=1)
            losses = -logs.gather(1, labels[:, None])[:, 0]
            residual = logs.exp()
            residual[torch.arange(len(labels)), labels] -= 1
            if self.row_weight is not None:
                weight = self.row_weight[start : start + CHUNK_ROWS].double()
                losses, residual = losses * weight, residual * weight[:, None]
            total += float(losses.sum())
            gradient[:, : self.d] += (residual.to(self.dtype).T @ chunk).double()
            gradient[:, self.d] += residual.sum(0)
        self.passes += 1
        weights_only = weights[:, : self.d]
        gradient /= self.n
        gradient[:, : self.d] += self.penalty * weights_only
        return total / self.n + 0.5 * self.penalty * float(weights_only.square().sum()), gradient


def solve_logistic(
    x: "Tensor", y: "Tensor", n_classes: int, *, c: float = 1.0, class_weight: "Tensor | None" = None
) -> Optimum:
    """Find the weights that minimise C times the sum of the losses plus half the squared norm of the weights.

    The bias is not penalised. This is scikit-learn's `LogisticRegression(C=c)`.

    Args:
        x: features (n, d) float32.
        y: labels (n,) int64.
        n_classes: c, all classes, those without rows included.
        c: the inverse of the penalty.
        class_weight: factors (c,) of each class's losses.
    """
    import torch
    from scipy.optimize import minimize

    problem = _Problem(x, y, n_classes, c, class_weight)
    basis = problem.basis()
    shape = (n_classes, problem.d + 1)
    ratio, first = 1.0, 0.0
    best = torch.zeros(shape, dtype=torch.float64)

    def rounded(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal ratio, first, best
        weights = torch.from_numpy(flat).reshape(shape) @ basis.T
        value, gradient = problem(weights)
        norm = float(gradient.norm())
        first = first or norm
        if norm / first <= ratio:
            ratio, best = norm / first, weights
        return value, (gradient @ basis).numpy().ravel()

    def stop(_: np.ndarray) -> None:
        if ratio <= CERTIFIED:
            raise StopIteration

    minimize(
        rounded,
        np.zeros(shape).ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={"maxcor": HISTORY, "maxfun": MAX_PASSES, "maxiter": MAX_PASSES, "ftol": 0.0, "gtol": 0.0},
    )
    value, gradient = problem(best)
    return Optimum(
        best[:, : problem.d].float(),
        best[:, problem.d].float(),
        problem.passes,
        float(gradient.norm()) / (first or 1.0),
        value / problem.penalty,
    )
