"""The minibatch recipe: what a plain PyTorch loop over frozen features computes, bit for bit on the CPU.

Same initialisation (`nn.Linear` after `manual_seed`), same batches (`randperm` of a seeded generator an epoch,
split in order), same optimiser. What a loop over images does besides (decoding, the backbone, a DataLoader) is
gone, nothing of the arithmetic is.
"""

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.heads.balance import balanced_weights
from pipeline.heads.direct import direct_steps
from pipeline.heads.epochs import epochs_over
from pipeline.heads.rows import Rows, chunks
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


OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True)
class Trained:
    """A network after its last epoch, or after the best one with early stopping."""

    network: "nn.Module"
    """On the CPU, in eval mode: an `nn.Linear`, or an `nn.Sequential` of Linear, ReLU, Dropout, Linear."""
    epochs: list[Epoch]
    best_epoch: int
    """The epoch whose weights these are."""


def train_minibatch(
    x: "Tensor",
    y: "Tensor",
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    n_classes: int,
    settings: HeadSettings,
    on_epoch: OnEpoch | None = None,
) -> tuple["Tensor", "Tensor", list[Epoch]]:
    """Train a linear head on rows of `x` (n, d) with labels `y` (n,).

    Returns weight (c, d) float32, bias (c,) float32 and the epochs.

    Raises:
        DataError: if the loss stops being a number.
    """
    trained = train_network(x, y, train_rows, val_rows, n_classes, settings, on_epoch)
    state = trained.network.state_dict()
    return state["weight"], state["bias"], trained.epochs


def train_network(
    x: Rows,
    y: "Tensor",
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    n_classes: int,
    settings: HeadSettings,
    on_epoch: OnEpoch | None = None,
    *,
    stop_if_diverged: bool = True,
) -> Trained:
    """Train what the settings say, linear or with a hidden layer, on rows of `x` (n, d) with labels `y` (n,).

    Of features in memory the result is that of a plain loop; a stream has another random order.

    Raises:
        DataError: if the loss stops being a number, unless it may.
        UsageError: if early stopping has no validation rows to go by, or balanced batches are to come from a stream.
    """
    import torch

    if settings.early_stopping and not len(val_rows):
        raise UsageError("--early-stopping goes by validation rows, and there are none", "Give a --val-fraction.")
    device = x.device
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        network = first_network(x.shape[1], n_classes, settings).to(device)
        # Batch order has a generator of its own, so that dropout does not change it.
        generator = torch.Generator().manual_seed(settings.seed)
        train = torch.from_numpy(np.ascontiguousarray(train_rows)).to(device)
        val = torch.from_numpy(np.ascontiguousarray(val_rows)).to(device)
        loop = _Loop(network, y[train], n_classes, settings)
        blocks = epochs_over(x, y, train_rows, settings)
        epochs: list[Epoch] = []
        best = _Best(network)
        for number in range(1, settings.epochs + 1):
            started = time.perf_counter()
            loss, accuracy = loop.epoch(blocks(generator))
            seconds = time.perf_counter() - started
            if stop_if_diverged and not np.isfinite(loss):
                raise DataError(
                    f"the loss is {loss} in epoch {number}: training diverged",
                    f"Try a rate below --lr {settings.lr:g}.",
                )
            val_loss, val_accuracy = measure(network, x, y, val) if len(val) else (None, None)
            epochs.append(Epoch(number, seconds, loss, accuracy, val_loss, val_accuracy))
            if on_epoch is not None:
                on_epoch(epochs[-1])
            if settings.early_stopping and best.is_old(epochs[-1], settings.early_stopping):
                break
        if settings.early_stopping:
            network.load_state_dict(best.state)
    kept = best.epoch if settings.early_stopping else len(epochs)
    return Trained(network.cpu().requires_grad_(False).eval(), epochs, kept)


def threads_for(batch_size: int, dim: int, n_classes: int) -> int:
    """Return CPU threads for a step's products: one for small ones, 0 (torch's own number) for large ones.

    Two threads on a busy machine were measured up to 100 times slower than one for 64-row products.
    """
    return 1 if batch_size * dim * n_classes < ONE_THREAD_WORK else 0


