"""What features go through before a head: fitted on train rows, kept in the head's file, part of its module."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK_ROWS = 8192
SHORTEST = 1e-12
"""Length below which a row is divided by this instead: `torch.nn.functional.normalize`'s own."""


@dataclass(frozen=True)
class Transform:
    """Features over their length, if `l2_norm`; then minus `mean`, over `scale`, if they are there."""

    l2_norm: bool = False
    mean: "Tensor | None" = None
    """(d,) float32."""
    scale: "Tensor | None" = None
    """(d,) float32, above 0."""

    @property
    def plain(self) -> bool:
        """Whether features stay as they are."""
        return not self.l2_norm and self.mean is None

    def __call__(self, x: "Tensor") -> "Tensor":
        """Return float32 features (n, d) of features (n, d)."""
        from torch.nn import functional

        x = x.float()
        if self.l2_norm:
            x = functional.normalize(x, dim=1, eps=SHORTEST)
        if self.mean is not None and self.scale is not None:
            x = (x - self.mean.to(x.device)) / self.scale.to(x.device)
        return x

    def tensors(self) -> dict[str, "Tensor"]:
        """Return what goes into the head's tensors."""
        return {} if self.mean is None or self.scale is None else {"mean": self.mean, "scale": self.scale}

    def fields(self) -> dict[str, Any]:
        """Return what goes into the head's description; nothing that a plain head has not always had."""
        return {"standardize": None if self.mean is None else True} | ({"l2_norm": True} if self.l2_norm else {})

    @classmethod
    def read(cls, body: Mapping[str, Any], tensors: Mapping[str, "Tensor"]) -> "Transform":
        """Build from a head's description and tensors, whose shapes were checked."""
        return cls(body.get("l2_norm") is True, tensors.get("mean"), tensors.get("scale"))

    def folded(self, weight: "Tensor", bias: "Tensor") -> tuple["Tensor", "Tensor"]:
        """Return weight (m, d) and bias (m,) of a layer that standardises by itself, computed in float64."""
        if self.mean is None or self.scale is None:
            return weight, bias
        scaled = weight.double() / self.scale.double()
        return scaled.float(), (bias.double() - scaled @ self.mean.double()).float()


def before(transform: Transform, layer: "nn.Module") -> "nn.Module":
    """Return `layer`, behind the part of a transform that no layer can do by itself."""
    from collections import OrderedDict

    from torch import Tensor, nn
    from torch.nn import functional

    if not transform.l2_norm:
        return layer.eval()

    class L2Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.normalize(x, dim=1, eps=SHORTEST)

    return nn.Sequential(OrderedDict(l2_norm=L2Norm(), layer=layer)).eval()


def fit_transform(x: "Tensor", rows: np.ndarray, *, standardize: bool, l2_norm: bool) -> Transform:
    """Fit on rows (m,) of features (n, d): their mean and standard deviation, 1 where a feature never changes."""
    import torch

    if not standardize:
        return Transform(l2_norm)
    first = Transform(l2_norm)
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    chunks = torch.from_numpy(np.ascontiguousarray(rows)).split(CHUNK_ROWS)
    for chunk in chunks:
        total += first(x[chunk]).double().sum(0)
    mean = total / len(rows)
    for chunk in chunks:  # a second pass: the difference of two large sums would lose digits
        squares += (first(x[chunk]).double() - mean).square().sum(0)
    scale = (squares / len(rows)).sqrt()
    return Transform(l2_norm, mean.float(), torch.where(scale > 0, scale, 1.0).float())
