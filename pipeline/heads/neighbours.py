"""k nearest neighbours among the train rows, by cosine.

The weighted vote of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (CVPR
2018), section 3.4, as DINO's evaluation uses it: each of the k nearest adds exp(cosine / temperature) to its class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.heads.head import head_files, in_chunks
from pipeline.heads.linear import PLAIN
from pipeline.heads.transform import Transform

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK_ROWS = 512
"""Rows whose cosines with all train rows are in memory at a time."""
NO_VOTE = 1e-6
"""Share of a class that no neighbour belongs to: a logit must be finite."""


@dataclass(frozen=True)
class KnnHead:
    """The train rows themselves."""

    x: "Tensor"
    """(n, d) float32, transformed, each of length 1."""
    y: "Tensor"
    """(n,) int64."""
    k: int
    temperature: float
    classes: tuple[str, ...]
    space: dict[str, Any]
    """The feature space it belongs to."""
    space_sha256: str
    transform: Transform = PLAIN

    kind = "knn"

    def logits(self, x: "Tensor") -> "Tensor":
        """Return the logarithms (n, c) of each class's share of the votes; softmax gives the shares back."""
        import torch
        from torch.nn import functional

        def work(chunk: "Tensor") -> "Tensor":
            near, places = (functional.normalize(self.transform(chunk), dim=1) @ self.x.T).topk(
                min(self.k, len(self.x)), dim=1
            )
            weights = ((near - near[:, :1]) / self.temperature).exp()
            votes = torch.zeros(len(chunk), len(self.classes)).scatter_add_(1, self.y[places], weights)
            shares: Tensor = votes / votes.sum(dim=1, keepdim=True)
            return shares.clamp_min(NO_VOTE).log()

        return in_chunks(x, work, CHUNK_ROWS)

    def module(self) -> "nn.Module":
        """Refuse.

        Raises:
            UsageError: always: it is a search through the train rows and no layer of a network.
        """
        raise UsageError(
            "a k-NN head is a search through its train rows and no layer that could be fused or exported",
            "Train --solver centroid, exact or minibatch on the same cache: seconds.",
        )

    def to_files(self) -> dict[str, bytes]:
        """Return the head as files: tensors as safetensors, the rest as JSON."""
        fields = {**self.transform.fields(), "rows": len(self.x), "k": self.k, "temperature": self.temperature}
        tensors = {"x": self.x, "y": self.y, **self.transform.tensors()}
        return head_files(self, int(self.x.shape[1]), tensors, fields)

    @staticmethod
    def shapes(body: Mapping[str, Any], classes: int, dim: int) -> dict[str, tuple[Any, ...]]:
        """Return the shapes that its own tensors must have."""
        rows = body.get("rows")
        return {"x": (rows, dim), "y": (rows,)}

    @classmethod
    def read(cls, body: Mapping[str, Any], tensors: Mapping[str, "Tensor"]) -> "KnnHead":
        """Build from a description and tensors that were checked."""
        names, transform = tuple(body["classes"]), Transform.read(body, tensors)
        k, temperature = int(body["k"]), float(body["temperature"])
        return cls(tensors["x"], tensors["y"], k, temperature, names, body["space"], body["space_sha256"], transform)
