"""What storing features in less than float32 costs, measured on every row while both values are there."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

TOLERANCE = {"float32": 1e-4, "float16": 2.0**-10}
"""Largest difference that counts as rounding between versions and machines, relative to the largest feature."""
COMPUTED = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2, "float16": 1e-2}
"""The same between engines, by what they compute in. float32 engines were measured at 5e-7 and bfloat16 at 8e-3 for
convolutional networks; the rest is room for deeper ones."""


def within_rounding(difference: float, scale: float, store_dtype: str, dtype: str) -> bool:
    """Tell whether features computed in `dtype` and stored as `store_dtype` differ by rounding alone.

    That goes by the largest feature, `scale`, or the smallest step of what is stored.
    """
    step = float(np.finfo(store_dtype).smallest_subnormal)
    return difference <= max(TOLERANCE[store_dtype] * scale, COMPUTED[dtype] * scale, step)


class Judge(Protocol):
    """A trained head that tells what rounding does to its predictions."""

    @property
    def name(self) -> str:
        """The run it belongs to."""

    def predictions(self, features: np.ndarray) -> np.ndarray:
        """Return predicted classes (n,) int64 of features (n, d)."""


@dataclass
class Rounding:
    """Errors of stored features against the computed float32 ones.

    The relative error is taken where the float32 value is at least the smallest normal number of the stored
    dtype; below that only the absolute error means anything.
    """

    rows: int = 0
    max_abs_error: float = 0.0
    max_relative_error: float = 0.0
    predictions_changed: int | None = None
    """Rows whose predicted class differs, None without a head."""
    judged_by: str | None = None
    """The run whose head it was."""

    def add(self, exact: np.ndarray, stored: np.ndarray, judge: Judge | None) -> None:
        """Take in rows: `exact` (n, *row) float32 and what is kept of them."""
        kept = stored.astype(np.float32)
        with np.errstate(invalid="ignore"):  # infinities: the guard against them names the rows
            error = np.abs(kept - exact)
        normal = np.abs(exact) >= np.finfo(stored.dtype).tiny
        relative = error[normal] / np.abs(exact[normal])
        self.rows += len(exact)
        self.max_abs_error = max(self.max_abs_error, float(error.max(initial=0.0)))
        self.max_relative_error = max(self.max_relative_error, float(relative.max(initial=0.0)))
        if judge is not None:
            changed = int((judge.predictions(exact) != judge.predictions(kept)).sum())
            self.predictions_changed = (self.predictions_changed or 0) + changed
            self.judged_by = judge.name

    def merge(self, other: "Rounding") -> None:
        """Take in what was measured on other rows."""
        self.rows += other.rows
        self.max_abs_error = max(self.max_abs_error, other.max_abs_error)
        self.max_relative_error = max(self.max_relative_error, other.max_relative_error)
        if other.predictions_changed is not None:
            self.predictions_changed = (self.predictions_changed or 0) + other.predictions_changed
            self.judged_by = other.judged_by

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return dict(self.__dict__)
