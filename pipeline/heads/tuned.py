"""A linear head and the layers in front of it, which were trained together from a cut-point."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.heads.files import head_files
from pipeline.heads.linear import LinearHead

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK_ROWS = 64
"""Maps are large, and what layers make of them larger: few rows at a time."""


@dataclass(frozen=True)
class TunedHead:
    """logits = linear(tail(rows)), for rows (n, *row_shape) of the feature space that the linear head is bound to."""

    tail: "nn.Module"
    """What lies behind the cut (`backbones.tail`), trained: float32 rows (b, *row_shape) to features (b, d)."""
    linear: LinearHead
    """Bound to the space of the cut-point, not to one of what it is given."""
    kind: ClassVar[str] = "finetuned"

    @property
    def dim(self) -> int:
        """The width d of what the linear head takes."""
        return self.linear.dim

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, one a logit."""
        return self.linear.classes

    @property
    def space(self) -> dict[str, Any]:
        """The feature space of the cut-point."""
        return self.linear.space

    @property
    def space_sha256(self) -> str:
        """Its SHA-256."""
        return self.linear.space_sha256

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of rows (n, *row_shape), whatever their dtype, a chunk of rows at a time."""
        return self.linear.logits(self.features(x))

    def features(self, x: "Tensor") -> "Tensor":
        """Return what the linear head is given, float32 (n, d), of rows (n, *row_shape)."""
        import torch

        with torch.inference_mode():  # each chunk is a copy: layers may work in place
            return torch.cat([self.tail(chunk.to(torch.float32, copy=True)) for chunk in x.split(CHUNK_ROWS)])

    def module(self) -> "nn.Module":
        """Return a torch module in eval mode: float32 rows (b, *row_shape) to logits (b, c). It shares the tail."""
        from torch import nn

        return nn.Sequential(self.tail, self.linear.module()).eval()

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files, the tail's tensors in one of their own, under the whole network's names."""
        tensors = {"weight": self.linear.weight, "bias": self.linear.bias}
        return head_files(self, tensors, self.linear.transform, tail=self.tail.state_dict())
