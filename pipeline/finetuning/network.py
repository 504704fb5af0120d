"""What is trained: the layers behind a cut and a new head, in the form that the engine wants."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.finetuning.scaling import scaled
from pipeline.finetuning.settings import FinetuneSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx

TAIL, HEAD = "tail", "head"


class Tuned:
    """A network of `tail` and `head`, which maps rows (b, *row_shape) to logits (b, c).

    Dropout and the like are off behind the cut as before it; of BatchNorm the settings say.
    """

    def __init__(
        self, tail: "fx.GraphModule", dim: int, n_classes: int, settings: FinetuneSettings, device: "torch.device"
    ) -> None:
        """Take a tail that ends in `dim` features and put a head as its seed makes it behind.

        The caller forks the generators.
        """
        import torch
        from torch import nn

        torch.manual_seed(settings.seed)
        head = nn.Linear(dim, n_classes)
        self.network = nn.Sequential(OrderedDict([(TAIL, tail), (HEAD, head)])).requires_grad_(True).to(device)
        self.settings = settings
        self.fast = settings.engine == "auto"
        if self.fast:
            self.network.to(memory_format=torch.channels_last)
        self.network.eval()
        # Moving statistics are those of activations in front of the norm: they must be there.
        self.tail = scaled(tail) if self.fast and settings.bn == "frozen" else tail

    def logits(self, rows: "Tensor") -> "Tensor":
        """Return logits (b, c) of float32 rows (b, *row_shape)."""
        import torch

        if self.fast and rows.ndim == 4:
            rows = rows.contiguous(memory_format=torch.channels_last)
        found: Tensor = self.network.get_submodule(HEAD)(self.tail(rows))
        return found

    @contextmanager
    def training(self) -> Iterator[None]:
        """Let BatchNorms move their statistics for a while, if the settings say so."""
        from torch.nn.modules.batchnorm import _BatchNorm

        norms = [part for part in self.network.modules() if isinstance(part, _BatchNorm)]
        for norm in norms:
            norm.train(self.settings.bn == "train")
        try:
            yield
        finally:
            self.network.eval()

    def optimizer(self) -> "torch.optim.Optimizer":
        """Return the optimiser that the settings name, with the two rates."""
        from torch import optim

        s = self.settings
        groups = [
            {"params": [*self.network.get_submodule(name).parameters()], "lr": rate}
            for name, rate in ((TAIL, s.backbone_lr), (HEAD, s.lr))
        ]
        fused = True if self.fast else None
        if s.optimizer == "sgd":
            return optim.SGD(groups, momentum=s.momentum, weight_decay=s.weight_decay, fused=fused)
        kind = optim.Adam if s.optimizer == "adam" else optim.AdamW
        return kind(groups, weight_decay=s.weight_decay, fused=fused)
