"""One optimiser step for many heads at once, each with its own learning rate and weight decay.

Weights are kept divided by their head's rate: U = W / lr. The step W -= lr s then is U -= s, the same for every head,
and one fused update takes all of them. What is left of the rates is a row of factors where there is weight decay.
"""

from typing import TYPE_CHECKING, Protocol

from pipeline.heads.settings import HeadSettings

if TYPE_CHECKING:
    from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam and AdamW, as in torch.optim."""


class Update(Protocol):
    """Holds an optimiser's state."""

    def step(self, scaled: "Tensor", gradient: "Tensor", factor: float) -> None:
        """Update U (p, m) in place.

        Args:
            scaled: U.
            gradient: by W; its values may be lost.
            factor: what all rates are multiplied with in this step.
        """


def make_update(settings: HeadSettings, like: "Tensor", lr: "Tensor", decay: "Tensor") -> Update:
    """Return the update that `settings.optimizer` names.

    Args:
        settings: of all heads; `lr` and `weight_decay` in it are not looked at.
        like: U (p, m).
        lr: learning rates (m,), one a column of U.
        decay: weight decays (m,).
    """
    if settings.optimizer == "sgd":
        return SGDUpdate(like, lr * decay, settings.momentum)
    return AdamUpdate(like, lr * decay, decoupled=settings.optimizer == "adamw")


class AdamUpdate:
    """Adam, and AdamW where decay is decoupled: Loshchilov & Hutter (ICLR 2019), algorithm 2."""

    def __init__(self, like: "Tensor", shrink: "Tensor", *, decoupled: bool) -> None:
        """Take lr x weight decay (m,): in U's terms both kinds of decay come to it."""
        import torch

        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.steps = torch.zeros((), device=like.device)
        self.shrink = shrink if bool((shrink > 0).any()) else None
        self.decoupled = decoupled

    def step(self, scaled: "Tensor", gradient: "Tensor", factor: float) -> None:
        """Update U in place."""
        from torch.optim.adam import adam

        if self.shrink is not None:
            if self.decoupled:
                scaled.mul_(1 - factor * self.shrink)
            else:
                gradient.addcmul_(scaled, self.shrink)
        adam(  # counts the step itself
            [scaled],
            [gradient],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=factor,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )


class SGDUpdate:
    """Stochastic gradient descent with momentum, as torch.optim.SGD has it."""

    def __init__(self, like: "Tensor", shrink: "Tensor", momentum: float) -> None:
        """Take lr x weight decay (m,)."""
        import torch

        self.shrink = shrink if bool((shrink > 0).any()) else None
        self.momentum = momentum
        self.velocity = torch.zeros_like(like) if momentum else None

    def step(self, scaled: "Tensor", gradient: "Tensor", factor: float) -> None:
        """Update U in place."""
        if self.shrink is not None:
            gradient.addcmul_(scaled, self.shrink)
        if self.velocity is not None:
            gradient = self.velocity.mul_(self.momentum).add_(gradient)
        scaled.sub_(gradient, alpha=factor)
