"""The loop: epochs over cached rows, each of them followed by a checkpoint."""

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.finetuning.network import Tuned
from pipeline.heads.epochs import epochs_over
from pipeline.heads.minibatch import Epoch, OnEpoch, rate_factor
from pipeline.heads.rows import Rows, chunks

if TYPE_CHECKING:
    from torch import Tensor

FLIPS = 0x5EED
"""Added to the seed of what is flipped, so that flips and batch order are drawn apart."""


class Training:
    """A training as it stands between two epochs: all that a checkpoint must hold."""

    def __init__(self, tuned: Tuned, rows: int) -> None:
        import torch

        settings = tuned.settings
        self.tuned, self.settings = tuned, settings
        self.optimizer = tuned.optimizer()
        self.base = [group["lr"] for group in self.optimizer.param_groups]
        self.order = torch.Generator().manual_seed(settings.seed)
        self.flips = torch.Generator().manual_seed(settings.seed + FLIPS)
        self.steps_an_epoch = -(-rows // settings.batch_size)
        self.epochs: list[Epoch] = []
        self.best_epoch, self.best_loss = 0, math.inf
        self.best: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """Whether no further epoch follows."""
        patience = self.settings.early_stopping
        late = bool(patience) and bool(self.epochs) and len(self.epochs) - self.best_epoch >= patience
        return late or len(self.epochs) >= self.settings.epochs

    def note(self, epoch: Epoch) -> None:
        """Add an epoch, and keep its weights if they are the best so far and may be needed."""
        self.epochs.append(epoch)
        if not self.settings.early_stopping:
            self.best_epoch = epoch.epoch
        elif epoch.val_loss is not None and (epoch.val_loss < self.best_loss or not self.best):
            self.best_epoch, self.best_loss = epoch.epoch, epoch.val_loss
            self.best = {name: one.detach().clone() for name, one in self.tuned.network.state_dict().items()}

    def epoch(self, blocks: "Iterator[tuple[Tensor, Tensor]]") -> tuple[float, float]:
        """Take the steps of one epoch over blocks of batches; return mean loss and accuracy before each step."""
        from torch.nn import functional

        total, right, rows = 0.0, 0, 0
        step = len(self.epochs) * self.steps_an_epoch
        with self.tuned.training():
            for block, targets in blocks:
                size = self.settings.batch_size
                for batch, labels in zip(block.split(size), targets.split(size), strict=True):
                    logits = self.tuned.logits(self._flipped(batch))
                    loss = functional.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)
                    self.optimizer.zero_grad()
                    loss.backward()
                    self._set_rates(step)
                    self.optimizer.step()
                    step += 1
                    total += loss.item() * len(labels)
                    right += int((logits.detach().argmax(1) == labels).sum())
                    rows += len(labels)
        return total / rows, right / rows

    def _set_rates(self, step: int) -> None:
        s = self.settings
        steps, warmup = s.epochs * self.steps_an_epoch, s.warmup_epochs * self.steps_an_epoch
        factor = rate_factor(step, steps, warmup, cosine=s.schedule == "cosine")
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor

    def _flipped(self, batch: "Tensor") -> "Tensor":
        """Flip some maps (b, c, h, w) from left to right."""
        import torch

        if not self.settings.hflip:
            return batch
        chosen = (torch.rand(len(batch), generator=self.flips) < self.settings.hflip).to(batch.device)
        return torch.where(chosen[:, None, None, None], batch.flip(-1), batch)


def train(
    training: Training,
    x: Rows,
    y: "Tensor",
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    *,
    on_epoch: OnEpoch | None = None,
    keep: Callable[[Training], None] = lambda _: None,
) -> None:
    """Go on until the training is done; afterwards the network has the last epoch's weights, or the best one's.

    Args:
        training: a new one, or as a checkpoint left it.
        x: rows (n, *row_shape), in memory or streamed.
        y: labels (n,).
        train_rows: positions that are trained on.
        val_rows: positions that are measured on after every epoch.
        on_epoch: called after every epoch.
        keep: called after every epoch, first.

    Raises:
        DataError: if the loss stops being a number.
    """
    import torch

    settings, tuned = training.settings, training.tuned
    blocks = epochs_over(x, y, train_rows, settings.recipe)
    val = torch.from_numpy(np.ascontiguousarray(val_rows)).to(y.device)
    while not training.done:
        started = time.perf_counter()
        loss, accuracy = training.epoch(blocks(training.order))
        seconds = time.perf_counter() - started
        number = len(training.epochs) + 1
        if not np.isfinite(loss):
            raise DataError(
                f"the loss is {loss} in epoch {number}: training diverged",
                f"Try rates below --lr {settings.lr:g} and --backbone-lr {settings.backbone_lr:g}.",
            )
        val_loss, val_accuracy = measure(tuned, x, y, val) if len(val) else (None, None)
        training.note(Epoch(number, seconds, loss, accuracy, val_loss, val_accuracy))
        keep(training)
        if on_epoch is not None:
            on_epoch(training.epochs[-1])
    if training.best:
        tuned.network.load_state_dict(training.best)


def measure(tuned: Tuned, x: Rows, y: "Tensor", rows: "Tensor") -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy on some rows."""
    import torch
    from torch.nn import functional

    total, right = 0.0, 0
    with torch.inference_mode():
        for batch, labels in chunks(x, y, rows, tuned.settings.batch_size):
            logits = tuned.logits(batch.float())
            total += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
    return total / len(rows), right / len(rows)
