"""Ridge regression on class indicators, in closed form, for every regularisation from one eigendecomposition.

It minimises, over W (c, d) and b (c,), with targets t_ic = 1 for the row's class and -1 for the others,

    1/(2n) sum_i s_i |W x_i + b - t_i|^2 + l2/2 |W|^2

which is scikit-learn's RidgeClassifier with alpha = n l2. With S = Q diag(v) Q' the covariance of the rows and R
that of rows with targets, W = (Q diag(1 / (v + l2)) Q' R)': a new l2 only rescales (big_vision's few-shot probe does
the same). All of it is float64. `calibration` makes logits of the scores W x + b.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import DataError
from pipeline.heads.head import CHUNK_ROWS

if TYPE_CHECKING:
    from torch import Tensor

PATH = tuple(10 ** (tenth / 2) for tenth in range(-14, 5))
"""Values of l2 that are tried where none is given, times the mean variance of the features: 1e-7 to 100."""


@dataclass(frozen=True)
class RidgePath:
    """The eigendecomposition, from which every solution follows."""

    vectors: "Tensor"
    """(d, d) float64, and their eigenvalues (d,)."""
    values: "Tensor"
    targets: "Tensor"
    """(d, c): the covariance of rows and targets, in the eigenvectors' coordinates."""
    mean: "Tensor"
    """(d,), and of the targets (c,)."""
    target_mean: "Tensor"

    def default_l2(self) -> list[float]:
        """Return the values of PATH for these features."""
        size = float(self.values.mean())
        return [factor * size for factor in PATH]

    def solve(self, l2: float) -> tuple["Tensor", "Tensor"]:
        """Return weight (c, d) and bias (c,), float64."""
        weight = (self.vectors @ (self.targets / (self.values + l2)[:, None])).T
        return weight, self.target_mean - weight @ self.mean

    def accuracies(self, x: "Tensor", y: "Tensor", path: list[float]) -> list[float]:
        """Return the accuracy on rows (n, d) for every l2 of a path; the rows are rotated once."""
        rotated = (x.double() - self.mean) @ self.vectors
        found = []
        for l2 in path:
            scores = rotated @ (self.targets / (self.values + l2)[:, None]) + self.target_mean
            found.append(float((scores.argmax(dim=1) == y).double().mean()))
        return found


def ridge_path(x: "Tensor", y: "Tensor", n_classes: int, row_weights: "Tensor | None" = None) -> RidgePath:
    """Decompose features `x` (n, d) with labels `y` (n,); `row_weights` (n,) default to 1.

    Raises:
        DataError: if features are not finite.
    """
    import torch

    n, d = x.shape
    share = (torch.ones(n, device=x.device) if row_weights is None else row_weights).double() / n
    total = share.sum()
    mean, target_mean = (torch.zeros(size, dtype=torch.float64, device=x.device) for size in (d, n_classes))
    for rows in torch.arange(n, device=x.device).split(CHUNK_ROWS):
        mean += share[rows] @ x[rows].double() / total
        target_mean += share[rows] @ _targets(y[rows], n_classes) / total
    covariance = torch.zeros(d, d, dtype=torch.float64, device=x.device)
    with_targets = torch.zeros(d, n_classes, dtype=torch.float64, device=x.device)
    for rows in torch.arange(n, device=x.device).split(CHUNK_ROWS):
        centred = x[rows].double() - mean
        weighted = centred.T * share[rows]
        covariance += weighted @ centred
        with_targets += weighted @ (_targets(y[rows], n_classes) - target_mean)
    if not torch.isfinite(covariance).all():
        raise DataError("features are not finite: ridge regression has no solution on them")
    values, vectors = torch.linalg.eigh(covariance)
    return RidgePath(vectors, values.clamp(min=0), vectors.T @ with_targets, mean, target_mean)


def _targets(y: "Tensor", n_classes: int) -> "Tensor":
    from torch.nn import functional

    return 2 * functional.one_hot(y, n_classes).double() - 1
