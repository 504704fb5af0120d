"""The minibatch recipe: what a plain PyTorch loop over frozen features computes, bit for bit on the CPU.

Same initialisation (`nn.Linear` after `manual_seed`), same batches (`randperm` of a seeded generator an epoch,
split in order), same optimiser. What a loop over images does besides (decoding, the backbone, a DataLoader) is
gone, nothing of the arithmetic is.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.heads.settings import HeadSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ONE_THREAD_WORK = 50_000_000
"""Multiply-adds of a step below which a second thread costs more than it brings."""


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
        UsageError: if training is to stop early and there are no validation rows.
    """
    from torch import nn

    module, epochs, _ = train_module(
        lambda: nn.Linear(x.shape[1], n_classes), x, y, train_rows, val_rows, n_classes, settings, on_epoch
    )
    return module.weight.detach().cpu(), module.bias.detach().cpu(), epochs


def mlp(dim: int, hidden: int, n_classes: int, dropout: float) -> "nn.Sequential":
    """Return a new network with one hidden layer, drawn from the current seed."""
    from torch import nn

    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, n_classes))


def train_module(
    make: Callable[[], "nn.Module"],
    x: "Tensor",
    y: "Tensor",
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    n_classes: int,
    settings: HeadSettings,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[Any, list[Epoch], int]:
    """Train what `make` draws from the seed. Return it in eval mode, the epochs, and whose weights it has."""
    import torch

    if settings.early_stopping and not len(val_rows):
        raise UsageError("early-stopping needs validation rows", "Give --val-fraction, or drop --early-stopping.")
    device = x.device
    # manual_seed reaches the generators of all CUDA devices too.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        head = make().to(device)
        train = torch.from_numpy(np.ascontiguousarray(train_rows)).to(device)
        val = torch.from_numpy(np.ascontiguousarray(val_rows)).to(device)
        run = _Run(head, x, y, train, n_classes, settings)
        epochs: list[Epoch] = []
        best, kept = 0, {}
        for number in range(1, settings.epochs + 1):
            started = time.perf_counter()
            loss, accuracy = run.epoch()
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
            if settings.early_stopping:
                if not best or (val_loss or 0.0) < (epochs[best - 1].val_loss or 0.0):
                    best, kept = number, {name: value.clone() for name, value in head.state_dict().items()}
                elif number - best >= settings.early_stopping:
                    break
        if kept:
            head.load_state_dict(kept)
    return head.eval(), epochs, best or len(epochs)


def threads_for(batch_size: int, dim: int, n_classes: int) -> int:
    """Return CPU threads for a step's products: one for small ones, 0 (torch's own number) for large ones.

    Two threads on a busy machine were measured up to 100 times slower than one for 64-row products.
    """
    return 1 if batch_size * dim * n_classes < ONE_THREAD_WORK else 0


class _Run:
    """What stays the same from epoch to epoch."""

    def __init__(
        self, head: "nn.Module", x: "Tensor", y: "Tensor", train: "Tensor", n_classes: int, settings: HeadSettings
    ) -> None:
        import torch
        from torch.optim.lr_scheduler import CosineAnnealingLR

        self.head, self.x, self.y, self.train, self.settings = head, x, y, train, settings
        self.optimizer = _optimizer(head, settings)
        # Batch order has a generator of its own, so that dropout does not change it.
        self.generator = torch.Generator().manual_seed(settings.seed)
        counts = torch.bincount(y[train].cpu(), minlength=n_classes).double()
        balanced = len(train) / (n_classes * counts.clamp_min(1))
        self.weight = balanced.to(x) if settings.class_weight == "balanced" else None
        self.draw = balanced[y[train].cpu()] if settings.sampling == "balanced" else None
        steps = settings.epochs * -(-len(train) // settings.batch_size)
        self.schedule = CosineAnnealingLR(self.optimizer, steps) if settings.schedule == "cosine" else None

    def epoch(self) -> tuple[float, float]:
        """Train one epoch; return the mean loss and the accuracy over its batches, before each update."""
        import torch
        from torch.nn import functional

        settings, head = self.settings, self.head
        head.train()
        dropout = 0.0 if settings.hidden else settings.dropout  # a network with a hidden layer has its own
        total = torch.zeros((), device=self.x.device, dtype=torch.float64)
        right = torch.zeros((), device=self.x.device, dtype=torch.int64)
        order = self._order()
        for rows in order.split(settings.batch_size):
            features, labels = self.x.index_select(0, rows).float(), self.y.index_select(0, rows)
            if dropout:
                features = functional.dropout(features, dropout)
            logits = head(features)
            loss = functional.cross_entropy(
                logits, labels, weight=self.weight, label_smoothing=settings.label_smoothing
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            total += loss.detach() * len(rows)
            right += (logits.detach().argmax(1) == labels).sum()
        head.eval()
        return float(total) / len(order), int(right) / len(order)

    def _order(self) -> "Tensor":
        import torch

        if self.draw is None:
            places = torch.randperm(len(self.train), generator=self.generator)
        else:
            places = torch.multinomial(self.draw, len(self.train), replacement=True, generator=self.generator)
        return self.train[places.to(self.train.device)]


def _optimizer(head: "nn.Module", settings: HeadSettings) -> "torch.optim.Optimizer":
    from torch import optim

    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return optim.SGD(head.parameters(), lr=lr, momentum=settings.momentum, weight_decay=decay)
    kind = optim.Adam if settings.optimizer == "adam" else optim.AdamW
    return kind(head.parameters(), lr=lr, weight_decay=decay)


def _measure(head: "nn.Module", x: "Tensor", y: "Tensor", rows: "Tensor") -> tuple[float, float]:
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
