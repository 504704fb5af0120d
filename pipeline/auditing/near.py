"""Rows that hold nearly the same picture: candidates by their features, confirmed on their pixels."""

import numpy as np

from pipeline.auditing.candidates import close_pairs
from pipeline.auditing.duplicates import Kind, Pair
from pipeline.auditing.pictures import differences, read_thumbnails
from pipeline.features import Features
from pipeline.progress import Stages, silent
from pipeline.sources.source import Source

FLOOR = 0.3
"""Similarity from which pixels are looked at: a copy resized to half or flipped may be as far as this."""
TWIN = 0.9
"""Similarity from which a pair is worth showing whose pixels do not confirm it, or are not to be had."""
MOST = 10_000
"""Pairs that are no copies, or that nobody can confirm, are listed up to here, the closest: weak features, and the
frames of a film, have millions."""
SAME = 0.015
"""Difference of the pixels up to which two pictures are the same one."""
UNUSUAL = 1 / 8
"""And the share up to which of what is usual among close features: where all pictures look alike, as digits of a few
pixels do, a small difference says nothing."""


def near_duplicates(
    features: Features,
    source: Source | None,
    *,
    workers: int | None = None,
    stages: Stages = silent,
) -> list[Pair]:
    """Return pairs of rows of other bytes that hold the same picture, within and across splits.

    Pairs with close features, found by `candidates.close_pairs`, are compared on thumbnails of their images: the same
    picture is a `copy`, re-encoded or resized, or `mirrored`; another one is a `twin` if the features are very close.

    Args:
        features: rows (n, *row_shape) with ids and digests.
        source: where their images are; without it all pairs are `unconfirmed`.
        workers: loading processes, by default one a core.
        stages: told of the search, which counts rows, and of the reading, which counts images.

    Returns:
        Pairs in the order of their rows.

    Raises:
        DataError: if an image is gone or has changed, naming it.
    """
    with stages("copies", "rows") as report:
        pairs, cosines = close_pairs(features.x, floor=FLOOR, on_progress=report)
    if len(features.digests):
        other = (features.digests[pairs[:, 0]] != features.digests[pairs[:, 1]]).any(axis=1)
        pairs, cosines = pairs[other], cosines[other]
    if source is None:
        near = _closest(cosines, cosines >= TWIN)
        return [
            Pair(int(a), int(b), "unconfirmed", float(cosine), None)
            for (a, b), cosine in zip(pairs[near], cosines[near], strict=True)
        ]
    rows, places = np.unique(pairs, return_inverse=True)
    with stages("images", "images") as report:
        thumbnails = read_thumbnails(source, features, rows, workers=workers, on_progress=report)
    found = differences(thumbnails, places.reshape(pairs.shape))
    least = np.minimum(found.straight, found.mirrored)
    same = least <= _limits(pairs, least, len(features))
    kept = []
    for at in np.flatnonzero(same | _closest(cosines, ~same & (cosines >= TWIN))).tolist():
        flipped = found.mirrored[at] < found.straight[at]
        kind: Kind = "twin" if not same[at] else "mirrored" if flipped else "copy"
        kept.append(Pair(int(pairs[at, 0]), int(pairs[at, 1]), kind, float(cosines[at]), float(least[at])))
    return kept


def _closest(cosines: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return which pairs (m,) bool, of those asked for, have the MOST highest cosines; of equals the first."""
    places = np.flatnonzero(asked)
    kept = np.zeros_like(asked)
    kept[places[np.argsort(-cosines[places], kind="stable")[:MOST]]] = True
    return kept


def _limits(pairs: np.ndarray, differences: np.ndarray, n: int) -> np.ndarray:
    """Return up to which difference each pair (m, 2) of n rows is one picture.

    Usual for a row is the median of the differences above SAME: a row with many copies is compared with what is none.
    """
    from scipy.ndimage import median

    others = differences > SAME
    ends, values = pairs[others].ravel(), np.repeat(differences[others], 2)
    usual, there = np.full(n, np.inf), np.unique(ends)
    if len(there):
        usual[there] = median(values, ends, there)
    return np.asarray(np.minimum(SAME, UNUSUAL * usual[pairs].min(axis=1)))
