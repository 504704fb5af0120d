"""What HDF5 made of a file's header, kept for files that have the same one.

The shards of an entry differ in their data alone, and HDF5 can be given bytes only by copying them, twice: measured,
5 of the 10 ms that a shard of 4 MB took to read and verify. So the header of a shard is parsed once: for a file of
the same size with the same bytes outside of its columns, HDF5 would say the same.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

KEPT = 8
"""Headers that are remembered, each a few kilobytes."""
NO_EXTENSION = b"\xff" * 8
"""What the superblock says in bytes 20 to 27 if nothing belongs to it that lies elsewhere."""

Key = tuple[int, tuple[str, ...], tuple[str, ...]]
"""Size of a file, names of its columns, and of those that it may have."""


@dataclass(frozen=True)
class Place:
    """Where a column lies in the bytes of its file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """A file without the data of its columns."""

    attributes: Mapping[str, Any]
    places: Mapping[str, Place]
    rest: bytes
    """All bytes outside of the columns."""


_known: "OrderedDict[Key, Header]" = OrderedDict()


def known_header(data: bytes | memoryview, names: tuple[str, ...], optional: tuple[str, ...]) -> Header | None:
    """Return the header of a file if one with the same bytes was kept."""
    header = _known.get((len(data), names, optional))
    return header if header is not None and _outside(data, header.places) == header.rest else None


def keep_header(
    data: bytes | memoryview,
    names: tuple[str, ...],
    optional: tuple[str, ...],
    attributes: Mapping[str, Any],
    places: Mapping[str, Place],
    walked: list[tuple[int, int]],
) -> Header:
    """Return a header as HDF5 has it, and keep it if no part of it lies within a column.

    `walked` holds (offset, bytes) of all that HDF5 reads to say what it said.
    """
    header = Header(attributes, places, _outside(data, places))
    apart = all(
        offset + count <= place.offset or place.end <= offset for offset, count in walked for place in places.values()
    )
    if apart and data[20:28] == NO_EXTENSION:
        _known[len(data), names, optional] = header
        while len(_known) > KEPT:
            _known.popitem(last=False)
    return header


def _outside(data: bytes | memoryview, places: Mapping[str, Place]) -> bytes:
    pieces, at = [], 0
    for place in sorted(places.values(), key=lambda place: place.offset):
        pieces.append(bytes(data[at : place.offset]))
        at = max(at, place.end)
    return b"".join([*pieces, bytes(data[at:])])
