"""The objective of logistic regression and its derivatives, each by one pass over the features in chunks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.heads.rows import Rows

CHUNK_ELEMENTS = 1 << 21
"""Features (8 MB) that a pass takes at a time: both its products find them in the last-level cache, and each is large
enough for several threads. Measured with 2 on 50,000 x 1,280: 55 ms a product with 2 MB, 38 with 8, 36 with 16."""


@dataclass(frozen=True)
class Point:
    """The objective and its derivatives at `theta` (c, d + 1): W, and the bias at the mean of the features."""

    theta: "Tensor"
    objective: float
    gradient: "Tensor"
    """By theta."""
    norm: float
    """Of the gradient by W and the bias at zero, as anybody else would take it."""
    probabilities: "Tensor"
    """(n, c)."""


@dataclass
class Problem:
    """Passes over the features. The bias belongs to centred features: it then hardly depends on W."""

    x: "Rows"
    y: "Tensor"
    share: "Tensor"
    """(n, 1) float64, weights of the rows, of sum 1."""
    n_classes: int
    l2: float
    mean: "Tensor"
    """(d,) float64."""
    precise: bool = False
    """Whether products are taken in float64 too, not only sums over chunks."""

    @property
    def dtype(self) -> "torch.dtype":
        """Of products over a chunk."""
        import torch

        return torch.float64 if self.precise else torch.float32

    def point(self, theta: "Tensor") -> Point:
        """Evaluate objective and gradient in one pass."""
        import torch

        probabilities = torch.empty(len(self.x), self.n_classes, dtype=self.dtype, device=self.x.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.x.device)
        data = torch.zeros_like(theta)
        for rows, chunk, share in self._chunks():
            log_p = self._outputs(theta, chunk).log_softmax(dim=1)
            labels = self.y[rows, None]
            loss -= (share * log_p.gather(1, labels)).sum(dtype=torch.float64)
            p = torch.exp(log_p, out=probabilities[rows])
            residual = p.scatter_add(1, labels, torch.full_like(share, -1)) * share
            self._add(data, residual, chunk)
        weight = theta[:, :-1]
        gradient = self._centred(data)
        gradient[:, :-1] += self.l2 * weight
        plain = gradient[:, :-1] + torch.outer(gradient[:, -1], self.mean)
        norm = math.hypot(float(plain.norm()), float(gradient[:, -1].norm()))
        objective = float(loss) + 0.5 * self.l2 * float(weight.square().sum())
        return Point(theta, objective, gradient, norm, probabilities)

    def hessian(self, point: Point, direction: "Tensor") -> "Tensor":
        """Return the Hessian at a point times a direction (c, d + 1), in one pass."""
        import torch

        data = torch.zeros_like(direction)
        for rows, chunk, share in self._chunks():
            p, moved = point.probabilities[rows].to(chunk.dtype), self._outputs(direction, chunk)
            change = p * (moved - (p * moved).sum(dim=1, keepdim=True)) * share
            self._add(data, change, chunk)
        product = self._centred(data)
        product[:, :-1] += self.l2 * direction[:, :-1]
        return product

    def class_curvature(self, point: Point) -> "Tensor":
        """Return the mean of diag(p) - p p' (c, c) float64."""
        import torch

        p = point.probabilities.double()
        weighted = p * self.share
        return torch.diag(weighted.sum(dim=0)) - weighted.T @ p

    def _chunks(self) -> "Iterator[tuple[slice, Tensor, Tensor]]":
        rows = max(64, CHUNK_ELEMENTS // self.x.shape[1])
        first = 0
        for chunk in self.x.split(rows):
            span = slice(first, first + len(chunk))
            yield span, chunk.to(self.dtype), self.share[span].to(self.dtype)
            first = span.stop

    def _outputs(self, theta: "Tensor", chunk: "Tensor") -> "Tensor":
        import torch

        offset = theta[:, -1] - theta[:, :-1] @ self.mean
        return torch.addmm(offset.to(chunk.dtype), chunk, theta[:, :-1].T.to(chunk.dtype))

    @staticmethod
    def _add(data: "Tensor", by_output: "Tensor", chunk: "Tensor") -> None:
        data[:, :-1] += by_output.T @ chunk
        data[:, -1] += by_output.sum(dim=0)

    def _centred(self, data: "Tensor") -> "Tensor":
        """Turn sums over raw features into those over centred ones, in place.

        Adding the same to all classes changes no probability, so that derivatives sum to 0 over them: what rounding
        leaves of the sum is taken away, or conjugate gradients would follow it where the bias is flat.
        """
        data -= data.mean(dim=0)
        data[:, :-1] -= data[:, -1:] * self.mean
        return data
