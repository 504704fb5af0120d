"""What every head is, however it was found."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK_ROWS = 8192


class Head(Protocol):
    """Maps features (n, d) of one feature space to logits (n, c) of named classes."""

    @property
    def kind(self) -> str:
        """The form of the head in its file: `linear`, `mlp` or `neighbours`."""

    @property
    def dim(self) -> int:
        """The width d of the features it takes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, one a logit."""

    @property
    def space(self) -> dict[str, Any]:
        """The feature space it belongs to; features of another are refused even if they are as wide."""

    @property
    def space_sha256(self) -> str:
        """Its SHA-256."""

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of features (n, d), whatever their dtype, a chunk of rows at a time."""

    def module(self) -> "nn.Module":
        """Return a new torch module in eval mode, transform included: float32 features (b, d) to logits (b, c)."""

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""


def logits_in_chunks(module: "nn.Module", x: "Tensor", rows: int = CHUNK_ROWS) -> "Tensor":
    """Return float32 outputs (n, c) of a module for features (n, d), so many rows at a time."""
    import torch

    with torch.inference_mode():
        return torch.cat([module(chunk.float()) for chunk in x.split(rows)])
