"""Smaller training sets out of a larger one: so many images a class, or a share of each class, nested in each draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UsageError

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the train rows that are tried by default."""


@dataclass(frozen=True)
class TrainingSize:
    """How many images train, in all and of each class."""

    counts: tuple[int, ...]
    """Of each class, c of them."""
    shots: int | None
    """Images a class, where it is the same for all; else `fraction` is given."""
    fraction: float | None
    """Share of the train rows, of each class alike and at least one image."""

    @property
    def rows(self) -> int:
        """In all."""
        return sum(self.counts)


def training_sizes(
    per_class: Sequence[int], shots: Sequence[int] | None = None, fractions: Sequence[float] | None = None
) -> list[TrainingSize]:
    """Return training-set sizes, smallest first, none twice.

    Where neither is given: 1, 2, 4, … images a class, to 1/32 of the smallest, then shares of 1/16 to 1.
    Such sizes are nested even where classes differ in size: no class has fewer images in a larger one.

    Args:
        per_class: images of each class (c,); classes without any are left out everywhere.
        shots: images a class; classes must have as many.
        fractions: shares of the train rows, above 0 and at most 1.

    Raises:
        UsageError: if a size is out of range.
    """
    smallest = min(count for count in per_class if count)
    if shots is None and fractions is None:
        shots = [2**power for power in range(64) if 2**power <= max(1, smallest // 32)]
        fractions = SHARES
    sizes = []
    for images in shots or ():
        if not 1 <= images <= smallest:
            raise UsageError(
                f"{images} images a class cannot be drawn: the smallest class has {smallest:,} train images",
                f"Give --shots from 1 to {smallest:,}.",
            )
        sizes.append(TrainingSize(tuple(min(images, count) for count in per_class), images, None))
    for share in fractions or ():
        if not 0 < share <= 1:
            raise UsageError(f"fractions must be above 0 and at most 1, not {share:g}")
        counts = tuple(min(count, max(1, round(share * count))) for count in per_class)
        sizes.append(TrainingSize(counts, None, share))
    # Of sizes that hold the same rows the last one stays: the shares say more of a small source.
    return sorted({size.counts: size for size in sizes}.values(), key=lambda size: size.rows)


def draw_subsets(y: np.ndarray, rows: np.ndarray, sizes: Sequence[TrainingSize], seed: int) -> list[np.ndarray]:
    """Draw a training set of each size: the first of each class in one random order, so that larger hold smaller.

    Args:
        y: labels (n,) int64, positions of c classes.
        rows: positions (m,) of those that may train.
        sizes: what to draw, as many counts as classes.
        seed: of the order.

    Returns:
        Positions for each size, rising.
    """
    random = np.random.default_rng(seed)
    shuffled = random.permutation(rows)
    orders = [shuffled[y[shuffled] == label] for label in range(len(sizes[0].counts))]
    return [
        np.sort(np.concatenate([order[:count] for order, count in zip(orders, size.counts, strict=True)]))
        for size in sizes
    ]
