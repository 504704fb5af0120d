"""What is exported, and what a format is: a way to write it, and a way to run what was written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT, OUTPUTS = "images", ("logits", "probabilities")
METADATA = "pipeline"
"""The name under which a file's own metadata holds the description as JSON."""


@dataclass(frozen=True)
class Product:
    """A fused model in the forms that formats want it in."""

    model: "nn.Module"
    """`fusion.image_model`: images to logits and probabilities."""
    size: int
    """Pixels of a side of the images it takes."""
    description: dict[str, Any]
    tensors: Mapping[str, "Tensor"]
    """Of the cut network as `network.*`, of the head's file as `head.*`."""


Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps images, float32 (b, 3, h, w) in [0, 1], to logits and probabilities, float32 (b, c) each."""


class Format(Protocol):
    """Writes and runs one kind of file."""

    suffix: str

    def write(self, product: Product, path: Path) -> None:
        """Write a model that takes any number of images at a time.

        Raises:
            UsageError: if the packages for it are not installed.
            DataError: if the format cannot say what the network does.
        """

    def open(self, path: Path) -> Runner:
        """Return what runs the file at `path` on the CPU.

        Raises:
            DataError: if it cannot be run.
        """
