"""Heads side by side in one matrix: a step of all is two products, a softmax and an update, without autograd."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.heads.settings import HeadSettings
from pipeline.heads.updates import make_update

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rates:
    """What tells a head from the others of its group."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Step:
    """A batch, the same for all heads."""

    x: "Tensor"
    """(b, d) float32."""
    targets: "Tensor"
    """(b, c, 1): the loss of a row is minus their sum with log p, over classes."""
    totals: "Tensor"
    """(b, 1, 1): sums of a row's targets."""
    factor: float
    """What every head's learning rate is multiplied with."""


class HeadGroup:
    """k linear heads from the same initialisation.

    Columns of all matrices are ordered by class, then head: softmax then runs along rows of k neighbours, which
    vectors of the CPU take as they are. The last row of `scaled` is the biases.
    """

    def __init__(
        self, weight: "Tensor", bias: "Tensor", rates: Sequence[Rates], settings: HeadSettings, rows: int
    ) -> None:
        """Start k heads at weight (c, d) and bias (c,); no batch has more than `rows`."""
        import torch

        self.heads, (self.classes, self.dim) = len(rates), weight.shape
        device = weight.device
        self.lr = torch.tensor([rate.lr for rate in rates], device=device)
        decay = torch.tensor([rate.weight_decay for rate in rates], device=device)
        start = torch.cat([weight, bias[:, None]], dim=1).T
        self.scaled = (start[:, :, None] / self.lr).reshape(self.dim + 1, -1)
        self.gradient = torch.empty_like(self.scaled)
        self.logits = torch.empty(rows, self.classes * self.heads, device=device)
        self.residual = torch.empty(rows, self.classes, self.heads, device=device)
        self.update = make_update(settings, self.scaled, self.lr.repeat(self.classes), decay.repeat(self.classes))

    def train(self, steps: Sequence[Step]) -> None:
        """Take steps in order."""
        import torch

        with torch.inference_mode():
            for step in steps:
                self._step(step)

    def _step(self, step: Step) -> None:
        import torch

        rows = len(step.x)
        logits, residual = self.logits[:rows], self.residual[:rows]
        torch.addmm(self.scaled[-1], step.x, self.scaled[:-1], out=logits)
        by_class = logits.view(rows, self.classes, self.heads)
        torch.softmax(by_class.mul_(self.lr), dim=1, out=residual)
        # The gradient of cross-entropy by the logits.
        residual.mul_(step.totals).sub_(step.targets)
        torch.mm(step.x.T, residual.view(rows, -1), out=self.gradient[:-1])
        torch.sum(residual.view(rows, -1), dim=0, out=self.gradient[-1])
        self.update.step(self.scaled, self.gradient, step.factor)

    def weights(self) -> tuple["Tensor", "Tensor"]:
        """Return weights (k, c, d) and biases (k, c), float32."""
        theta = self.scaled.view(self.dim + 1, self.classes, self.heads) * self.lr
        return theta[:-1].permute(2, 1, 0).contiguous(), theta[-1].T.contiguous()
