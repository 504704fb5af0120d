"""Files with single numbers changed that no library would write: addresses, sizes, counts, loops.

Files in the oldest format have no checksums in their structure; those in ours get right ones.
"""

import struct
from pathlib import Path

import h5py
import numpy as np
from crafted import SHARD, Kind, crafted
from lookup3 import lookup3, mended

NOWHERE = 0xFFFFFFFFFFFFFFFF
FEATURES = SHARD.columns["features"]


def put(data: bytes, at: int, form: str, *values: int) -> bytes:
    """Return `data` with numbers written over it."""
    changed = bytearray(data)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def only(data: bytes, piece: bytes, number: int = 0) -> int:
    """Return where `piece` lies for the `number`th time."""
    at = -1
    for _ in range(number + 1):
        at = data.index(piece, at + 1)
    return at


class Oldest:
    """A shard in the oldest format and where the numbers lie that describe its features."""

    def __init__(self, folder: Path) -> None:
        self.data = crafted(folder, SHARD, libver="earliest")
        with h5py.File.in_memory(self.data) as file:
            self.offsets = {name: file[name].id.get_offset() for name in file}
        self.shape = only(self.data, struct.pack("<QQ", *FEATURES.shape))
        self.limits = self.shape + 16
        self.address = only(self.data, struct.pack("<QQ", self.offsets["features"], FEATURES.nbytes))
        self.size = self.address + 8
        self.type = self.shape - 8 + 48  # after four lengths of axes and a message's head
        assert self.data[self.type] == 0x11, "the first byte of a float type"
        self.tree = only(self.data, b"TREE")
        self.heap = only(self.data, b"HEAP")
        self.leaf = only(self.data, b"SNOD")

    def sized(self, rows: int, width: int, size: int) -> bytes:
        data = put(self.data, self.shape, "<QQQQ", rows, width, rows, width)
        return put(data, self.size, "<Q", size & NOWHERE)


def refused(folder: Path) -> dict[str, bytes]:
    """Files that describe what is not there."""
    old = Oldest(folder)
    end = len(old.data)
    files = {
        "data beyond the end": put(old.data, old.address, "<Q", end),
        "data across the end": put(old.data, old.address, "<Q", end - 8),
        "data nowhere": put(old.data, old.address, "<Q", NOWHERE),
        "data at 2**63": put(old.data, old.address, "<Q", 1 << 63),
        "data that wraps around": put(old.data, old.address, "<Q", (1 << 64) - 40),
        "data of a tebibyte": put(old.data, old.size, "<Q", 1 << 40),
        "data of no byte": put(old.data, old.size, "<Q", 0),
        "a tebibyte of rows that are said to be there": old.sized(1 << 36, 4, 1 << 40),
        "rows whose bytes are 2**64": old.sized(1 << 62, 4, 1 << 66),
        "rows whose bytes wrap around to the right size": old.sized((1 << 62) + 5, 4, FEATURES.nbytes),
        "more rows than 64 bits hold": old.sized(1 << 63, 1 << 63, FEATURES.nbytes),
        "minus one row": put(old.data, old.shape, "<Q", NOWHERE),
        "minus five rows": old.sized(NOWHERE - 4, 4, FEATURES.nbytes),
        "no rows and a huge width": old.sized(0, 1 << 62, 0),
        "no axis": put(old.data, old.shape - 7, "<B", 0),
        "33 axes": put(old.data, old.shape - 7, "<B", 33),
        "255 axes": put(old.data, old.shape - 7, "<B", 255),
        "numbers of no byte": put(old.data, old.type + 4, "<I", 0),
        "numbers of 4 gigabytes": put(old.data, old.type + 4, "<I", NOWHERE >> 32),
        "a tree of names that holds itself": put(put(old.data, old.tree + 5, "<B", 1), old.tree + 32, "<Q", old.tree),
        "a tree of names with 65,535 branches": put(old.data, old.tree + 6, "<H", 65_535),
        "a leaf with 65,535 names": put(old.data, old.leaf + 6, "<H", 65_535),
        "a leaf that is a tree": put(old.data, old.tree + 32, "<Q", old.tree),
        "a heap of names that is huge": put(old.data, old.heap + 8, "<Q", 1 << 40),
        "a heap of names that is its own end": put(old.data, old.heap + 24, "<Q", old.heap),
        "chunks in a tree that holds itself": chunks_in_a_circle(folder),
        "an old tree of names that holds itself under a new superblock": old_names_in_a_new_file(folder),
        "a header that goes on in itself": header_in_a_circle(folder),
    }
    for number in range(2, 16):
        files[f"type class {number}"] = put(old.data, old.type, "<B", 0x10 + number)
    return files


