"""A linear head: what most solvers give."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.heads.files import head_files
from pipeline.heads.head import logits_in_chunks
from pipeline.heads.transform import IDENTITY, Transform

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class LinearHead:
    """logits = transform(features) @ weight.T + bias."""

    weight: "Tensor"
    """(c, d) float32."""
    bias: "Tensor"
    """(c,) float32."""
    classes: tuple[str, ...]
    space: dict[str, Any]
    space_sha256: str
    transform: Transform = IDENTITY
    kind: ClassVar[str] = "linear"

    @property
    def dim(self) -> int:
        """The width d of the features it takes."""
        return int(self.weight.shape[1])

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of features (n, d), a chunk of rows at a time."""
        return logits_in_chunks(self._module, x)

    def module(self) -> "nn.Module":
        """Return the head as a torch module in eval mode: float32 features (b, d) to logits (b, c).

        One `nn.Linear`, standardisation folded in; behind an `L2Normalize` where the transform has one.
        """
        from torch import nn

        steps = self.transform.before(self.weight, self.bias)
        return (steps[0] if len(steps) == 1 else nn.Sequential(*steps)).eval()

    @cached_property
    def _module(self) -> "nn.Module":
        return self.module()

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""
        return head_files(self, {"weight": self.weight, "bias": self.bias}, self.transform)
