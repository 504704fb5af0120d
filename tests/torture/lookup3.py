"""The checksum of HDF5's metadata, so that changed metadata can be given a right one: anybody can."""

import struct

MASK = 0xFFFFFFFF
PLACES = {0x20: 16, 0x10: 4}
"""Bytes that flags of an object header's prefix add to it: four times, and two attribute thresholds."""


def _turn(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & MASK


def lookup3(data: bytes) -> int:
    """Return Bob Jenkins's hash of `data`, as HDF5 takes it."""
    a = b = c = (0xDEADBEEF + len(data)) & MASK
    at, left = 0, len(data)
    while left > 12:
        x, y, z = struct.unpack_from("<III", data, at)
        a, b, c = (a + x) & MASK, (b + y) & MASK, (c + z) & MASK
        a = (a - c & MASK) ^ _turn(c, 4)
        c = c + b & MASK
        b = (b - a & MASK) ^ _turn(a, 6)
        a = a + c & MASK
        c = (c - b & MASK) ^ _turn(b, 8)
        b = b + a & MASK
        a = (a - c & MASK) ^ _turn(c, 16)
        c = c + b & MASK
        b = (b - a & MASK) ^ _turn(a, 19)
        a = a + c & MASK
        c = (c - b & MASK) ^ _turn(b, 4)
        b = b + a & MASK
        at, left = at + 12, left - 12
    if not left:
        return c
    x, y, z = struct.unpack("<III", data[at:].ljust(12, b"\0"))
    a, b, c = (a + x) & MASK, (b + y) & MASK, (c + z) & MASK
    for (first, second), by in ("cb", 14), ("ac", 11), ("ba", 25), ("cb", 16), ("ac", 4), ("ba", 14), ("cb", 24):
        found = {"a": a, "b": b, "c": c}
        value = ((found[first] ^ found[second]) - _turn(found[second], by)) & MASK
        a, b, c = (value if name == first else found[name] for name in "abc")
    return c


def pieces(data: bytes) -> list[tuple[int, int]]:
    """Return (start, length) of what carries a checksum in a file written by this package: superblock and headers.

    The last four bytes of each piece are the checksum of the others.
    """
    found = [(0, 48)]
    at = 0
    while (at := data.find(b"OHDR", at)) >= 0:
        flags = data[at + 5]
        start = at + 6 + sum(extra for flag, extra in PLACES.items() if flags & flag)
        width = 1 << (flags & 3)
        size = int.from_bytes(data[start : start + width], "little")
        found.append((at, start + width + size + 4 - at))
        found += _continued(data, start + width, size, order=2 if flags & 4 else 0)
        at += 4
    return found


def _continued(data: bytes, at: int, size: int, order: int) -> list[tuple[int, int]]:
    """Return the further pieces that messages of type 0x10 in a header's piece name."""
    found, end = [], at + size
    while at + 4 + order <= end:
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 3], "little")
        at += 4 + order
        if kind == 0x10:
            found.append(struct.unpack_from("<QQ", data, at))
        at += length
    return found


def mended(data: bytes, known: list[tuple[int, int]]) -> bytes:
    """Return `data` with right checksums in the `known` pieces, as far as it reaches."""
    whole = bytearray(data)
    for start, length in known:
        end = start + length
        if end <= len(whole):
            whole[end - 4 : end] = lookup3(bytes(whole[start : end - 4])).to_bytes(4, "little")
    return bytes(whole)
