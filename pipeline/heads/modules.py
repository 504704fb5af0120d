"""The small torch modules that heads are made of. No control flow on data: all of them can be exported."""

import torch
from torch import Tensor, nn
from torch.nn import functional

FLOOR = 1e-3
"""Share of the probability that k-NN spreads over all classes, so that no class has log 0."""


class L2Normalize(nn.Module):
    """Divide each row by its length."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, d) to (b, d)."""
        return functional.normalize(x, dim=1)


class Standardize(nn.Module):
    """Subtract `mean` (d,) and divide by `scale` (d,)."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.mean, self.scale = nn.Buffer(mean), nn.Buffer(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, d) to (b, d)."""
        return (x - self.mean) / self.scale


class Neighbours(nn.Module):
    """Weighted vote of the `k` nearest rows of a bank by cosine; log probabilities.

    A neighbour of similarity s votes for its class with exp(s / temperature), as DINO's k-NN evaluation does
    (Caron et al., ICCV 2021, after Wu et al., CVPR 2018); a class's share p of all votes becomes
    log((1 - FLOOR) p + FLOOR / c).
    """

    def __init__(self, bank: Tensor, labels: Tensor, n_classes: int, k: int, temperature: float) -> None:
        super().__init__()
        self.bank, self.labels = nn.Buffer(bank), nn.Buffer(labels)
        self.names = nn.Buffer(torch.arange(n_classes), persistent=False)
        self.k, self.temperature = k, temperature

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, d) to (b, c)."""
        similarity, nearest = (functional.normalize(x, dim=1) @ self.bank.T).topk(self.k, dim=1)
        # Against the nearest, so that small temperatures do not overflow; shares are the same.
        votes = ((similarity - similarity[:, :1]) / self.temperature).exp()
        named = (self.labels[nearest].unsqueeze(2) == self.names).float()
        share = (votes.unsqueeze(2) * named).sum(dim=1) / votes.sum(dim=1, keepdim=True)
        return ((1 - FLOOR) * share + FLOOR / len(self.names)).log()


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return an `nn.Linear` with a copy of these parameters; no random number is drawn."""
    module: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    module.load_state_dict({"weight": weight, "bias": bias})
    return module
