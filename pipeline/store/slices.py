"""Rows of an entry in small pieces that can be read in any order, each verified by itself.

A shard's SHA-256 says something of the whole file only. One pass over whole, verified shards takes the SHA-256 of
every slice of them; from then on a slice is read, and verified, alone.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.digest import sha256_bytes
from pipeline.store.entry import Entry
from pipeline.store.samples import SampleTable
from pipeline.store.verified import read_piece

SLICE_BYTES = 1 << 18
"""Small enough that a block of some ten MB holds slices of every shard; large enough for a disk without a head."""


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of one shard."""

    shard: int
    first: int
    """Position of its first row among all rows of the entry, bad ones included."""
    rows: int
    offset: int
    """Of its first byte in the shard's file."""
    sha256: str


def slice_entry(entry: Entry, table: SampleTable) -> list[Slice]:
    """Return all slices of an entry in order, after one pass over all its bytes.

    Raises:
        CacheError: if a shard is missing or damaged, or its rows are not those that `table` lists there.
    """
    row_bytes = entry.space.row_bytes
    rows = max(1, SLICE_BYTES // row_bytes)
    found = []
    for number, (first, shard) in enumerate(entry.read_shards(table)):
        assert shard.offset is not None
        for start in range(0, len(shard.status), rows):
            part = np.ascontiguousarray(shard.features[start : start + rows])
            place = shard.offset + start * row_bytes
            found.append(Slice(number, first + start, len(part), place, sha256_bytes(part.data.cast("B"))))
    return found


def read_slice(entry: Entry, part: Slice) -> np.ndarray:
    """Return the features (rows, *row_shape) of a slice, read-only.

    Raises:
        CacheError: naming the shard's file, if the slice is not there any more as it was.
    """
    space = entry.space
    data = read_piece(entry.shard_path(part.shard), part.sha256, part.offset, part.rows * space.row_bytes)
    return np.frombuffer(data, np.dtype(space.store_dtype).newbyteorder("<")).reshape(part.rows, *space.row_shape)
