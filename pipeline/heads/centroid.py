"""The nearest class mean, as a linear head."""

from typing import TYPE_CHECKING

from pipeline.errors import DataError
from pipeline.heads.head import CHUNK_ROWS
from pipeline.heads.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


def fit_centroids(x: Rows, y: "Tensor", classes: tuple[str, ...]) -> tuple["Tensor", "Tensor"]:
    """Return weight (c, d) and bias (c,), float64, for features `x` (n, d) with labels `y` (n,).

    With m_k the mean of class k, the score of a row is m_k x - |m_k|^2 / 2, which is -|x - m_k|^2 / 2 but for a term
    that all classes share: the largest is the nearest mean's, as in scikit-learn's NearestCentroid.

    Raises:
        DataError: if a class has no rows.
    """
    import torch

    count = torch.bincount(y, minlength=len(classes)).double()
    missing = [name for name, rows in zip(classes, count.tolist(), strict=True) if not rows]
    if missing:
        raise DataError(
            f"{len(missing)} classes have no train rows and so no centroid: {', '.join(missing[:5])}",
            "Another --solver does without them, as a smaller --val-fraction may.",
        )
    means = torch.zeros(len(classes), x.shape[1], dtype=torch.float64, device=x.device)
    for chunk, labels in zip(x.split(CHUNK_ROWS), y.split(CHUNK_ROWS), strict=True):
        means.index_add_(0, labels, chunk.double())
    means /= count[:, None]
    if not torch.isfinite(means).all():
        raise DataError("features are not finite: they have no mean")
    return means, -0.5 * means.square().sum(dim=1)
