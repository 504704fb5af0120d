"""What a page tells of outcomes: which rows to show, confused pairs. Plain numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.outcomes import Outcomes
from pipeline.reporting.embedding import Embedding

WORST = 60
"""Errors shown, the most confident first."""
CELL_IMAGES = 12
"""Images kept for a cell of the confusion matrix."""
MOST_CLASSES = 30
"""Classes up to which the matrix itself is shown; the most confused pairs always are."""
MOST_PAIRS = 200


def worst_errors(outcomes: Outcomes) -> list[int]:
    """Return up to 60 rows that the head got wrong, those it was most sure of first; ties in source order."""
    wrong = np.flatnonzero(~outcomes.right)
    order = np.argsort(-outcomes.confidence[wrong], kind="stable")
    return [int(row) for row in wrong[order][:WORST]]


def confused_pairs(confusions: Sequence[Sequence[int]], totals: Sequence[int]) -> list[dict[str, Any]]:
    """Return up to 200 pairs of classes that were confused, the most frequent first, with the share of the true one.

    Args:
        confusions: (true, predicted, rows) of errors, as `evaluate` has them.
        totals: rows of each class (c,).
    """
    return [
        {"true": true, "said": said, "n": n, "share": n / totals[true]} for true, said, n in confusions[:MOST_PAIRS]
    ]


def cell_images(outcomes: Outcomes, cells: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    """Return up to 12 rows of each cell (true, predicted) of the matrix under `true,predicted`.

    Of errors the most confident come first, of right rows the least confident: both are what there is to learn from.
    """
    found: dict[str, list[int]] = {}
    c = len(outcomes.classes)
    place = outcomes.y * c + outcomes.predicted
    order = np.argsort(place, kind="stable")
    edges = place[order]
    for true, said in cells:
        low, high = np.searchsorted(edges, [true * c + said, true * c + said + 1])
        rows = order[low:high]
        sure = outcomes.confidence[rows] if true == said else -outcomes.confidence[rows]
        if len(rows):
            found[f"{true},{said}"] = [int(row) for row in rows[np.argsort(sure, kind="stable")][:CELL_IMAGES]]
    return found


def shown_rows(worst: list[int], cells: dict[str, list[int]], embedding: Embedding | None) -> list[int]:
    """Return all test rows that a page shows, in source order."""
    rows = {*worst, *(row for cell in cells.values() for row in cell)}
    if embedding is not None:
        rows |= set(embedding.rows.tolist())
    return sorted(rows)
