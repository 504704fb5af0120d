"""A head with one hidden layer."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.heads.files import head_files
from pipeline.heads.head import logits_in_chunks
from pipeline.heads.transform import IDENTITY, Transform

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class MLPHead:
    """logits = relu(transform(features) @ hidden_weight.T + hidden_bias) @ weight.T + bias."""

    hidden_weight: "Tensor"
    """(h, d) float32."""
    hidden_bias: "Tensor"
    """(h,) float32."""
    weight: "Tensor"
    """(c, h) float32."""
    bias: "Tensor"
    """(c,) float32."""
    classes: tuple[str, ...]
    space: dict[str, Any]
    space_sha256: str
    transform: Transform = IDENTITY
    dropout: float = 0.0
    """Between the layers, in training; the module keeps it for whoever trains on."""
    kind: ClassVar[str] = "mlp"

    @property
    def dim(self) -> int:
        """The width d of the features it takes."""
        return int(self.hidden_weight.shape[1])

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of features (n, d), a chunk of rows at a time."""
        return logits_in_chunks(self._module, x)

    def module(self) -> "nn.Module":
        """Return an `nn.Sequential` in eval mode: float32 features (b, d) to logits (b, c).

        Linear, ReLU, Dropout, Linear, standardisation folded in; behind an `L2Normalize` where the transform has one.
        """
        from torch import nn

        from pipeline.heads.modules import linear

        first = self.transform.before(self.hidden_weight, self.hidden_bias)
        return nn.Sequential(*first, nn.ReLU(), nn.Dropout(self.dropout), linear(self.weight, self.bias)).eval()

    @cached_property
    def _module(self) -> "nn.Module":
        return self.module()

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""
        tensors = {
            "hidden_weight": self.hidden_weight,
            "hidden_bias": self.hidden_bias,
            "weight": self.weight,
            "bias": self.bias,
        }
        return head_files(self, tensors, self.transform, {"dropout": self.dropout})
