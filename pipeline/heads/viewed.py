"""Features of several views of each image: training draws one a row and epoch, all else sees the plain image."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor


@dataclass(frozen=True, eq=False)
class ViewedRows:
    """Feature rows (n, d) of plain images, with what solvers use of a tensor; further views of some beside them."""

    every: "Tensor"
    """(n + (k - 1) m, d): all rows of view 0, then those of `rows` of view 1, of view 2 and so on."""
    n: int
    rows: np.ndarray
    """The rows (m,) that have more than one view, rising."""
    count: int
    """k, view 0 included."""

    @property
    def plain(self) -> "Tensor":
        """View 0 (n, d)."""
        return self.every[: self.n]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.n, self.every.shape[1]

    @property
    def device(self) -> "torch.device":
        """Where they are."""
        return self.every.device

    def __len__(self) -> int:
        return self.n

    def split(self, size: int, /) -> "Sequence[Tensor]":
        """Return consecutive chunks (size, d) of view 0, the last perhaps smaller."""
        chunks: Sequence[Tensor] = self.plain.split(size)
        return chunks

    def to(self, device: "torch.device") -> "ViewedRows":
        """Return the same rows on a device."""
        return replace(self, every=self.every.to(device))

    def mapped(self, change: "Callable[[Tensor], Tensor]") -> "ViewedRows":
        """Return the rows with every view changed."""
        return replace(self, every=change(self.every))

    def places(self, rows: "Tensor", views: "Tensor") -> "Tensor":
        """Return where in `every` a view (m,) of each of some rows (m,) lies; the rows have more than one."""
        extra = self.n + (views - 1) * len(self.rows) + self._at[rows]
        return extra.where(views > 0, rows)

    def labels(self, y: "Tensor") -> "Tensor":
        """Return the label of each row of `every`, of labels (n,)."""
        import torch

        own = y[torch.from_numpy(self.rows).to(y.device)]
        return torch.cat([y, own.repeat(self.count - 1)])

    def all_views(self, rows: np.ndarray, y: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return all views (k m, d) of some rows (m,), view by view, and their labels."""
        import torch

        chosen = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        views = torch.arange(self.count, device=self.device).repeat_interleave(len(chosen))
        places = self.places(chosen.repeat(self.count), views)
        return self.every.index_select(0, places), y.index_select(0, chosen).repeat(self.count)

    @cached_property
    def _at(self) -> "Tensor":
        import torch

        at = torch.full((self.n,), -1, dtype=torch.int64)
        at[torch.from_numpy(self.rows)] = torch.arange(len(self.rows))
        return at.to(self.device)


def views_generator(seed: int) -> "Generator":
    """Return the generator that draws views. It is not that of the batches: their order stays what it is without."""
    import torch

    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(b"views %d" % seed).digest()[:8], "little"))
