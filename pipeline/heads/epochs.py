"""The rows of an epoch in random order, block by block: from memory, with views or without, or from a stream."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.errors import UsageError
from pipeline.heads.balance import BalancedRows
from pipeline.heads.blocks import Blocks
from pipeline.heads.rows import Rows
from pipeline.heads.settings import HeadSettings
from pipeline.heads.viewed import ViewedRows, views_generator
from pipeline.streaming import StreamedRows

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Epochs(Protocol):
    """Each call is an epoch."""

    def __call__(self, generator: "Generator") -> "Iterator[tuple[Tensor, Tensor]]":
        """Yield blocks of features (m, d) float32 and labels (m,), valid until the next but one.

        Each but the last has whole batches.
        """


def epochs_over(x: Rows, y: "Tensor", train: np.ndarray, settings: HeadSettings) -> Epochs:
    """Return the epochs of a training on some rows of `x` (n, d) with labels `y` (n,).

    Raises:
        UsageError: if balanced batches are to be drawn from a stream.
    """
    import torch

    if isinstance(x, ViewedRows):
        return _Viewed(x, y, train, settings)
    if not isinstance(x, StreamedRows):
        assert isinstance(x, torch.Tensor)
        return _InMemory(x, y, train, settings)
    if settings.sampling == "balanced":
        raise UsageError(
            "--sampling balanced takes rows from anywhere, and the features do not fit into memory",
            "--class-weight balanced evens out the classes too; --stream never reads all features into memory.",
        )
    return _Streamed(x, y, train, settings)


class _InMemory:
    """All rows in the order of one permutation an epoch, or as many drawn class by class."""

    def __init__(self, x: "Tensor", y: "Tensor", train: np.ndarray, settings: HeadSettings) -> None:
        import torch

        self.train = torch.from_numpy(np.ascontiguousarray(train)).to(x.device)
        self.balanced = BalancedRows(self.train, y[self.train]) if settings.sampling == "balanced" else None
        self.blocks = Blocks(x, y, settings.batch_size)

    def __call__(self, generator: "Generator") -> "Iterator[tuple[Tensor, Tensor]]":
        return self.blocks(self.order(generator))

    def order(self, generator: "Generator") -> "Tensor":
        """Return the rows (m,) of an epoch."""
        import torch

        if self.balanced is not None:
            return self.balanced.draw(generator).to(self.train.device)
        return self.train[torch.randperm(len(self.train), generator=generator).to(self.train.device)]


class _Viewed:
    """The same rows in the same order, each in one of its views."""

    def __init__(self, x: ViewedRows, y: "Tensor", train: np.ndarray, settings: HeadSettings) -> None:
        self.x, self.rows = x, _InMemory(x.every, x.labels(y), train, settings)
        self.generator = views_generator(settings.seed)

    def __call__(self, generator: "Generator") -> "Iterator[tuple[Tensor, Tensor]]":
        import torch

        order = self.rows.order(generator)
        views = torch.randint(self.x.count, (len(order),), generator=self.generator)
        return self.rows.blocks(self.x.places(order, views.to(order.device)))


class _Streamed:
    """All rows in the order that `pipeline.streaming` describes."""

    def __init__(self, x: StreamedRows, y: "Tensor", train: np.ndarray, settings: HeadSettings) -> None:
        import torch

        self.x, self.y = x.select(train), y[torch.from_numpy(np.ascontiguousarray(train)).to(y.device)]
        self.batch_size = settings.batch_size

    def __call__(self, generator: "Generator") -> "Iterator[tuple[Tensor, Tensor]]":
        for positions, features in self.x.shuffled(generator, self.batch_size):
            yield features.float(), self.y[positions.to(self.y.device)]
