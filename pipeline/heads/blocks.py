"""Rows of several batches gathered at once, the next block while the one before is used."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_BATCHES = 16
"""Batches gathered at once: 5 MB of 64 x 1,280 features, which stays in the second-level or third-level cache."""
BLOCK_BYTES = 32 << 20
"""That is gathered at once, at most but for one batch: of rows that are maps a batch may be that large."""


class Blocks:
    """Gathers rows of `x` (n, d) or (n, *row_shape) and `y` (n,) in any order, BLOCK_BATCHES batches at a time."""

    def __init__(self, x: "Tensor", y: "Tensor", batch_size: int) -> None:
        batches = BLOCK_BYTES // max(1, x[:1].nbytes * batch_size)
        self.x, self.y, self.rows = x, y, min(BLOCK_BATCHES, max(1, batches)) * batch_size
        self.buffers = [x.new_empty(min(self.rows, len(y)), *x.shape[1:]) for _ in range(2)]

    def __call__(self, order: "Tensor") -> "Iterator[tuple[Tensor, Tensor]]":
        """Yield features (m, *row_shape) float32 and labels (m,), valid until the next but one.

        On the CPU one is gathered ahead.
        """
        parts = order.split(self.rows)
        if order.device.type != "cpu":
            yield from (self._gather(parts, number) for number in range(len(parts)))
            return
        with ThreadPoolExecutor(1) as helper:
            ahead = helper.submit(self._gather, parts, 0)
            for number in range(1, len(parts) + 1):
                block = ahead.result()
                if number < len(parts):
                    ahead = helper.submit(self._gather, parts, number)
                yield block

    def _gather(self, parts: "tuple[Tensor, ...]", number: int) -> "tuple[Tensor, Tensor]":
        import torch

        rows = parts[number]
        features = torch.index_select(self.x, 0, rows, out=self.buffers[number % 2][: len(rows)])
        return features.float(), self.y.index_select(0, rows)
