"""Classes of very different size: weights in the loss, or batches in which all are as frequent."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def balanced_weights(y: "Tensor", n_classes: int) -> "Tensor":
    """Return a weight a class (c,) float32: n / (classes present x rows of the class), as scikit-learn's `balanced`.

    Weights of the rows sum to n. A class without rows has weight 1.
    """
    import torch

    count = torch.bincount(y, minlength=n_classes)
    present = count > 0
    return torch.where(present, len(y) / (int(present.sum()) * count.clamp(min=1)), 1.0)


class BalancedRows:
    """Draws rows with replacement, every class that is present as often as any other."""

    def __init__(self, rows: "Tensor", y: "Tensor") -> None:
        """Take rows (n,) and their labels (n,)."""
        import torch

        _, count = torch.unique(y, return_counts=True)
        self.rows = rows[torch.argsort(y, stable=True)].cpu()
        self.count = count.cpu()
        self.first = self.count.cumsum(0) - self.count

    def draw(self, generator: "Generator") -> "Tensor":
        """Return rows (n,), as many as there are."""
        import torch

        n = len(self.rows)
        drawn = torch.randint(len(self.count), (n,), generator=generator)
        # float64: the place in a class of many millions of rows is still exact.
        place = (torch.rand(n, generator=generator, dtype=torch.float64) * self.count[drawn]).long()
        return self.rows[self.first[drawn] + place]
