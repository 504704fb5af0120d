"""A head with one hidden layer."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.heads.head import head_files, in_chunks
from pipeline.heads.linear import PLAIN, linear_layer
from pipeline.heads.transform import Transform, before

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class MlpHead:
    """logits = relu(transform(features) @ hidden_weight.T + hidden_bias) @ weight.T + bias."""

    hidden_weight: "Tensor"
    """(m, d) float32."""
    hidden_bias: "Tensor"
    """(m,) float32."""
    weight: "Tensor"
    """(c, m) float32."""
    bias: "Tensor"
    """(c,) float32."""
    classes: tuple[str, ...]
    space: dict[str, Any]
    """The feature space it belongs to."""
    space_sha256: str
    transform: Transform = PLAIN

    kind = "mlp"

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of features (n, d), a chunk of rows at a time."""
        from torch.nn import functional

        def work(chunk: "Tensor") -> "Tensor":
            hidden = functional.linear(self.transform(chunk), self.hidden_weight, self.hidden_bias).relu()
            return functional.linear(hidden, self.weight, self.bias)

        return in_chunks(x, work)

    def module(self) -> "nn.Module":
        """Return a torch module in eval mode: `hidden`, `relu`, `output`, with standardisation inside `hidden`."""
        from torch import nn

        hidden = linear_layer(*self.transform.folded(self.hidden_weight, self.hidden_bias))
        layers = OrderedDict(hidden=hidden, relu=nn.ReLU(), output=linear_layer(self.weight, self.bias))
        return before(self.transform, nn.Sequential(layers))

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""
        names = ("hidden_weight", "hidden_bias", "weight", "bias")
        tensors = {name: getattr(self, name) for name in names} | self.transform.tensors()
        return head_files(
            self,
            int(self.hidden_weight.shape[1]),
            tensors,
            {**self.transform.fields(), "hidden": int(self.hidden_weight.shape[0])},
        )

    @staticmethod
    def shapes(body: Mapping[str, Any], classes: int, dim: int) -> dict[str, tuple[Any, ...]]:
        """Return the shapes that its own tensors must have."""
        hidden = body.get("hidden")
        return {
            "hidden_weight": (hidden, dim),
            "hidden_bias": (hidden,),
            "weight": (classes, hidden),
            "bias": (classes,),
        }

    @classmethod
    def read(cls, body: Mapping[str, Any], tensors: Mapping[str, "Tensor"]) -> "MlpHead":
        """Build from a description and tensors that were checked."""
        return cls(
            tensors["hidden_weight"],
            tensors["hidden_bias"],
            tensors["weight"],
            tensors["bias"],
            tuple(body["classes"]),
            body["space"],
            body["space_sha256"],
            Transform.read(body, tensors),
        )
