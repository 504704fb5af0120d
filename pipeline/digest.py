"""SHA-256 of values and files: the only place that decides how something is turned into bytes to hash."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value, checked below
    """Return the one JSON spelling of `value`: sorted keys, no spaces, ASCII.

    Raises:
        TypeError: if `value` holds anything but dict, list, tuple, str, int, finite float, bool or None. An
            unknown field is an error and never a random or constant digest.
    """
    _check(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _check(value: object, where: str) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            _check(item, f"{where}.{key}")
        return
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check(item, f"{where}[{number}]")
        return
    raise TypeError(f"cannot take the digest of {where} = {value!r} ({type(value).__name__})")


def sha256_json(value: Any) -> str:  # noqa: ANN401 - see canonical_json
    """Return the SHA-256, 64 hex digits, of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in 1 MiB pieces."""
    state = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            state.update(piece)
    return state.hexdigest()


def array_digest(array: np.ndarray) -> bytes:
    """Return the digest of a decoded image: SHA-256 of its shape, dtype and bytes."""
    head = f"{array.shape} {array.dtype.str}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()


def seal(body: dict[str, Any]) -> dict[str, Any]:
    """Return `body` with a `sha256` field over all its other fields."""
    rest = {key: value for key, value in body.items() if key != "sha256"}
    return {**rest, "sha256": sha256_json(rest)}


def is_sealed(document: dict[str, Any]) -> bool:
    """Tell whether `document` carries the `sha256` of all its other fields."""
    try:
        return bool(document.get("sha256") == seal(document)["sha256"])
    except (TypeError, RecursionError):  # NaN, infinity, nesting without end: nothing that was ever sealed
        return False
