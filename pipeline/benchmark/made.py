"""Features to train heads on: made, or the user's own."""

from pathlib import Path

import numpy as np

from pipeline.errors import DataError

RANK = 320
"""Directions along which made features vary much, beside noise."""


def features(
    rows: int, dim: int, classes: int, file: str = "", *, x_name: str = "x_train", y_name: str = "y_train"
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return features (n, d) float32, labels (n,) int64 and what they are in words.

    Made ones are seeded: like a network's after its last ReLU they are at least 0, their spectrum falls as 1/k, and
    classes overlap. Rows of a file (.npz) are the first so many; its width and classes are its own.

    Raises:
        DataError: if the file has no such arrays or too few rows.
    """
    if file:
        return _read(Path(file), rows, x_name, y_name)
    generator = np.random.default_rng(0)
    rank = min(RANK, dim)
    y = generator.integers(0, classes, rows)
    centres = generator.normal(size=(classes, rank))
    inner = (generator.normal(size=(rows, rank)) + centres[y]) / np.arange(1, rank + 1)
    x = inner @ generator.normal(size=(rank, dim)) + 0.1 * generator.normal(size=(rows, dim))
    return np.maximum(x, 0).astype(np.float32), y.astype(np.int64), "made features, spectrum 1/k"


def _read(file: Path, rows: int, x_name: str, y_name: str) -> tuple[np.ndarray, np.ndarray, str]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            x, y = arrays[x_name], arrays[y_name]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} is no .npz file with arrays {x_name} and {y_name}: {error}") from error
    if len(x) < rows:
        raise DataError(f"{file} has {len(x):,} rows, {rows:,} are asked for", "Use fewer --rows.")
    return np.ascontiguousarray(x[:rows], np.float32), y[:rows].astype(np.int64), f"features of {file.name}"
