"""A linear head: what is trained, saved, and bound to the feature space and class names it was trained with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.digest import is_sealed, seal, sha256_bytes
from pipeline.errors import CacheError, DataError
from pipeline.store.verified import read_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, DESCRIPTION = "head.safetensors", "head.json"
FORMAT, FORMAT_VERSION = "pipeline-head", 1
FIELDS = {"format": str, "classes": list, "dim": int, "weights_sha256": str, "space": dict, "space_sha256": str}
CHUNK_ROWS = 8192
MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class LinearHead:
    """logits = features @ weight.T + bias."""

    weight: "Tensor"
    """(c, d) float32."""
    bias: "Tensor"
    """(c,) float32."""
    classes: tuple[str, ...]
    space: dict[str, Any]
    """The feature space it belongs to; features of another are refused even if they are as wide."""
    space_sha256: str

    def logits(self, x: "Tensor") -> "Tensor":
        """Return float32 logits (n, c) of features (n, d), a chunk of rows at a time."""
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            parts = [functional.linear(chunk.float(), self.weight, self.bias) for chunk in x.split(CHUNK_ROWS)]
            return torch.cat(parts)

    def module(self) -> "nn.Linear":
        """Return the head as a torch module in eval mode: float32 features (b, d) to logits (b, c)."""
        from torch import nn

        module: nn.Linear = nn.utils.skip_init(nn.Linear, self.weight.shape[1], self.weight.shape[0])
        module.load_state_dict({"weight": self.weight, "bias": self.bias})
        return module.eval()

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""
        from safetensors.torch import save

        tensors = save({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()})
        body = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": "linear",
            "classes": list(self.classes),
            "dim": int(self.weight.shape[1]),
            "weights_sha256": sha256_bytes(tensors),
            "standardize": None,
            "space": self.space,
            "space_sha256": self.space_sha256,
        }
        return {WEIGHTS: tensors, DESCRIPTION: json.dumps(seal(body), indent=1).encode() + b"\n"}


def read_head(folder: Path) -> LinearHead:
    """Read a head from the files of `LinearHead.to_files`.

    Raises:
        DataError: if they are missing, damaged, or do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        body = json.loads(read_whole(folder / DESCRIPTION, MAX_BYTES))
        data = read_whole(folder / WEIGHTS, MAX_BYTES)
        tensors = load(data)
    except (OSError, ValueError, RecursionError, CacheError, SafetensorError) as error:
        raise DataError(f"the head in {folder} cannot be read: {error}") from error
    head = head_of(body, tensors, str(folder / DESCRIPTION))
    if sha256_bytes(data) != body["weights_sha256"]:
        raise DataError(f"{folder / WEIGHTS} is damaged: it does not have the SHA-256 in {DESCRIPTION}")
    return head


def head_of(body: Any, tensors: Mapping[str, "Tensor"], where: str) -> LinearHead:  # noqa: ANN401 - any JSON value
    """Return the head that a description and its tensors make; `where` they come from is for errors.

    Raises:
        DataError: if the description is not sealed, of another version or kind, or does not fit the tensors.
    """
    if not isinstance(body, dict) or not is_sealed(body) or body.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{where} is damaged or of another version")
    wrong = [name for name, kind in FIELDS.items() if not isinstance(body.get(name), kind)]
    if wrong or body["format"] != FORMAT or not all(isinstance(name, str) for name in body["classes"]):
        raise DataError(f"{where} is no description of a head: {', '.join(wrong) or 'its classes'}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if body.get("kind") != "linear":
        raise DataError(f"{where} is of kind {body.get('kind')!r}, this package knows linear")
    classes = len(body["classes"])
    if shapes != {"weight": (classes, body["dim"]), "bias": (classes,)}:
        raise DataError(f"{where}: its tensors are {shapes}, expected {classes} classes x {body['dim']} features")
    return LinearHead(tensors["weight"], tensors["bias"], tuple(body["classes"]), body["space"], body["space_sha256"])
