"""How many images each class has, split by split."""

from dataclasses import dataclass

import numpy as np

from pipeline.features import Features


@dataclass(frozen=True)
class ClassCount:
    """Images of a class."""

    name: str
    train: int
    """Of all rows, where features have no splits."""
    val: int
    test: int


@dataclass(frozen=True)
class Balance:
    """Classes, the largest of train first."""

    classes: tuple[ClassCount, ...]

    @property
    def ratio(self) -> float | None:
        """Train images of the largest class to those of the smallest, None where a class has none."""
        smallest = self.classes[-1].train
        return self.classes[0].train / smallest if smallest else None

    @property
    def absent(self) -> tuple[tuple[str, str], ...]:
        """(class, split) of classes that a split, which has others, has no image of."""
        there = [split for split in ("train", "val", "test") if any(getattr(one, split) for one in self.classes)]
        return tuple((one.name, split) for one in self.classes for split in there if not getattr(one, split))


def balance_of(features: Features) -> Balance:
    """Count the images of each class."""
    y, c = features.y.numpy(), len(features.classes)
    splits = ("train", "val", "test") if len(features.split) else ("train",)
    counts = np.zeros((3, c), np.int64)
    for place, split in enumerate(splits):
        counts[place] = np.bincount(y[features.rows(split)], minlength=c)
    order = np.argsort(-counts[0], kind="stable")
    return Balance(tuple(ClassCount(features.classes[one], *counts[:, one].tolist()) for one in order.tolist()))
