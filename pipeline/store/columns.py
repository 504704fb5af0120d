"""The structure of our HDF5 files, checked before any data is touched: a few plain columns, and nothing else.

An HDF5 file can name other files (external storage, links, virtual datasets), ask for code (filters) or for more
memory than there is (shapes, compression). None of that is needed here, so none of it is let in.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import CacheError
from pipeline.store.headers import Header, Place, keep_header, known_header
from pipeline.store.skeleton import check_skeleton
from pipeline.store.verified import REPAIR
from pipeline.textcolumn import TextColumn

if TYPE_CHECKING:
    import h5py

# Pinned so that a newer HDF5 writes the same bytes; v110 metadata carries checksums of its own.
LIBVER = ("v110", "v110")
MAX_ATTRIBUTES = 16
MAX_ATTRIBUTE_BYTES = 60_000
Column = np.ndarray | TextColumn
KINDS = "iufS"
"""Kinds of numpy's dtypes that a column may have: integers, floats and fixed-length bytes."""


def write_columns(attributes: Mapping[str, Any], columns: Mapping[str, Column], **layout: int) -> bytes:
    """Return the bytes of an HDF5 file with these root attributes (bytes or integers) and datasets.

    Equal arguments give equal bytes.
    """
    import h5py  # takes 0.3 s: a finished entry is found and verified without it

    with h5py.File.in_memory(libver=LIBVER, **layout) as file:
        _write(file, attributes, columns)
        file.flush()
        return bytes(file.id.get_file_image())


def write_columns_file(path: Path, attributes: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    """Write the bytes that `write_columns` returns to a new file, not synced: in memory HDF5 holds them twice.

    Raises:
        CacheError: if the disk is full or fails.
    """
    import h5py

    try:
        with h5py.File(path, "x", libver=LIBVER, locking=False) as file:
            _write(file, attributes, columns)
    except RuntimeError as error:  # of what HDF5 writes when it closes the file
        raise CacheError(f"cannot write {path}: {error}", "Is the disk full?") from error


def _write(file: "h5py.File", attributes: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    set_attributes(file, attributes)
    for name, column in columns.items():
        if not isinstance(column, TextColumn):
            file.create_dataset(name, data=np.ascontiguousarray(column))
            continue
        dataset, first = file.create_dataset(name, (len(column),), column.dtype), 0
        for part in column.parts():
            dataset[first : first + len(part)] = part
            first += len(part)


def set_attributes(file: "h5py.File", attributes: Mapping[str, Any]) -> None:
    """Write root attributes. Fixed-length strings only: variable-length ones lie in a heap without checksums."""
    for name, value in attributes.items():
        file.attrs[name] = np.bytes_(value) if isinstance(value, bytes) else value


def read_columns(
    data: bytes | memoryview, names: tuple[str, ...], where: str, optional: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the root attributes and the columns of an HDF5 file, which are views of `data`.

    Raises:
        CacheError: naming `where`, if it is anything but a file with exactly these columns, and perhaps those that
            are `optional`, each stored in one piece inside it.
    """
    try:
        header = known_header(data, names, optional) or _parsed(data, names, where, optional)
        columns = {
            name: np.frombuffer(data, place.dtype, count=math.prod(place.shape), offset=place.offset).reshape(
                place.shape
            )
            for name, place in header.places.items()
        }
    except CacheError:
        raise
    except Exception as error:  # whatever HDF5, h5py and numpy make of what somebody else has written
        raise CacheError(f"{where} is not a file of this cache: {error}", REPAIR) from error
    return dict(header.attributes), columns


def _parsed(data: bytes | memoryview, names: tuple[str, ...], where: str, optional: tuple[str, ...]) -> Header:
    """Let HDF5 say what the file is, after a look at all that it follows."""
    import h5py

    walked: list[tuple[int, int]] = []

    def read(offset: int, count: int) -> bytes:
        walked.append((offset, count))
        return bytes(data[offset : offset + count])

    check_skeleton(read, where)
    with h5py.File.in_memory(data) as file:
        attributes, places = inspect(file, names, len(data), where, optional)
    return keep_header(data, names, optional, attributes, places, walked)


def inspect(
    file: "h5py.File", names: tuple[str, ...], size: int, where: str, optional: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Place]]:
    """Check an open file of `size` bytes; return its attributes and where its columns lie. No data is read.

    Raises:
        CacheError: naming `where` and what is not as it should be.
    """
    import h5py

    attributes = _attributes(file, where)
    if len(file) <= len(names) + len(optional):  # names only: no count of them takes long
        names += tuple(name for name in optional if name in list(file))
    if len(file) != len(names) or sorted(file) != sorted(names):
        found = sorted(file)[:8] if len(file) < 1000 else f"{len(file):,} names"
        raise CacheError(f"{where} holds {found}, expected {', '.join(names)}", REPAIR)
    for name in names:  # before any of them is opened: opening a link can open another file
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise CacheError(f"{where}: {name} is a link to somewhere else", REPAIR)
    return attributes, {name: _place(file, name, size, where) for name in names}


def _attributes(file: "h5py.File", where: str) -> dict[str, Any]:
    import h5py

    if len(file.attrs) > MAX_ATTRIBUTES:
        raise CacheError(f"{where} has {len(file.attrs):,} attributes, at most {MAX_ATTRIBUTES} are known", REPAIR)
    found: dict[str, Any] = {}
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        kind = attribute.get_type()
        text = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
        integer = isinstance(kind, h5py.h5t.TypeIntegerID)
        small = attribute.shape is not None and len(attribute.shape) <= 1
        if not ((text or integer) and small) or attribute.get_storage_size() > MAX_ATTRIBUTE_BYTES:
            raise CacheError(f"{where}: attribute {name} is neither fixed-length text nor integers", REPAIR)
        value = np.asarray(file.attrs[name])
        items = [item.decode() if isinstance(item, bytes) else int(item) for item in value.reshape(-1).tolist()]
        found[name] = items if value.ndim else items[0]
    return found


def _place(file: "h5py.File", name: str, size: int, where: str) -> Place:
    import h5py

    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or not dataset.shape:
        raise CacheError(f"{where}: {name} is not a dataset with rows", REPAIR)
    kind = dataset.id.get_type()
    plain_types = (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeStringID)
    if not isinstance(kind, plain_types) or (isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()):
        raise CacheError(f"{where}: {name} does not hold plain numbers or fixed-length text", REPAIR)
    dtype = dataset.dtype
    if dtype.kind not in KINDS or dtype.hasobject or dtype.byteorder == ">":
        raise CacheError(f"{where}: {name} is of dtype {dtype}, which no file of this cache has", REPAIR)
    creation = dataset.id.get_create_plist()
    if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count() != 0:
        raise CacheError(f"{where}: {name} is not stored in one piece inside the file", REPAIR)
    if not dataset.size:
        return Place(dataset.shape, dtype, 0)
    offset = dataset.id.get_offset()
    stored = dataset.id.get_storage_size()
    declared = math.prod(dataset.shape) * dtype.itemsize
    if offset is None or stored != declared or offset + stored > size:
        raise CacheError(f"{where}: {name} is not stored in one piece inside the file", REPAIR)
    return Place(dataset.shape, dtype, int(offset))
