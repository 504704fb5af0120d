"""A head that keeps the train rows and asks the nearest ones."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import DataError, UsageError
from pipeline.heads.files import head_files
from pipeline.heads.head import CHUNK_ROWS, logits_in_chunks
from pipeline.heads.transform import IDENTITY, Transform

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK_SIMILARITIES = 1 << 24
"""Similarities computed at a time: 64 MB."""


@dataclass(frozen=True)
class NeighboursHead:
    """Weighted vote of the k nearest train rows by cosine; `modules.Neighbours` has the formula.

    Logits are log probabilities: their softmax is the vote.
    """

    bank: "Tensor"
    """(n, d) float32, transformed train rows of length 1."""
    labels: "Tensor"
    """(n,) int64, positions in `classes`."""
    k: int
    temperature: float
    classes: tuple[str, ...]
    space: dict[str, Any]
    space_sha256: str
    transform: Transform = IDENTITY
    kind: ClassVar[str] = "neighbours"

    @property
    def dim(self) -> int:
        """The width d of the features it takes."""
        return int(self.bank.shape[1])

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 log probabilities (n, c) of features (n, d), a chunk of rows at a time."""
        rows = min(CHUNK_ROWS, max(1, CHUNK_SIMILARITIES // len(self.bank)))
        return logits_in_chunks(self._module, x, rows)

    def module(self) -> "nn.Module":
        """Return the head as a torch module in eval mode, the bank its buffer: (b, d) to log probabilities (b, c)."""
        from torch import nn

        from pipeline.heads.modules import Neighbours

        last = Neighbours(self.bank, self.labels, len(self.classes), self.k, self.temperature)
        return nn.Sequential(*self.transform.modules(), last).eval()

    @cached_property
    def _module(self) -> "nn.Module":
        return self.module()

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""
        more = {"k": self.k, "temperature": self.temperature}
        return head_files(self, {"bank": self.bank, "labels": self.labels}, self.transform, more)


def fit_neighbours(x: "Tensor", y: "Tensor", *, k: int) -> tuple["Tensor", "Tensor"]:
    """Return the bank and labels of a head that knows these transformed rows (n, d) with labels (n,).

    Raises:
        UsageError: if there are fewer rows than `k`.
        DataError: if features are not finite.
    """
    import torch
    from torch.nn import functional

    if k > len(x):
        raise UsageError(f"--k {k} neighbours are asked for, there are {len(x)} train rows", "Use a smaller --k.")
    bank = functional.normalize(x.float(), dim=1).cpu()
    if not torch.isfinite(bank).all():
        raise DataError("features are not finite: they have no neighbours")
    return bank, y.cpu()
