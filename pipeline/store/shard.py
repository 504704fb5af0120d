"""Feature rows as the bytes of one plain HDF5 file, and back.

A shard holds, for a run of samples, their features and the digests of the images they were made from. It
holds nothing that varies between equal runs (no time, host, path, label or engine), so equal work gives
equal bytes and equal shards can be shared between entries.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.digest import canonical_json
from pipeline.errors import CacheError
from pipeline.store.columns import read_columns, write_columns
from pipeline.store.key import FeatureSpace
from pipeline.store.verified import REPAIR, read_verified

FORMAT = "pipeline-shard"
FORMAT_VERSION = 1
COLUMNS = ("features", "image_sha256", "status")
USABLE, BAD = 0, 1
"""Row status: a bad row keeps its place, and its features are zeros."""

# Data starts on 64-byte boundaries, so that rows can be used where they lie in the file's bytes.
ALIGNMENT_THRESHOLD, ALIGNMENT = 4096, 64


@dataclass(frozen=True)
class ShardRows:
    """The content of a shard: `features` (n, *row_shape), `digests` (n, 32) uint8, `status` (n,) uint8."""

    features: np.ndarray
    digests: np.ndarray
    status: np.ndarray
    offset: int | None = field(default=None, compare=False)
    """Where in their file the features start, in bytes; None of rows that were not read from one."""


def shard_bytes(space: FeatureSpace, rows: ShardRows) -> bytes:
    """Return the HDF5 file for `rows`; equal arguments give equal bytes."""
    n = len(rows.features)
    expected = (n, *space.row_shape)
    if rows.features.shape != expected or rows.features.dtype != np.dtype(space.store_dtype):
        raise ValueError(
            f"features {rows.features.shape} {rows.features.dtype}, expected {expected} {space.store_dtype}"
        )
    attributes = {
        "format": FORMAT.encode(),
        "space": canonical_json(space.to_json()),
        "space_sha256": space.sha256.encode(),
        "format_version": np.int64(FORMAT_VERSION),
    }
    columns = {
        "features": rows.features.astype(rows.features.dtype.newbyteorder("<"), copy=False),
        "image_sha256": rows.digests.astype(np.uint8, copy=False),
        "status": rows.status.astype(np.uint8, copy=False),
    }
    return write_columns(attributes, columns, alignment_threshold=ALIGNMENT_THRESHOLD, alignment_interval=ALIGNMENT)


def read_shard(path: Path, sha256: str, size: int, space: FeatureSpace) -> ShardRows:
    """Read a shard: hash first, then structure, then data, all from the same bytes.

    The arrays are views of the bytes read (features are not copied) and cannot be written.

    Raises:
        CacheError: naming the file, if it is missing, has other bytes than were committed, or is not a shard
            of `space`.
    """
    return parse_shard(read_verified(path, sha256, size), space, str(path))


def parse_shard(data: bytes | memoryview, space: FeatureSpace, where: str) -> ShardRows:
    """Take a shard's bytes, already verified, apart; check every name, type, shape and place first.

    Raises:
        CacheError: naming `where`, if they are anything but a shard of `space`.
    """
    attributes, columns = read_columns(data, COLUMNS, where)
    if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
        raise CacheError(
            f"{where} is not a version {FORMAT_VERSION} {FORMAT} file but "
            f"{attributes.get('format')!r} version {attributes.get('format_version')!r}"
        )
    if attributes.get("space_sha256") != space.sha256:
        raise CacheError(f"{where} holds features of another space than its entry says")
    n = len(columns["status"])
    wanted = {
        "features": ((n, *space.row_shape), np.dtype(space.store_dtype).newbyteorder("<")),
        "image_sha256": ((n, 32), np.dtype(np.uint8)),
        "status": ((n,), np.dtype(np.uint8)),
    }
    for name, (shape, dtype) in wanted.items():
        if columns[name].shape != shape or columns[name].dtype != dtype:
            raise CacheError(f"{where}: {name} is not a dataset {shape} {dtype}", REPAIR)
    # The features are a view of the file's bytes.
    offset = columns["features"].ctypes.data - np.frombuffer(data, np.uint8).ctypes.data
    return ShardRows(columns["features"], columns["image_sha256"], columns["status"], offset)
