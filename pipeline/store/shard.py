"""Feature rows as the bytes of one plain HDF5 file, and back.

A shard holds, for a run of samples, their features and the digests of the images they were made from. It
holds nothing that varies between equal runs (no time, host, path, label or engine), so equal work gives
equal bytes and equal shards can be shared between entries.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.digest import canonical_json, sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.key import FeatureSpace

if TYPE_CHECKING:
    import h5py

FORMAT = "pipeline-shard"
FORMAT_VERSION = 1
USABLE, BAD = 0, 1
"""Row status: a bad row keeps its place, and its features are zeros."""

# Pinned so that a newer HDF5 writes the same bytes; v110 metadata carries checksums of its own.
LIBVER = ("v110", "v110")
# Data starts on 64-byte boundaries, so that rows can be used where they lie in the file's bytes.
ALIGNMENT_THRESHOLD, ALIGNMENT = 4096, 64


@dataclass(frozen=True)
class ShardRows:
    """The content of a shard: `features` (n, *row_shape), `digests` (n, 32) uint8, `status` (n,) uint8."""

    features: np.ndarray
    digests: np.ndarray
    status: np.ndarray


def shard_bytes(space: FeatureSpace, rows: ShardRows) -> bytes:
    """Return the HDF5 file for `rows`; equal arguments give equal bytes."""
    import h5py  # takes 0.3 s: a finished entry is found and verified without it

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
    }
    with h5py.File.in_memory(
        libver=LIBVER, alignment_threshold=ALIGNMENT_THRESHOLD, alignment_interval=ALIGNMENT
    ) as file:
        # Fixed-length strings only: variable-length ones lie in a heap without checksums.
        for name, text in attributes.items():
            file.attrs[name] = np.bytes_(text)
        file.attrs["format_version"] = np.int64(FORMAT_VERSION)
        for name, array in _columns(rows).items():
            file.create_dataset(name, data=np.ascontiguousarray(array))
        file.flush()
        return bytes(file.id.get_file_image())


def _columns(rows: ShardRows) -> dict[str, np.ndarray]:
    little = rows.features.dtype.newbyteorder("<")
    return {
        "features": rows.features.astype(little, copy=False),
        "image_sha256": rows.digests.astype(np.uint8, copy=False),
        "status": rows.status.astype(np.uint8, copy=False),
    }


def read_shard(path: Path, sha256: str, size: int, space: FeatureSpace) -> ShardRows:
    """Read a shard: hash first, then structure, then data, all from the same bytes.

    The arrays are views of the bytes read (features are not copied) and cannot be written.

    Raises:
        CacheError: naming the file, if it is missing, has other bytes than were committed, or is not a shard
            of `space`.
    """
    data = _read_exactly(path, size)
    if sha256_bytes(data) != sha256:
        raise CacheError(f"{path} is damaged: its bytes do not have the SHA-256 they were committed with", REPAIR)
    return parse_shard(data, space, str(path))


REPAIR = "Run the same `pipeline extract` again: it sets the damaged file aside and makes only what is missing."


def _read_exactly(path: Path, size: int) -> memoryview:
    try:
        with path.open("rb", buffering=0) as file:
            data = bytearray(size + 1)
            view, filled = memoryview(data), 0
            while filled <= size and (count := file.readinto(view[filled:])):
                filled += count
    except FileNotFoundError:
        raise CacheError(f"{path} is missing", REPAIR) from None
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}", REPAIR) from error
    if filled != size:
        found = f"{filled:,}" if filled < size else f"more than {size:,}"
        raise CacheError(f"{path} is damaged: {found} bytes where {size:,} were committed", REPAIR)
    return memoryview(data)[:size].toreadonly()


def parse_shard(data: bytes | memoryview, space: FeatureSpace, where: str) -> ShardRows:
    """Take a shard's bytes, already verified, apart; check every name, type, shape and place first.

    Raises:
        CacheError: naming `where`, if they are anything but a shard of `space`.
    """
    try:
        return _parse(data, space, where)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        raise CacheError(f"{where} is not a shard: {error}", REPAIR) from error


def _parse(data: bytes | memoryview, space: FeatureSpace, where: str) -> ShardRows:
    import h5py

    with h5py.File.in_memory(data) as file:
        attributes = {name: _plain(file.attrs[name]) for name in file.attrs}
        if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
            raise CacheError(
                f"{where} is not a version {FORMAT_VERSION} {FORMAT} file but "
                f"{attributes.get('format')!r} version {attributes.get('format_version')!r}"
            )
        if attributes.get("space_sha256") != space.sha256:
            raise CacheError(f"{where} holds features of another space than its entry says")
        if sorted(file) != ["features", "image_sha256", "status"]:
            raise CacheError(f"{where} holds {sorted(file)}, expected features, image_sha256, status")
        for name in file:  # before any of them is opened: opening a link can open another file
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise CacheError(f"{where}: {name} is a link to somewhere else")
        n = file["status"].shape[0] if isinstance(file["status"], h5py.Dataset) else -1
        wanted = {
            "features": ((n, *space.row_shape), np.dtype(space.store_dtype).newbyteorder("<")),
            "image_sha256": ((n, 32), np.dtype(np.uint8)),
            "status": ((n,), np.dtype(np.uint8)),
        }
        places = {name: _place(file, name, *wanted[name], len(data), where) for name in wanted}
    columns = {
        name: np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=places[name]).reshape(shape)
        for name, (shape, dtype) in wanted.items()
    }
    return ShardRows(columns["features"], columns["image_sha256"], columns["status"])


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever an attribute holds
    return value.decode() if isinstance(value, bytes) else int(value) if isinstance(value, np.integer) else value


def _place(file: "h5py.File", name: str, shape: tuple[int, ...], dtype: np.dtype, size: int, where: str) -> int:
    """Return where a dataset's bytes start in the file; refuse all but plain contiguous data inside it."""
    import h5py

    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape or dataset.dtype != dtype:
        raise CacheError(f"{where}: {name} is not a dataset {shape} {dtype}")
    creation = dataset.id.get_create_plist()
    plain = creation.get_layout() == h5py.h5d.CONTIGUOUS and creation.get_external_count() == 0
    offset = dataset.id.get_offset()
    if shape[0] == 0:
        return 0
    if not plain or offset is None or offset + dataset.id.get_storage_size() > size:
        raise CacheError(f"{where}: {name} is not stored in one piece inside the file")
    return int(offset)
