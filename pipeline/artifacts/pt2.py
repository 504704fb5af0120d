"""torch.export: a `.pt2` file that torch runs without the code that built the network."""

import json
import warnings
from pathlib import Path

import numpy as np

from pipeline.artifacts.product import METADATA, Product, Runner
from pipeline.errors import DataError, first_line

EXAMPLES = 2
"""Images to trace with: a batch of one would be taken for a constant."""


class Pt2:
    """One `.pt2` file; its description lies in it as the extra file `pipeline.json`."""

    suffix = ".pt2"

    def write(self, product: Product, path: Path) -> None:
        """Write the file."""
        import torch

        example = torch.zeros(EXAMPLES, 3, product.size, product.size)
        batch = torch.export.Dim("batch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own internals
            try:
                program = torch.export.export(product.model, (example,), dynamic_shapes=({0: batch},))
            except (RuntimeError, ValueError, AssertionError) as error:  # the exporter's own errors are such
                raise DataError(
                    f"this network cannot be written by torch.export: {first_line(error)}",
                    "Try --format safetensors.",
                ) from error
            extra = {f"{METADATA}.json": json.dumps(product.description)}
            torch.export.save(program, path, extra_files=extra)

    def open(self, path: Path) -> Runner:
        """Return what runs the file on the CPU."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                module = torch.export.load(path).module()
            except Exception as error:
                raise DataError(f"{path} is no .pt2 file that can be run: {first_line(error)}") from error

        def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.inference_mode():
                logits, probabilities = module(torch.from_numpy(images))
            return logits.numpy(), probabilities.numpy()

        return run
