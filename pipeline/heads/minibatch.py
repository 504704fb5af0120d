"""The minibatch recipe: what a plain PyTorch loop over frozen features computes, bit for bit on the CPU.

Same initialisation (`nn.Linear` after `manual_seed`), same batches (`randperm` of a seeded generator an epoch,
split in order), same optimiser. What a loop over images does besides (decoding, the backbone, a DataLoader) is
gone, nothing of the arithmetic is.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pipeline.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Optimizer = Literal["adam", "adamw", "sgd"]
ONE_THREAD_WORK = 50_000_000
"""Multiply-adds of a step below which a second thread costs more than it brings."""


@dataclass(frozen=True)
class HeadSettings:
    """The recipe; the defaults are the reference experiment's."""

    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    epochs: int = 5
    batch_size: int = 64
    weight_decay: float = 0.0
    momentum: float = 0.0
    """Of SGD."""
    dropout: float = 0.0
    """Share of features zeroed in training."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in get_args(Optimizer):
            raise UsageError(f"unknown optimizer {self.optimizer!r}", f"Known: {', '.join(get_args(Optimizer))}")
        checks = {
            "lr must be above 0 and finite": 0 < self.lr < math.inf,
            "epochs must be at least 1": self.epochs >= 1,
            "batch-size must be at least 1": self.batch_size >= 1,
            "weight-decay must be at least 0 and finite": 0 <= self.weight_decay < math.inf,
            "momentum must be at least 0 and below 1": 0 <= self.momentum < 1,
            "momentum goes with --optimizer sgd": not self.momentum or self.optimizer == "sgd",
            "dropout must be at least 0 and below 1": 0 <= self.dropout < 1,
            "seed must be at least 0": 0 <= self.seed < 2**63,
        }
        for message, fine in checks.items():
            if not fine:
                raise UsageError(message)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return asdict(self)


@dataclass(frozen=True)
class Epoch:
    """One epoch. Training figures are averages over its batches, before each update, as loops print them."""

    epoch: int
    seconds: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return asdict(self)


def train_minibatch(
    x: "Tensor",
    y: "Tensor",
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    n_classes: int,
    settings: HeadSettings,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple["Tensor", "Tensor", list[Epoch]]:
    """Train a linear head on rows of `x` (n, d) with labels `y` (n,).

    Returns weight (c, d) float32, bias (c,) float32 and the epochs.

    Raises:
        DataError: if the loss stops being a number.
    """
    import torch
    from torch import nn

    device = x.device
    # manual_seed reaches the generators of all CUDA devices too.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        head = nn.Linear(x.shape[1], n_classes).to(device)
        optimizer = _optimizer(head, settings)
        # Batch order has a generator of its own, so that dropout does not change it.
        generator = torch.Generator().manual_seed(settings.seed)
        train = torch.from_numpy(np.ascontiguousarray(train_rows)).to(device)
        val = torch.from_numpy(np.ascontiguousarray(val_rows)).to(device)
        epochs = []
        for number in range(1, settings.epochs + 1):
            started = time.perf_counter()
            order = train[torch.randperm(len(train), generator=generator).to(device)]
            loss, accuracy = _one_epoch(head, optimizer, x, y, order, settings)
            seconds = time.perf_counter() - started
            if not np.isfinite(loss):
                raise DataError(
                    f"the loss is {loss} in epoch {number}: training diverged",
                    f"Try a rate below --lr {settings.lr:g}.",
                )
            val_loss, val_accuracy = _measure(head, x, y, val) if len(val) else (None, None)
            epochs.append(Epoch(number, seconds, loss, accuracy, val_loss, val_accuracy))
            if on_epoch is not None:
                on_epoch(epochs[-1])
    return head.weight.detach().cpu(), head.bias.detach().cpu(), epochs


def threads_for(batch_size: int, dim: int, n_classes: int) -> int:
    """Return CPU threads for a step's products: one for small ones, 0 (torch's own number) for large ones.

    Two threads on a busy machine were measured up to 100 times slower than one for 64-row products.
    """
    return 1 if batch_size * dim * n_classes < ONE_THREAD_WORK else 0


def _optimizer(head: "nn.Linear", settings: HeadSettings) -> "torch.optim.Optimizer":
    from torch import optim

    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return optim.SGD(head.parameters(), lr=lr, momentum=settings.momentum, weight_decay=decay)
    kind = optim.Adam if settings.optimizer == "adam" else optim.AdamW
    return kind(head.parameters(), lr=lr, weight_decay=decay)


def _one_epoch(
    head: "nn.Linear",
    optimizer: "torch.optim.Optimizer",
    x: "Tensor",
    y: "Tensor",
    order: "Tensor",
    settings: HeadSettings,
) -> tuple[float, float]:
    import torch
    from torch.nn import functional

    total = torch.zeros((), device=x.device, dtype=torch.float64)
    right = torch.zeros((), device=x.device, dtype=torch.int64)
    for rows in order.split(settings.batch_size):
        features, labels = x.index_select(0, rows).float(), y.index_select(0, rows)
        if settings.dropout:
            features = functional.dropout(features, settings.dropout)
        logits = head(features)
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
        right += (logits.detach().argmax(1) == labels).sum()
    return float(total) / len(order), int(right) / len(order)


def _measure(head: "nn.Linear", x: "Tensor", y: "Tensor", rows: "Tensor") -> tuple[float, float]:
    """Return the mean loss and the accuracy on some rows."""
    import torch
    from torch.nn import functional

    total, right = 0.0, 0
    with torch.inference_mode():
        for part in rows.split(8192):
            logits, labels = head(x.index_select(0, part).float()), y.index_select(0, part)
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
    return total / len(rows), right / len(rows)
