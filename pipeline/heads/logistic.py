"""Multinomial logistic regression to its optimum, by Newton's method with preconditioned conjugate gradients.

It minimises, over W (c, d) and b (c,),

    1/n sum_i s_i cross_entropy(W x_i + b, y_i) + l2/2 |W|^2

which is scikit-learn's LogisticRegression with C = 1 / (n l2), bias not regularised. The problem is convex: where
the gradient vanishes is the optimum, and how nearly it does is measured in float64 and returned.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import DataError
from pipeline.heads.curvature import FeatureCurvature, feature_curvature
from pipeline.heads.objective import Point, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.heads.rows import Rows

TOLERANCE = 1e-6
"""Norm of the gradient, relative to that of zero weights, at which the optimum counts as reached."""
FAINT, ROUNDING = 1e-4, 1e-13
"""Norms of the gradient, relative to the features' mean: below the first float32 shows little else than its own
rounding, and float64 does below the second."""
MAX_STEPS, MAX_PRODUCTS, MAX_HALVINGS = 60, 300, 25


@dataclass(frozen=True)
class Optimum:
    """The solution, and the proof that it is one."""

    weight: "Tensor"
    """(c, d) float32."""
    bias: "Tensor"
    """(c,) float32."""
    objective: float
    gradient_norm_ratio: float
    """Euclidean norm of the gradient by W and b in float64, relative to that at zero; larger than TOLERANCE only where
    the latter is next to rounding, as of features that are all the same."""
    iterations: int
    """Newton steps."""
    products: int
    """Products with the Hessian; each costs about one pass over the features, as a gradient does."""


class NotReached(DataError):
    """The gradient does not come down to TOLERANCE."""


def solve_logistic(x: "Rows", y: "Tensor", n_classes: int, l2: float, row_weights: "Tensor | None" = None) -> Optimum:
    """Return the optimum for features `x` (n, d), float32 or float16, and labels `y` (n,).

    Args:
        x: features, on any device, in memory or streamed: each step and product is a pass over them.
        y: positions of the classes.
        n_classes: c.
        l2: above 0; in the units of the formula above.
        row_weights: s (n,); default 1.

    Raises:
        DataError: if features are not finite.
        NotReached: if the gradient does not come down to TOLERANCE.
    """
    [(_, found)] = solve_logistic_path(x, y, n_classes, [l2], row_weights)
    if isinstance(found, NotReached):
        raise found
    return found


def solve_logistic_path(
    x: "Rows", y: "Tensor", n_classes: int, l2s: Sequence[float], row_weights: "Tensor | None" = None
) -> Iterator[tuple[float, Optimum | NotReached]]:
    """Yield each of several `l2s` once, from the largest on, with the optimum, or with why it was not reached.

    The other arguments are those of `solve_logistic`. The most regularised comes first and each of the others starts
    where the one before ended (Friedman, Hastie & Tibshirani, 2010); the features' covariance is decomposed once.

    Raises:
        DataError: if features are not finite.
    """
    import torch

    share = torch.ones(len(x), device=x.device) if row_weights is None else row_weights
    share = share.double()[:, None] / len(x)
    curvature, mean = feature_curvature(x)
    theta: Tensor | None = None
    for l2 in sorted(set(l2s), reverse=True):
        newton = _Newton(Problem(x, y, share, n_classes, l2, mean), curvature, theta)
        try:
            theta, optimum = newton.run()
        except NotReached as error:
            yield l2, error.with_traceback(None)  # whose frames hold the features
        else:
            yield l2, optimum


class _Newton:
    """Steps from zero weights, or from `theta`, to the optimum: in float32 as far as that leads, then in float64."""

    def __init__(self, problem: Problem, curvature: FeatureCurvature, theta: "Tensor | None" = None) -> None:
        import torch

        self.problem, self.curvature = problem, curvature
        d, device = problem.x.shape[1], problem.x.device
        zeros = torch.zeros(problem.n_classes, d + 1, dtype=torch.float64, device=device)
        self.zero = problem.point(zeros)
        size = math.hypot(1.0, float(problem.mean.norm()))
        if self.zero.norm < FAINT * size:  # features say next to nothing of the classes
            problem.precise = True
            self.zero = problem.point(zeros)
        if not torch.isfinite(self.zero.gradient).all():
            raise DataError(
                "features are not finite, or their squares are not: logistic regression has no optimum on them"
            )
        self.goal = max(TOLERANCE * self.zero.norm, ROUNDING * size)
        self.start = self.zero if theta is None else problem.point(theta)
        self.iterations = self.products = 0

    def run(self) -> tuple["Tensor", Optimum]:
        """Return the solution as `theta`, and as an Optimum."""
        point = self.start
        while self.iterations < MAX_STEPS:
            if point.norm <= self.goal:
                if self.problem.precise:
                    return point.theta, self._optimum(point)
                point = self._in_float64(point)
                continue
            following = self._step(point)
            if following is not None:
                point = following
            elif not self.problem.precise:
                point = self._in_float64(point)  # rounding hides the way down
            else:
                break
        raise NotReached(
            f"logistic regression stopped {self.iterations} steps on with a gradient of "
            f"{self._ratio(point):.1e} of the start's, not {TOLERANCE:.0e}",
            "--standardize, or a larger --l2 (a smaller --C), makes the problem better conditioned.",
        )

    def _in_float64(self, point: Point) -> Point:
        self.problem.precise = True
        return self.problem.point(point.theta)

    def _step(self, point: Point) -> Point | None:
        """Return the next point, None if there is no way down."""
        self.iterations += 1
        direction = self._direction(point)
        slope = float((direction * point.gradient).sum())
        length = 1.0
        for _ in range(MAX_HALVINGS if slope < 0 else 0):
            there = self.problem.point(point.theta + length * direction)
            ahead = float((direction * there.gradient).sum())
            # The objective is convex: where it still falls along the direction it is lower than it was. Close to
            # the optimum it differs by less than rounding, so slopes decide there, as in Hager & Zhang (2005).
            lower = there.objective <= point.objective + 1e-4 * length * slope
            if ahead <= 0 or lower or (abs(ahead) <= -0.5 * slope and there.norm < point.norm):
                return there
            length /= 2
        return None

    def _direction(self, point: Point) -> "Tensor":
        """Solve Hessian x direction = -gradient by preconditioned conjugate gradients, better the nearer it is.

        Nocedal & Wright, "Numerical Optimization", algorithm 7.1, with the forcing sequence of its equation 7.3.
        """
        import torch

        precondition = self.curvature.preconditioner(self.problem.class_curvature(point), self.problem.l2)
        direction, residual = torch.zeros_like(point.gradient), -point.gradient
        ratio = self._ratio(point)
        goal = min(0.3, max(ratio**0.5, 0.3 * self.goal / point.norm)) * float(residual.norm())
        z = precondition(residual)
        search, rz = z, float((residual * z).sum())
        for _ in range(MAX_PRODUCTS):
            product = self.problem.hessian(point, search)
            self.products += 1
            bend = float((search * product).sum())
            if not (bend > 0 and rz > 0):  # flat to rounding
                break
            direction = direction + rz / bend * search
            residual = residual - rz / bend * product
            if float(residual.norm()) <= goal:
                break
            z = precondition(residual)
            rz, before = float((residual * z).sum()), rz
            search = z + rz / before * search
        return direction

    def _ratio(self, point: Point) -> float:
        """Return the gradient's norm relative to that at zero, where nothing is left of it if that is the optimum."""
        return point.norm / self.zero.norm if self.zero.norm else point.norm

    def _optimum(self, point: Point) -> Optimum:
        weight = point.theta[:, :-1]
        bias = point.theta[:, -1] - weight @ self.problem.mean
        return Optimum(
            weight.float().cpu(),
            bias.float().cpu(),
            point.objective,
            self._ratio(point),
            self.iterations,
            self.products,
        )
