"""Images unlike all others: far from their nearest neighbours in the space of normalised features.

The score of a row is its mean cosine distance, in [0, 2], to its k nearest reference rows (Angiulli and Pizzuti, PKDD
2002, who sum them). Where there are many rows the references are a random sample of them, whose k nearest lie farther
off for every row alike: Sugiyama and Borgwardt, NIPS 2013, found such scores as good as those of all rows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.progress import OnProgress, Progress, ignore

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

K, REFERENCES, CHUNK_ROWS = 10, 8192, 2048


@dataclass(frozen=True, eq=False)
class Distances:
    """How far each row (n,) is from its neighbours, and from where on that is far."""

    values: "NDArray[np.float64]"
    k: int
    references: int
    fence: float
    """Upper quartile + 3 interquartile ranges: Tukey, "Exploratory Data Analysis" (1977), calls what lies above
    far out."""

    @property
    def far(self) -> "NDArray[np.int64]":
        """Positions (m,) of rows above the fence, the farthest first."""
        order = np.argsort(-self.values, kind="stable")
        return order[self.values[order] > self.fence]


def neighbour_distances(
    x: "Tensor", pool: np.ndarray, *, k: int = K, seed: int = 0, on_progress: OnProgress = ignore
) -> Distances:
    """Return the distances of all rows of `x` (n, d) to those of `pool`, positions (m,) that references come from.

    A row is not its own neighbour; there must be at least 3 in the pool.
    """
    import torch

    rng = np.random.default_rng(seed)
    references = np.sort(rng.choice(pool, min(len(pool), REFERENCES), replace=False))
    k = min(k, len(references) - 1)
    bank = _unit(x[torch.from_numpy(references)])
    column = np.full(len(x), -1)
    column[references] = np.arange(len(references))
    values = np.empty(len(x))
    for first in range(0, len(x), CHUNK_ROWS):
        span = slice(first, first + CHUNK_ROWS)
        similarity = _unit(x[span]) @ bank.T
        own = np.flatnonzero(column[span] >= 0)
        similarity[torch.from_numpy(own), torch.from_numpy(column[span][own])] = -torch.inf
        values[span] = 1 - similarity.topk(k, dim=1).values.double().mean(dim=1).numpy()
        on_progress(Progress(min(first + CHUNK_ROWS, len(x)), len(x)))
    low, high = np.quantile(values, (0.25, 0.75))
    return Distances(values, k, len(references), float(high + 3 * (high - low)))


def _unit(x: "Tensor") -> "Tensor":
    import torch

    return torch.nn.functional.normalize(x.float(), dim=1)
