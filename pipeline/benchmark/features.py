"""Features to train heads on: made, or a user's own."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

DECAY = 1.2
"""Eigenvalue k of the covariance falls as k to the power of minus this, about as that of real penultimate features."""


def features_of(rows: int, dim: int, classes: int, source: str = "") -> tuple["Tensor", "Tensor", str]:
    """Return features (n, d) float32, labels (n,) int64, and what they are, for people.

    Args:
        rows: n of made features.
        dim: d of made features.
        classes: of made features.
        source: an .npz file as `pipeline cache export --npz` writes it, whose train rows take their place.

    Raises:
        DataError: if the file cannot be read or has no such arrays.
    """
    import torch

    if source:
        try:
            with np.load(source) as file:
                train = file["split"] == "train"
                x, y = file["features"][train].astype(np.float32), file["label"][train]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{source} holds no features: {error}", "Write one: pipeline cache export --npz") from error
        return torch.from_numpy(x), torch.from_numpy(y), f"features of {Path(source).name}"
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, classes, (rows,), generator=generator)
    scale = torch.arange(1, dim + 1) ** (-DECAY / 2)
    latent = torch.randn(rows, dim, generator=generator) + torch.randn(classes, dim, generator=generator)[y] * 0.5
    mix = torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
    return torch.relu((latent * scale) @ mix * dim**0.5 * 0.1 + 0.2), y, "made features"


def standardized(x: "Tensor") -> "Tensor":
    """Return features of mean 0 and variance 1."""
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
