"""What names things in the cache: the feature space, the recipe within it, and the entry."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from pipeline.digest import canonical_json, sha256_json
from pipeline.errors import CacheError
from pipeline.store.fields import Fields, check_fields
from pipeline.textcolumn import TextColumn, text_bytes

SPLITS = ("train", "val", "test")
"""Names of the splits; arrays of splits hold positions in this tuple."""

SHARD_BYTES = 32 << 20
MIN_SHARD_ROWS, MAX_SHARD_ROWS = 256, 2048
MAX_ROW_AXES, MAX_ROW_NUMBERS = 8, 1 << 30
STORE_DTYPES = ("float32", "float16")
SHORT = 16
"""Hex digits of an entry's folder name: 64 bits of its id."""


@dataclass(frozen=True)
class FeatureSpace:
    """Everything that can change a feature's value. Two equal spaces give interchangeable rows.

    Versions of torch, torchvision and Pillow are recorded beside the rows and not here: a new version
    gives equal features up to rounding, which `extract` checks on a few rows before it reuses any.
    """

    architecture: str
    """Where the network's code comes from, like `torchvision/resnet18`."""
    weights: str
    """SHA-256 over the names, dtypes, shapes and bytes of all tensors of the cut network."""
    layer: str
    """The cut: `input:fc` is the input of the module `fc`."""
    pool: str
    """Pooling applied after the cut, or `none`."""
    preprocess: dict[str, Any]
    """All fields of the Preprocess, decoder included."""
    dtype: str
    """What the forward pass computes in, like `float32`."""
    store_dtype: str
    """What the rows are stored as, `float32` or `float16`."""
    row_shape: tuple[int, ...]
    """Shape of one row, `(d,)` for head features."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; `from_json` is the way back."""
        return {**asdict(self), "row_shape": list(self.row_shape)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build from `to_json`'s fields.

        Raises:
            CacheError: if a field is missing or unknown, so that a newer format is refused, not half read.
        """
        _check_names(cls, value, "feature space")
        text: Fields = dict.fromkeys(("architecture", "weights", "layer", "pool", "dtype", "store_dtype"), str)
        check_fields(value, {**text, "preprocess": dict, "row_shape": (list, tuple)}, "feature space")
        shape = value["row_shape"]
        whole = all(type(side) is int and side > 0 for side in shape)
        if not whole or not 1 <= len(shape) <= MAX_ROW_AXES or math.prod(shape) > MAX_ROW_NUMBERS:
            raise CacheError(f"feature space: a row of shape {str(shape)[:80]}")
        if value["store_dtype"] not in STORE_DTYPES:
            raise CacheError(f"feature space: rows of dtype {value['store_dtype'][:40]!r}")
        return cls(**{**value, "row_shape": tuple(shape)})

    @cached_property
    def sha256(self) -> str:
        """The space's name, 64 hex digits."""
        return sha256_json(self.to_json())

    @property
    def view(self) -> tuple[str, int]:
        """The augmentation and the number of the view that rows are of; of plain images an empty string and 0."""
        augment = self.preprocess.get("augment")
        if augment is None:
            return "", 0
        known = isinstance(augment, dict) and type(augment.get("view")) is int and isinstance(augment.get("steps"), str)
        # What another version, or anyone, has written is at least no plain image.
        return (augment["steps"], augment["view"]) if known else (str(augment), 1)

    def of_view(self, steps: str, number: int) -> Self:
        """Return the space of the same images seen otherwise; view 0 is the plain image, whatever the steps."""
        plain = {name: value for name, value in self.preprocess.items() if name != "augment"}
        augment = {"augment": {"steps": steps, "view": number}} if number else {}
        return replace(self, preprocess={**plain, **augment})

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return int(np.prod(self.row_shape)) * np.dtype(self.store_dtype).itemsize


@dataclass(frozen=True)
class Recipe:
    """How values are computed within a space. Equal recipes give equal bytes; pinned when work starts."""

    engine: str
    """Name of the engine, like `reference`."""
    engine_version: str
    """Version of what the engine runs on, like `torch 2.15.0`."""
    device: str
    """Device kind: `cpu`, `cuda` or `mps`."""
    threads: int
    """CPU threads of the forward pass: another count may sum in another order. 0 where it plays no part."""
    batch_size: int
    """Rows of every forward pass; the last batch of a shard is padded."""
    shard_rows: int
    """Rows a shard."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; `from_json` is the way back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build from `to_json`'s fields.

        Raises:
            CacheError: if a field is missing or unknown.
        """
        _check_names(cls, value, "recipe")
        numbers: Fields = dict.fromkeys(("threads", "batch_size", "shard_rows"), int)
        check_fields(value, {**numbers, "engine": str, "engine_version": str, "device": str}, "recipe")
        if not value["batch_size"] or not value["shard_rows"]:
            raise CacheError("recipe: a batch or a shard of no rows")
        return cls(**value)


def _check_names(kind: type[FeatureSpace] | type[Recipe], value: dict[str, Any], what: str) -> None:
    names = {field.name for field in fields(kind)}
    if set(value) != names:
        raise CacheError(
            f"{what} with fields {sorted(value)}, expected {sorted(names)}",
            "It was written by another version of this package: extract again.",
        )


def shard_rows_for(row_bytes: int, batch_size: int) -> int:
    """Return the rows a shard: 32 MB worth within 256 to 2,048, a multiple of the batch."""
    rows = min(MAX_SHARD_ROWS, max(MIN_SHARD_ROWS, SHARD_BYTES // row_bytes))
    return max(batch_size, rows // batch_size * batch_size)


def plan_id(space: FeatureSpace, source: dict[str, Any], ids: Sequence[str]) -> str:
    """Name an extraction in progress: its image digests, hence the entry's id, are not known yet."""
    state = hashlib.sha256(canonical_json([space.sha256, source]))
    for data in _ended(ids):
        state.update(data)
    return state.hexdigest()


def entry_id(
    space: FeatureSpace,
    classes: Sequence[str],
    ids: Sequence[str],
    digests: np.ndarray,
    labels: np.ndarray,
    splits: np.ndarray,
    groups: Sequence[str] | None = None,
) -> str:
    """Name an entry by its content: the space, the classes and, in order, every sample.

    `digests` (n, 32) uint8 (zeros for a file that could not be read), `labels` (n,), `splits` (n,), and `groups`,
    n names, where the source has any: without them an entry has the name it had before there were groups.
    Ids and groups hold no NUL (no file name does), so a NUL ends each one.
    """
    state = hashlib.sha256(canonical_json([space.sha256, list(classes), len(ids)]))
    _update_texts(state, ids)
    state.update(np.ascontiguousarray(digests, dtype=np.uint8).reshape(-1).data)
    state.update(np.ascontiguousarray(labels, dtype="<i8").data)
    state.update(np.ascontiguousarray(splits, dtype=np.int8).data)
    if groups is not None:
        _update_texts(state, groups)
    return state.hexdigest()


def _update_texts(state: "hashlib._Hash", texts: Sequence[str]) -> None:
    for data in _ended(texts):
        state.update(data)
    if not len(texts):
        state.update(b"\0")  # so had an entry without samples its name from the beginning


def _ended(texts: Sequence[str]) -> Iterator[bytes]:
    """Yield the bytes of all texts, each ended by a NUL; of a column as it holds them, many at a time."""
    return texts.blocks() if isinstance(texts, TextColumn) else (text_bytes(text) + b"\0" for text in texts)
