"""Groups of images that do badly: the source's own, or folders, whose out-of-fold accuracy is below that of the rest.

Each is tested against all other rows by Fisher's exact test, one-sided (R. A. Fisher, JRSS 85 (1922) 87), with Holm's
correction for all groups that are tested. What a group does worse at may be that its classes are harder ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.features import Features
from pipeline.metrics import wilson_interval
from pipeline.paired import holm

LEAST_ROWS, LEVEL, MOST_LEVELS = 10, 0.05, 8


@dataclass(frozen=True)
class WeakGroup:
    """A group that does significantly worse than the rest."""

    by: str
    """`group`, the source's own; or `folder:N`, the N-th folder of an id."""
    group: str
    n: int
    accuracy: float
    interval: tuple[float, float]
    """Wilson, 95 %."""
    rest: float
    """Accuracy of all other rows."""
    p_holm: float


def weak_groups(features: Features, rows: np.ndarray, right: np.ndarray) -> tuple[list[WeakGroup], int]:
    """Return the groups that do badly, the worst first, and how many were tested.

    Args:
        features: where rows come from.
        rows: (n,) positions.
        right: (n,) bool, whether each was judged right.
    """
    from scipy.stats import hypergeom

    tested = []
    for by, names in _groupings(features, rows):
        kinds, which = np.unique(np.array(names), return_inverse=True)
        sizes, own = np.bincount(which), np.bincount(which, right).astype(int)
        for name, n, good in zip(kinds.tolist(), sizes.tolist(), own.tolist(), strict=True):
            if LEAST_ROWS <= n < len(rows):
                tested.append((by, name, n, good))
    total, hits = len(rows), int(right.sum())
    ps = [float(hypergeom.cdf(own, total, hits, n)) for _, _, n, own in tested]
    found = [
        WeakGroup(by, name, n, own / n, wilson_interval(own, n), (hits - own) / (total - n), p)
        for (by, name, n, own), p in zip(tested, holm(ps) if ps else (), strict=True)
        if p < LEVEL
    ]
    return sorted(found, key=lambda one: (one.p_holm, one.accuracy)), len(tested)


def _groupings(features: Features, rows: np.ndarray) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield ways to divide the rows, but for those that only say class or split again, or something twice."""
    y, split = features.y.numpy()[rows], features.split[rows] if len(features.split) else None
    seen = {_partition([features.classes[label] for label in y.tolist()])}
    if split is not None:
        seen.add(_partition(split.tolist()))
    for by, names in _named(features, rows):
        key = _partition(names)
        if key not in seen and 1 < len(set(names)) < len(names):
            seen.add(key)
            yield by, names


def _named(features: Features, rows: np.ndarray) -> Iterator[tuple[str, Sequence[str]]]:
    if features.groups:
        yield "group", [features.groups[row] for row in rows.tolist()]
    folders = [features.ids[row].split("/")[:-1] for row in rows.tolist()] if features.ids else [[]]
    for level in range(min(MOST_LEVELS, max(map(len, folders)))):
        yield f"folder:{level + 1}", [path[level] if level < len(path) else "" for path in folders]


def _partition(names: Sequence[str]) -> tuple[int, ...]:
    """Return the same for divisions that differ by their names alone."""
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(name, len(numbers)) for name in names)
