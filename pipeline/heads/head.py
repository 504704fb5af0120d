"""What every head is, and the files it is kept in."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.digest import seal, sha256_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, DESCRIPTION = "head.safetensors", "head.json"
FORMAT, FORMAT_VERSION = "pipeline-head", 1


class Head(Protocol):
    """What is trained on features: bound to the feature space and class names it was trained with."""

    @property
    def kind(self) -> str:
        """`linear`, `mlp` or `knn`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""

    @property
    def space(self) -> dict[str, Any]:
        """The feature space it belongs to; features of another are refused even if they are as wide."""

    @property
    def space_sha256(self) -> str:
        """The space's name."""

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of features (n, d), a chunk of rows at a time; softmax makes probabilities."""

    def module(self) -> "nn.Module":
        """Return a torch module in eval mode: float32 features (b, d) to logits (b, c), transforms included.

        Raises:
            UsageError: if this kind has none.
        """

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""


def head_files(head: Head, dim: int, tensors: Mapping[str, "Tensor"], fields: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a head: `fields` holds what its kind needs beside the tensors."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    body = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": head.kind,
        "classes": list(head.classes),
        "dim": dim,
        "weights_sha256": sha256_bytes(data),
        "standardize": None,
        "space": head.space,
        "space_sha256": head.space_sha256,
        **fields,
    }
    return {WEIGHTS: data, DESCRIPTION: json.dumps(seal(body), indent=1).encode() + b"\n"}


def in_chunks(x: "Tensor", work: Any, rows: int = 8192) -> "Tensor":  # noqa: ANN401 - a function of tensors
    """Return work(chunk) of all rows, without gradients."""
    import torch

    with torch.inference_mode():
        return torch.cat([work(chunk) for chunk in x.split(rows)])
