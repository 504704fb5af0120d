"""Torch modules and arrays of the user's as heads."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.mlp import MLPHead

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor, nn

FORMS = "an nn.Linear, an nn.Sequential of Linear, ReLU, [Dropout,] Linear, or a pair (weight, bias)"


def own_head(
    head: "nn.Module | tuple[ArrayLike, ArrayLike]",
    classes: tuple[str, ...],
    space: dict[str, Any],
    space_sha256: str,
    row_shape: tuple[int, ...],
) -> Head:
    """Return a head with a copy of the user's weights, float32, bound to a space and its classes.

    Raises:
        UsageError: if it is of another form, or does not map `row_shape` to the classes.
    """
    from torch import nn

    bound: dict[str, Any] = {"classes": classes, "space": space, "space_sha256": space_sha256}
    if isinstance(head, nn.Linear):
        weight, bias = _layer(head)
        found: Head = LinearHead(weight, bias, **bound)
    elif isinstance(head, nn.Sequential):
        first, dropout, last = _two_layers(head)
        found = MLPHead(*_layer(first), *_layer(last), **bound, dropout=dropout)
        weight, bias = found.weight, found.bias
    elif isinstance(head, tuple) and len(head) == 2:
        weight, bias = _arrays(*head, n_classes=len(classes))
        found = LinearHead(weight, bias, **bound)
    else:
        raise UsageError(f"a head of type {type(head).__name__} cannot be saved", f"Give {FORMS}.")
    if (found.dim,) != row_shape or len(weight) != len(classes) or len(bias) != len(classes):
        raise UsageError(
            f"the head maps {found.dim} features to {len(weight)} outputs, the entry has features {row_shape} "
            f"and {len(classes)} classes",
            "Outputs must be as many, and in the order, as the classes of the entry.",
        )
    return found


def _layer(layer: "nn.Linear") -> "tuple[Tensor, Tensor]":
    import torch

    weight = layer.weight.detach().float().cpu().clone()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().float().cpu().clone()
    return weight, bias


def _two_layers(network: "nn.Sequential") -> "tuple[nn.Linear, float, nn.Linear]":
    from torch import nn

    steps = list(network)
    kept = [step for step in steps if not isinstance(step, nn.Dropout)]
    match kept:
        case [nn.Linear() as first, nn.ReLU(), nn.Linear() as last] if steps[0] is first and steps[-1] is last:
            dropout = max((step.p for step in steps if isinstance(step, nn.Dropout)), default=0.0)
            return first, float(dropout), last
    names = ", ".join(type(step).__name__ for step in steps)
    raise UsageError(f"a head of {names} cannot be saved", f"Give {FORMS}.")


def _arrays(weight: "ArrayLike", bias: "ArrayLike", n_classes: int) -> "tuple[Tensor, Tensor]":
    import torch

    w, b = np.atleast_2d(np.asarray(weight, np.float32)), np.atleast_1d(np.asarray(bias, np.float32))
    if len(w) == 1 and n_classes == 2:
        w, b = np.concatenate([np.zeros_like(w), w]), np.concatenate([np.zeros_like(b), b])
    return torch.from_numpy(np.ascontiguousarray(w)), torch.from_numpy(np.ascontiguousarray(b))