def odd(folder: Path) -> dict[str, bytes]:
    """Files that are wrong where it does not matter: refused, or read as what their bytes are, within the file."""
    old = Oldest(folder)
    end = len(old.data)
    return {
        "two columns in one place": put(old.data, old.address, "<Q", old.offsets["image_sha256"]),
        "a column over the superblock": put(old.data, old.address, "<Q", 0),
        "a tree of names somewhere else": put(old.data, only(old.data, struct.pack("<Q", old.tree)), "<Q", end),
        "a leaf beside itself": put(old.data, old.tree + 16, "<Q", old.tree),
        "leaves beside themselves": put(old.data, old.tree + 8, "<QQ", old.tree, old.tree),
        "another type class, but its bits": put(old.data, old.type, "<B", 0x10),
        "other bits": put(old.data, old.type + 8, "<HH", 3, 7),
        "an end of file that is far away": put(old.data, 40, "<Q", 1 << 62),
        "a driver's block": put(old.data, 48, "<Q", old.heap),
    }


def chunks_in_a_circle(folder: Path) -> bytes:
    """A column in chunks, whose tree holds itself."""

    def change(file: h5py.File) -> None:
        file.create_dataset("features", data=FEATURES, chunks=(1, 4))

    data = crafted(folder, SHARD, change, skip="features", libver="earliest")
    tree = only(data, b"TREE\x01")
    key = 8 + 8 * 3
    return put(put(data, tree + 5, "<B", 1), tree + 24 + key, "<Q", tree)


def old_names_in_a_new_file(folder: Path) -> bytes:
    """The newest superblock and a root group in the oldest form: a tree of names, which holds itself."""
    data = crafted(folder, SHARD)
    body = 4 + 16
    heap = len(data) + 8 + body + 4
    tree = heap + 32 + 64
    header = b"OHDR\x02\x01" + struct.pack("<HBHBQQ", body, 0x11, 16, 0, tree, heap)
    header += lookup3(header).to_bytes(4, "little")
    names = b"HEAP" + struct.pack("<IQQQ", 0, 64, 1, heap + 32) + bytes(64)
    node = b"TREE" + struct.pack("<BBHQQQQQ", 0, 1, 1, NOWHERE, NOWHERE, 0, tree, 0)
    whole = data + header + names + node.ljust(24 + 65 * 8, b"\0")
    return mended(put(whole, 28, "<QQ", len(whole), len(data)), [(0, 48)])


def header_in_a_circle(folder: Path) -> bytes:
    """The second piece of the root's header names itself as the next."""
    data = crafted(folder, SHARD)
    start = only(data, b"OCHK")
    length = 53
    rest = length - 4 - 4 - 20 - 4
    changed = put(data, start + 4, "<BHBQQBHB", 0x10, 16, 0, start, length, 0, rest, 0)
    return mended(changed, [(start, length)])


def whole(kind: Kind, columns: dict[str, np.ndarray]) -> bool:
    """Whether columns are of the right types and shapes, whatever they hold."""
    rows = {len(array) for array in columns.values()}
    return len(rows) == 1 and all(
        isinstance(array, np.ndarray)
        and array.dtype.kind == kind.columns[name].dtype.kind
        and (name == "id" or array.dtype == kind.columns[name].dtype)
        and array.shape[1:] == kind.columns[name].shape[1:]
        for name, array in columns.items()
    )
