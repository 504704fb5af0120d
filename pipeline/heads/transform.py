"""What is done to features in front of a head: L2 norm first, then standardisation, fitted on train rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.heads.head import CHUNK_ROWS
from pipeline.heads.rows import R, Rows
from pipeline.heads.viewed import ViewedRows
from pipeline.streaming import StreamedRows

if TYPE_CHECKING:
    from torch import Tensor, nn

CONSTANT = 1e-6
"""Standard deviation beside the mean's size below which a feature is constant at float32's resolution."""


@dataclass(frozen=True)
class Transform:
    """z = (x / |x| - mean) / scale; either part can be left out."""

    l2_norm: bool = False
    mean: "Tensor | None" = None
    """(d,) float32, with `scale`; None without standardisation."""
    scale: "Tensor | None" = None
    """(d,) float32, positive."""

    @property
    def nothing(self) -> bool:
        """Whether features stay as they are."""
        return not self.l2_norm and self.mean is None

    def apply(self, x: R) -> R:
        """Return transformed features (n, d) float32; `x` itself where there is nothing to do."""
        if self.nothing:
            return x
        found: Any = x.mapped(self._in_memory) if isinstance(x, StreamedRows | ViewedRows) else self._in_memory(x)
        return found  # type: ignore[no-any-return]

    def _in_memory(self, x: Any) -> "Tensor":  # noqa: ANN401 - a tensor
        import torch
        from torch import nn

        module = nn.Sequential(*self.modules()).to(x.device)
        out = torch.empty(x.shape, device=x.device)
        with torch.inference_mode():
            for source, goal in zip(x.split(CHUNK_ROWS), out.split(CHUNK_ROWS), strict=True):
                goal.copy_(module(source.float()))
        return out

    def modules(self) -> "list[nn.Module]":
        """Return the transform as torch modules, in order."""
        from pipeline.heads.modules import L2Normalize, Standardize

        steps: list[nn.Module] = [L2Normalize()] if self.l2_norm else []
        if self.mean is not None and self.scale is not None:
            steps.append(Standardize(self.mean, self.scale))
        return steps

    def before(self, weight: "Tensor", bias: "Tensor") -> "list[nn.Module]":
        """Return modules that transform, then apply a linear layer: standardisation is folded into the layer."""
        from pipeline.heads.modules import L2Normalize, linear

        return [*([L2Normalize()] if self.l2_norm else []), linear(*self.folded(weight, bias))]

    def folded(self, weight: "Tensor", bias: "Tensor") -> tuple["Tensor", "Tensor"]:
        """Return the weight (h, d) and bias (h,) that do on x what the given ones do on (x - mean) / scale."""
        if self.mean is None or self.scale is None:
            return weight, bias
        scaled = weight.double() / self.scale.double()
        return scaled.float(), (bias.double() - scaled @ self.mean.double()).float()


IDENTITY = Transform()


def fit_transform(x: Rows, *, l2_norm: bool, standardize: bool) -> Transform:
    """Return the transform of these features (n, d), which are the train rows and no others.

    Mean and standard deviation (of n, not n - 1, as scikit-learn's StandardScaler) are summed in float64. A
    constant feature keeps the scale 1.
    """
    import torch

    if not standardize:
        return Transform(l2_norm)
    first, n = Transform(l2_norm), len(x)
    mean = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for chunk in x.split(CHUNK_ROWS):
        mean += first.apply(chunk).double().sum(dim=0) / n
    square = torch.zeros_like(mean)
    for chunk in x.split(CHUNK_ROWS):
        square += (first.apply(chunk).double() - mean).square().sum(dim=0) / n
    scale = square.sqrt()
    constant = scale <= CONSTANT * mean.abs()
    return Transform(l2_norm, mean.float().cpu(), torch.where(constant, 1.0, scale).float().cpu())
