"""A linear head, whichever solver found its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.heads.head import head_files, in_chunks
from pipeline.heads.transform import Transform, before

if TYPE_CHECKING:
    from torch import Tensor, nn

PLAIN = Transform()


@dataclass(frozen=True)
class LinearHead:
    """logits = transform(features) @ weight.T + bias."""

    weight: "Tensor"
    """(c, d) float32."""
    bias: "Tensor"
    """(c,) float32."""
    classes: tuple[str, ...]
    space: dict[str, Any]
    """The feature space it belongs to; features of another are refused even if they are as wide."""
    space_sha256: str
    transform: Transform = PLAIN

    kind = "linear"

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of features (n, d), a chunk of rows at a time."""
        from torch.nn import functional

        return in_chunks(x, lambda chunk: functional.linear(self.transform(chunk), self.weight, self.bias))

    def module(self) -> "nn.Module":
        """Return a torch module in eval mode: one `nn.Linear`, with standardisation inside its weights.

        With `l2_norm` it stands behind a layer that divides rows by their length.
        """
        return before(self.transform, linear_layer(*self.transform.folded(self.weight, self.bias)))

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""
        tensors = {"weight": self.weight, "bias": self.bias, **self.transform.tensors()}
        return head_files(self, int(self.weight.shape[1]), tensors, self.transform.fields())

    @staticmethod
    def shapes(body: Mapping[str, Any], classes: int, dim: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes that its own tensors must have."""
        return {"weight": (classes, dim), "bias": (classes,)}

    @classmethod
    def read(cls, body: Mapping[str, Any], tensors: Mapping[str, "Tensor"]) -> "LinearHead":
        """Build from a description and tensors that were checked."""
        names = tuple(body["classes"])
        transform = Transform.read(body, tensors)
        return cls(tensors["weight"], tensors["bias"], names, body["space"], body["space_sha256"], transform)


def linear_layer(weight: "Tensor", bias: "Tensor") -> "nn.Linear":
    """Return an `nn.Linear` with this weight (m, d) and bias (m,); no random number is drawn for it."""
    from torch import nn

    layer: nn.Linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