def first_network(dim: int, n_classes: int, settings: HeadSettings) -> "nn.Module":
    """Return the network of the settings as its seed makes it, on the CPU; the caller forks the generators."""
    import torch
    from torch import nn

    torch.manual_seed(settings.seed)  # which reaches the generators of all CUDA devices too
    if not settings.hidden:
        return nn.Linear(dim, n_classes)
    return nn.Sequential(
        nn.Linear(dim, settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, n_classes),
    )


def _optimizer(network: "nn.Module", settings: HeadSettings) -> "torch.optim.Optimizer":
    from torch import optim

    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return optim.SGD(network.parameters(), lr=lr, momentum=settings.momentum, weight_decay=decay)
    kind = optim.Adam if settings.optimizer == "adam" else optim.AdamW
    return kind(network.parameters(), lr=lr, weight_decay=decay)


class _Loop:
    """What the steps of all epochs share."""

    def __init__(self, network: "nn.Module", y: "Tensor", n_classes: int, settings: HeadSettings) -> None:
        """Take the labels (n,) of train rows."""
        self.network, self.settings = network, settings
        self.direct = direct_steps(network, settings)
        self.optimizer = _optimizer(network, settings)
        self.weights = balanced_weights(y, n_classes) if settings.class_weight == "balanced" else None
        self.rates = (settings.lr * factor for factor in rate_factors(settings, len(y)))

    def epoch(self, blocks: "Iterator[tuple[Tensor, Tensor]]") -> tuple[float, float]:
        """Take the steps of one epoch over blocks of batches; return mean loss and accuracy."""
        if self.direct is not None:
            return self.direct.epoch(blocks, self.rates)
        import torch
        from torch.nn import functional

        settings, network, rows = self.settings, self.network.train(), 0
        device = next(network.parameters()).device
        total = torch.zeros((), device=device, dtype=torch.float64)
        right = torch.zeros((), device=device, dtype=torch.int64)
        for features, labels in _batches(blocks, settings.batch_size):
            if settings.dropout and not settings.hidden:
                features = functional.dropout(features, settings.dropout)
            logits = network(features)
            loss = functional.cross_entropy(
                logits, labels, weight=self.weights, label_smoothing=settings.label_smoothing
            )
            self.optimizer.zero_grad()
            loss.backward()
            rate = next(self.rates)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            total += loss.detach() * len(labels)
            right += (logits.detach().argmax(1) == labels).sum()
            rows += len(labels)
        return float(total) / rows, int(right) / rows


def _batches(blocks: "Iterator[tuple[Tensor, Tensor]]", size: int) -> "Iterator[tuple[Tensor, Tensor]]":
    for features, labels in blocks:
        yield from zip(features.split(size), labels.split(size), strict=True)


def rate_factors(settings: HeadSettings, rows: int) -> Iterator[float]:
    """Yield what the learning rate is multiplied with, step by step, of a training on so many rows."""
    steps_an_epoch = -(-rows // settings.batch_size)
    steps, warmup = settings.epochs * steps_an_epoch, settings.warmup_epochs * steps_an_epoch
    for step in range(steps):
        yield rate_factor(step, steps, warmup, cosine=settings.schedule == "cosine")


def rate_factor(step: int, steps: int, warmup: int, *, cosine: bool) -> float:
    """Return what the learning rate is multiplied with at a step, counted from 0.

    It rises linearly over the first `warmup` steps (Goyal et al., 2017), then stays, or falls to 0 as half a cosine:
    Loshchilov & Hutter, "SGDR" (ICLR 2017), equation 5, without restarts.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) if cosine else 1.0


class _Best:
    """The weights of the epoch with the lowest validation loss so far."""

    def __init__(self, network: "nn.Module") -> None:
        self.network, self.epoch, self.loss = network, 0, math.inf
        self.state: dict[str, Tensor] = {}

    def is_old(self, epoch: Epoch, patience: int) -> bool:
        """Note an epoch; tell whether the best one is `patience` epochs ago."""
        if epoch.val_loss is not None and (epoch.val_loss < self.loss or not self.state):
            self.epoch, self.loss = epoch.epoch, epoch.val_loss
            self.state = deepcopy(self.network.state_dict())
        return epoch.epoch - self.epoch >= patience


def measure(network: "nn.Module", x: Rows, y: "Tensor", rows: "Tensor") -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy of a network on some rows."""
    import torch
    from torch.nn import functional

    network.eval()
    total, right = 0.0, 0
    with torch.inference_mode():
        for features, labels in chunks(x, y, rows):
            logits = network(features.float())
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
    return total / len(rows), right / len(rows)
