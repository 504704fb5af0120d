"""The steps of a linear head without autograd: the kernels that autograd would call, in its order, so the same bits.

What a plain loop spends beside the arithmetic is gone: no graph is built, weight and bias are one tensor to the
optimiser, rows of several batches are gathered at once while those before are used, and losses and accuracy are
read out once for several batches. Measured on 50,000 x 1,280 features and 10 classes, `benchmarks/minibatch.py`.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.heads.settings import HeadSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Adam's, as torch has them by default."""


def direct_steps(network: "nn.Module", settings: HeadSettings) -> "DirectSteps | None":
    """Return these steps if they do what the settings ask for; of anything else autograd takes the gradient."""
    from torch import nn

    extras = settings.dropout or settings.label_smoothing or settings.class_weight != "none"
    return None if extras or not isinstance(network, nn.Linear) else DirectSteps(network, settings)


class DirectSteps:
    """Steps of multinomial logistic regression on the weight and bias of `network`, in place.

    The gradient of the mean cross-entropy by the logits is softmax - onehot, divided by the batch.
    """

    def __init__(self, network: "nn.Linear", settings: HeadSettings) -> None:
        import torch

        self.settings = settings
        classes, dim = network.weight.shape
        self.both = torch.cat([network.weight.detach().reshape(-1), network.bias.detach()])
        self.gradient = torch.empty_like(self.both)
        self.weight, self.bias = _parts(self.both, classes, dim)
        self.weight_gradient, self.bias_gradient = _parts(self.gradient, classes, dim)
        network.weight.data, network.bias.data = self.weight, self.bias
        self.update = OPTIMIZERS[settings.optimizer](self.both, self.gradient, settings)

    def epoch(self, blocks: "Iterator[tuple[Tensor, Tensor]]", rates: Iterator[float]) -> tuple[float, float]:
        """Take the steps of one epoch over blocks of batches, as `epochs` gives them, at these `rates`.

        Returns:
            The mean loss and the accuracy, each row measured before the update of its batch.
        """
        import torch

        total, right, rows = 0.0, 0, 0
        with torch.inference_mode():
            for features, labels in blocks:
                logits, losses = self._steps(features, labels, rates)
                for loss in losses.tolist():  # one by one, as a loop adds them up
                    total += loss
                right += int((logits.argmax(1) == labels).sum())
                rows += len(labels)
        return total / rows, right / rows

    def _steps(self, features: "Tensor", labels: "Tensor", rates: Iterator[float]) -> tuple["Tensor", "Tensor"]:
        """Take the steps of a block of batches (m, d).

        Returns:
            The logits (m, c) before each step, and each batch's loss times its rows.
        """
        import torch
        from torch.nn import functional

        b = self.settings.batch_size
        logits = features.new_empty(len(features), len(self.bias))
        by_log_p = torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), -1.0 / b)
        if rest := len(features) % b:
            by_log_p[-rest:].scatter_(1, labels[-rest:].unsqueeze(1), -1.0 / rest)
        transposed, losses = self.weight.t(), []
        parts = (part.split(b) for part in (features, labels, logits, by_log_p))
        for rows, wanted, scores, loss in zip(*parts, strict=True):
            log_p = torch.addmm(self.bias, rows, transposed, out=scores).log_softmax(1)
            losses.append(functional.nll_loss(log_p, wanted) * len(rows))
            by_logits = torch.ops.aten._log_softmax_backward_data(loss, log_p, 1, torch.float32)
            torch.mm(by_logits.t(), rows, out=self.weight_gradient)
            torch.sum(by_logits, 0, out=self.bias_gradient)
            self.update.step(next(rates))
        return logits, torch.stack(losses)


def _parts(both: "Tensor", classes: int, dim: int) -> "tuple[Tensor, Tensor]":
    """Return weight (c, d) and bias (c,) as views of one tensor."""
    return both[: classes * dim].view(classes, dim), both[classes * dim :]


class _Adam:
    """torch.optim.Adam, operation for operation: Kingma & Ba (2015), algorithm 1."""

    decoupled = False

    def __init__(self, parameters: "Tensor", gradient: "Tensor", settings: HeadSettings) -> None:
        import torch

        self.parameters, self.gradient, self.decay = parameters, gradient, settings.weight_decay
        self.mean, self.square, self.scratch = (torch.zeros_like(parameters) for _ in range(3))
        self.steps = 0

    def step(self, rate: float) -> None:
        import torch

        gradient = self.gradient
        self.steps += 1
        if self.decay and self.decoupled:
            self.parameters.mul_(1 - rate * self.decay)
        elif self.decay:
            gradient = gradient.add(self.parameters, alpha=self.decay)
        self.mean.lerp_(gradient, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        size = rate / (1 - BETA1**self.steps)
        root = math.sqrt(1 - BETA2**self.steps)
        torch.sqrt(self.square, out=self.scratch).div_(root).add_(EPS)
        self.parameters.addcdiv_(self.mean, self.scratch, value=-size)


class _AdamW(_Adam):
    """torch.optim.AdamW: the weights decay apart from the gradient. Loshchilov & Hutter (2019), algorithm 2."""

    decoupled = True


class _SGD:
    """torch.optim.SGD with momentum, operation for operation."""

    def __init__(self, parameters: "Tensor", gradient: "Tensor", settings: HeadSettings) -> None:
        self.parameters, self.gradient, self.settings = parameters, gradient, settings
        self.velocity: torch.Tensor | None = None

    def step(self, rate: float) -> None:
        gradient = self.gradient
        if self.settings.weight_decay:
            gradient = gradient.add(self.parameters, alpha=self.settings.weight_decay)
        if self.settings.momentum:
            if self.velocity is None:
                self.velocity = gradient.clone()
            else:
                self.velocity.mul_(self.settings.momentum).add_(gradient)
            gradient = self.velocity
        self.parameters.add_(gradient, alpha=-rate)


OPTIMIZERS: dict[str, type[_Adam] | type[_SGD]] = {"adam": _Adam, "adamw": _AdamW, "sgd": _SGD}
