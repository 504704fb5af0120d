"""ONNX: written by torch's own exporter, run by ONNX Runtime."""

import contextlib
import io
import json
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.product import INPUT, METADATA, OUTPUTS, Product, Runner
from pipeline.errors import DataError, UsageError, first_line

EXAMPLES = 2
"""Images to trace with: a batch of one would be taken for a constant."""
QUIET = 3
"""ONNX Runtime's level of logging: errors only."""


class Onnx:
    """One `.onnx` file with its weights inside."""

    suffix = ".onnx"

    def write(self, product: Product, path: Path) -> None:
        """Write the file."""
        import torch

        _need("onnx", "onnxscript", "onnxruntime")
        example = torch.zeros(EXAMPLES, 3, product.size, product.size)
        # The exporter prints its progress and warns of its own internals.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                program = torch.onnx.export(
                    product.model,
                    (example,),
                    dynamo=True,
                    input_names=[INPUT],
                    output_names=list(OUTPUTS),
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    verbose=False,
                )
            except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
                raise DataError(
                    f"this network cannot be written as ONNX: {first_line(error)}",
                    "Try --format pt2 or --format safetensors.",
                ) from error
            assert program is not None
            program.model.metadata_props.update(_texts(product.description))
            program.save(str(path), external_data=False)

    def open(self, path: Path) -> Runner:
        """Return what runs the file with ONNX Runtime on the CPU."""
        _need("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise DataError(f"{path} is no ONNX file that can be run: {first_line(error)}") from error

        def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            logits, probabilities = session.run(list(OUTPUTS), {INPUT: images})
            return logits, probabilities

        return run


def _texts(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata: all of it under one name, and what other programs ask for under names of its own."""
    return {
        METADATA: json.dumps(description),
        "classes": json.dumps(description["classes"]),
        "image_size": str(description["image_size"]),
        "space_sha256": str(description["space_sha256"]),
    }


def _need(*packages: str) -> None:
    """Refuse what is not installed, in one line."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(f"ONNX needs {', '.join(missing)}, not installed here", "pip install 'feature-pipeline[onnx]'")
