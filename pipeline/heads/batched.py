"""Many linear heads at once: those that see the same batches are one product.

Heads of one seed start from the same weights and see the same rows in the same order; they differ in learning rate
and weight decay. k of them are k c columns of one matrix, so that each batch is read once for all, products are
large enough to run near the machine's peak, and one optimiser moves all weights in one pass.

Learning rates differ by head, and torch's fused optimisers know one a call. Stored is therefore Q = W / lr: an
update of W by lr u is one of Q by u, the same for every head, and logits are those of Q times lr.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.heads.balance import BalancedRows
from pipeline.heads.blocks import Blocks
from pipeline.heads.minibatch import first_network, rate_factors, threads_for
from pipeline.heads.settings import HeadSettings
from pipeline.threads import cpu_threads

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GROUP_BYTES = 24 << 20
"""Weights, gradient and Adam's two means of heads that are trained at once: beyond the last-level cache the optimiser
waits for memory. Measured on 1,280 x 10: 41, 31, 27, 24, 22, 21, 22 ms a head-epoch for 4, 8, 16, … 256 heads."""
COPIES = 4
"""Tensors of the weights' size that a step reads and writes."""


@dataclass(frozen=True)
class Rates:
    """What tells a head from the others of its batch."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Group:
    """Heads that were trained at once."""

    places: tuple[int, ...]
    """Their positions in what was asked for."""
    weight: "Tensor"
    """(k, c, d) float32."""
    bias: "Tensor"
    """(k, c) float32."""


def can_batch(settings: HeadSettings) -> bool:
    """Tell whether heads of this recipe can share batches; others are trained one by one."""
    extras = settings.hidden or settings.dropout or settings.label_smoothing or settings.early_stopping
    return settings.solver == "minibatch" and not extras and settings.class_weight == "none"


def train_batched(
    x: "Tensor",
    y: "Tensor",
    train_rows: np.ndarray,
    n_classes: int,
    recipe: HeadSettings,
    rates: Sequence[Rates],
) -> Iterator[Group]:
    """Train a head for each of `rates` on rows of `x` (n, d) with labels `y` (n,); yield them group by group.

    All but lr and weight decay is as `recipe` says. Each head equals the one trained alone up to rounding.
    """
    import torch

    size = group_size(x.shape[1], n_classes) if x.device.type == "cpu" else len(rates)
    train = torch.from_numpy(np.ascontiguousarray(train_rows)).to(x.device)
    for first in range(0, len(rates), size):
        places = tuple(range(first, min(first + size, len(rates))))
        heads = _Heads(x, y, n_classes, recipe, [rates[place] for place in places])
        with cpu_threads(threads_for(recipe.batch_size, x.shape[1], n_classes * len(places))):
            weight, bias = heads.train(train)
        yield Group(places, weight, bias)


def group_size(dim: int, n_classes: int) -> int:
    """Return how many heads (c, d) are trained at once on a CPU."""
    return max(1, GROUP_BYTES // (COPIES * 4 * (dim + 1) * n_classes))


class _Heads:
    """k heads as one matrix (k c, d) and one row of biases (k c,), in one tensor."""

    def __init__(self, x: "Tensor", y: "Tensor", n_classes: int, recipe: HeadSettings, rates: Sequence[Rates]) -> None:
        import torch

        self.x, self.y, self.recipe, self.k, self.c = x, y, recipe, len(rates), n_classes
        columns, dim = self.k * n_classes, x.shape[1]
        first = first_network(dim, n_classes, recipe)
        self.lr = _by_column([one.lr for one in rates], n_classes, x.device)
        self.decay = _by_column([one.lr * one.weight_decay for one in rates], n_classes, x.device)
        both = torch.empty(columns * (dim + 1), device=x.device)
        self.weight, self.bias = both[: columns * dim].view(columns, dim), both[columns * dim :]
        state = first.state_dict()
        torch.div(state["weight"].to(x.device).repeat(self.k, 1), self.lr[:, None], out=self.weight)
        torch.div(state["bias"].to(x.device).repeat(self.k), self.lr, out=self.bias)
        both.grad = torch.empty_like(both)
        self.weight_gradient, self.bias_gradient = both.grad[: columns * dim].view(columns, dim), both.grad[-columns:]
        self.optimizer = _fused(both, recipe)
        self.decays = bool(self.decay.any())

    def train(self, train: "Tensor") -> tuple["Tensor", "Tensor"]:
        """Return weights (k, c, d) and biases (k, c) after all epochs over the rows `train` (m,)."""
        import torch

        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed)
        balanced = BalancedRows(train, self.y[train]) if recipe.sampling == "balanced" else None
        factors = rate_factors(recipe, len(train))
        blocks = Blocks(self.x, self.y, recipe.batch_size)
        with torch.inference_mode():
            for _ in range(recipe.epochs):
                if balanced is None:
                    order = train[torch.randperm(len(train), generator=generator).to(train.device)]
                else:
                    order = balanced.draw(generator).to(train.device)
                for features, labels in blocks(order):
                    self._steps(features, labels, factors)
            weight = (self.weight * self.lr[:, None]).view(self.k, self.c, -1)
            return weight, (self.bias * self.lr).view(self.k, self.c)

    def _steps(self, features: "Tensor", labels: "Tensor", factors: Iterator[float]) -> None:
        """Take the steps of a block of batches (m, d)."""
        import torch

        b = self.recipe.batch_size
        wanted = torch.zeros(len(labels), 1, self.c, device=features.device).scatter_(2, labels.view(-1, 1, 1), 1.0)
        transposed = self.weight.t()
        for rows, target in zip(features.split(b), wanted.split(b), strict=True):
            logits = torch.addmm(self.bias, rows, transposed).mul_(self.lr)
            by_logits = logits.view(-1, self.k, self.c).softmax(2).sub_(target).view(len(rows), -1)
            share = 1 / len(rows)
            torch.addmm(self.weight_gradient, by_logits.t(), rows, beta=0, alpha=share, out=self.weight_gradient)
            torch.sum(by_logits, 0, out=self.bias_gradient).mul_(share)
            self._update(next(factors))

    def _update(self, factor: float) -> None:
        """Move all heads; `factor` is the schedule's, of learning rates that are in Q already."""
        if self.decays and self.recipe.optimizer == "adamw":
            kept = 1 - factor * self.decay
            self.weight.mul_(kept[:, None])
            self.bias.mul_(kept)
        elif self.decays:  # weight_decay W = weight_decay lr Q
            self.weight_gradient.addcmul_(self.weight, self.decay[:, None])
            self.bias_gradient.addcmul_(self.bias, self.decay)
        self.optimizer.param_groups[0]["lr"] = factor
        self.optimizer.step()


def _by_column(values: Sequence[float], n_classes: int, device: "torch.device") -> "Tensor":
    """Return a value a head as one a column (k c,) float32."""
    import torch

    return torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(n_classes)


def _fused(parameters: "Tensor", recipe: HeadSettings) -> "torch.optim.Optimizer":
    from torch import optim

    if recipe.optimizer == "sgd":
        return optim.SGD([parameters], lr=1.0, momentum=recipe.momentum, fused=True)
    # AdamW's decay differs by head and is ours; the rest of it is Adam.
    return optim.Adam([parameters], lr=1.0, fused=True)
