"""Rows on a map of two dimensions: PCA and t-SNE of scikit-learn, the same picture for the same features."""

from dataclasses import dataclass

import numpy as np

MAP_ROWS = 1500
"""Rows on a map: more points hide one another, and t-SNE takes long."""
FIRST_COMPONENTS = 50
"""What t-SNE starts from, as its authors advise: van der Maaten and Hinton, JMLR 9 (2008) 2579, section 4.2."""
FEWEST_ROWS = 5


@dataclass(frozen=True, eq=False)
class Embedding:
    """Where rows are on two maps."""

    rows: np.ndarray
    """(m,) positions among the outcomes."""
    pca: np.ndarray
    """(m, 2) in [0, 1]."""
    tsne: np.ndarray
    """(m, 2) in [0, 1]."""
    explained: float
    """Share of the variance that the two components of PCA have."""


def map_sample(n: int) -> np.ndarray:
    """Return which of n rows are on the map: all, or 1,500 drawn with a fixed seed, in order."""
    if n <= MAP_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, MAP_ROWS, replace=False))


def embed(x: np.ndarray, rows: np.ndarray) -> Embedding | None:
    """Return the maps of features x (m, d); None for fewer than five rows or features that do not vary."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    flat = x.reshape(len(x), -1).astype(np.float32)
    if len(flat) < FEWEST_ROWS or flat.shape[1] < 2 or not np.ptp(flat, axis=0).any():
        return None
    first = PCA(min(FIRST_COMPONENTS, *flat.shape), random_state=0)
    components = first.fit_transform(flat)
    perplexity = min(30.0, (len(flat) - 1) / 3)
    # Of its thousand short steps each waits for all threads: where cores are busy two take thrice as long as one.
    with threadpool_limits(1):
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(components)
    return Embedding(rows, _unit(components[:, :2]), _unit(tsne), float(first.explained_variance_ratio_[:2].sum()))


def _unit(points: np.ndarray) -> np.ndarray:
    """Scale points (m, 2) into the unit square, both axes alike."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    return np.asarray((points - low - span / 2) / max(float(span.max()), 1e-12) + 0.5)
