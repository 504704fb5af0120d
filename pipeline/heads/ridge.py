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
from pipeline.heads.rows import Rows

if TYPE_CHECKING:
    import torch
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
        size = float(self.values.mean()) or 1.0  # of features that are all the same any will do
        return [factor * size for factor in PATH]

    def solve(self, l2: float) -> tuple["Tensor", "Tensor"]:
        """Return weight (c, d) and bias (c,), float64."""
        weight = (self.vectors @ (self.targets / (self.values + l2)[:, None])).T
        return weight, self.target_mean - weight @ self.mean

    def accuracies(self, x: Rows, y: "Tensor", path: list[float]) -> list[float]:
        """Return the accuracy on rows (n, d) for every l2 of a path; the rows are rotated once."""
        right = [0] * len(path)
        for chunk, labels in zip(x.split(CHUNK_ROWS), y.split(CHUNK_ROWS), strict=True):
            rotated = (chunk.double() - self.mean) @ self.vectors
            for place, l2 in enumerate(path):
                scores = rotated @ (self.targets / (self.values + l2)[:, None]) + self.target_mean
                right[place] += int((scores.argmax(dim=1) == labels).sum())
        return [count / len(y) for count in right]


def ridge_path(x: Rows, y: "Tensor", n_classes: int, row_weights: "Tensor | None" = None) -> RidgePath:
    """Decompose features `x` (n, d) with labels `y` (n,) in one pass; `row_weights` (n,) default to 1.

    Sums are taken of rows less the mean of the first chunk and corrected at the end: without it the covariance of
    features far from 0 would be a small difference of large sums (Chan, Golub & LeVeque, 1983).

    Raises:
        DataError: if features are not finite.
    """
    import torch

    n, d = x.shape
    share = (torch.ones(n, device=x.device) if row_weights is None else row_weights).double() / n
    shift, sums = torch.zeros(d, dtype=torch.float64, device=x.device), _Sums.zeros(d, n_classes, x.device)
    for number, (chunk, labels, weights) in enumerate(
        zip(x.split(CHUNK_ROWS), y.split(CHUNK_ROWS), share.split(CHUNK_ROWS), strict=True)
    ):
        if not number:
            shift = chunk.mean(dim=0, dtype=torch.float64)
        sums.add(chunk.double() - shift, _targets(labels, n_classes), weights)
    total = share.sum()
    moved, target_mean = sums.rows / total, sums.targets / total
    covariance = sums.squares - total * torch.outer(moved, moved)
    with_targets = sums.products - total * torch.outer(moved, target_mean)
    if not torch.isfinite(covariance).all():
        raise DataError("features are not finite, or their squares are not: ridge regression has no solution on them")
    values, vectors = torch.linalg.eigh(covariance)
    return RidgePath(vectors, values.clamp(min=0), vectors.T @ with_targets, shift + moved, target_mean)


@dataclass(frozen=True)
class _Sums:
    """Weighted sums over rows (m, d) and targets (m, c), float64."""

    rows: "Tensor"
    targets: "Tensor"
    squares: "Tensor"
    products: "Tensor"

    @classmethod
    def zeros(cls, d: int, c: int, device: "torch.device") -> "_Sums":
        import torch

        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((d,), (c,), (d, d), (d, c))))

    def add(self, rows: "Tensor", targets: "Tensor", weights: "Tensor") -> None:
        weighted = rows.T * weights
        self.rows.add_(weighted.sum(dim=1))
        self.targets.add_(weights @ targets)
        self.squares.addmm_(weighted, rows)
        self.products.addmm_(weighted, targets)


def _targets(y: "Tensor", n_classes: int) -> "Tensor":
    from torch.nn import functional

    return 2 * functional.one_hot(y, n_classes).double() - 1
