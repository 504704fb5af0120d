"""The skeleton of our HDF5 files, walked byte by byte before HDF5 sees them.

HDF5 follows whatever addresses a file holds: a tree of the oldest format that holds itself overflows its stack, and
the process is gone. The files of this cache have no trees and no heaps: a superblock, one header for the root, one
for each column, and data. Whatever else a file has is not let near the library.
"""

import struct
from collections.abc import Callable, Iterator

from pipeline.errors import CacheError
from pipeline.store.verified import REPAIR

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = (1 << 64) - 1
MAX_PIECES, MAX_COLUMNS = 64, 64
NOTHING, SPACE, LINKS, TYPE, OLD_FILL, FILL, LINK, LAYOUT = 0, 1, 2, 3, 4, 5, 6, 8
GROUP, ATTRIBUTE, MORE, CHANGED, ATTRIBUTES = 10, 12, 16, 18, 21
ROOT = {NOTHING, LINKS, LINK, GROUP, ATTRIBUTE, MORE, CHANGED, ATTRIBUTES}
COLUMN = {NOTHING, SPACE, TYPE, OLD_FILL, FILL, LAYOUT, ATTRIBUTE, MORE, CHANGED, ATTRIBUTES}
SHARED, CONTIGUOUS = 0x02, 1

Read = Callable[[int, int], bytes]
"""Returns so many bytes from an offset; fewer at the end."""


class _Strange(Exception):
    """The file has something that no file of the cache has."""


def check_skeleton(read: Read, where: str, start: int = 0, *, heaps: bool = False) -> None:
    """Refuse an HDF5 file, whose superblock lies at `start`, that has more in it than plain columns.

    With `heaps` names may lie in a heap, as they do in files of more than eight columns; those columns are not walked.

    Raises:
        CacheError: naming `where`.
    """
    try:
        _walk(lambda offset, count: _exactly(read(start + offset, count), count), heaps)
    except (_Strange, struct.error, IndexError) as error:
        raise CacheError(f"{where} is not a file of this cache: {error}", REPAIR) from error


def _exactly(data: bytes, count: int) -> bytes:
    if len(data) != count:
        raise _Strange("it names bytes beyond its end")
    return data


def _walk(read: Read, heaps: bool) -> None:
    head = read(0, 48)
    if head[:8] != SIGNATURE or head[8] not in (2, 3) or head[9:11] != b"\x08\x08":
        raise _Strange("it does not begin as one")
    (root,) = struct.unpack_from("<Q", head, 36)
    columns = []
    for kind, body in _messages(read, root, ROOT):
        if kind == LINK:
            columns.append(_goal(body))
        elif kind in (LINKS, ATTRIBUTES) and not heaps:
            at = 2 + (body[1] & 1) * (8 if kind == LINKS else 2)
            if struct.unpack_from("<Q", body, at) != (NOWHERE,):
                raise _Strange("its names lie in a heap")
    if len(columns) > MAX_COLUMNS:
        raise _Strange(f"it has {len(columns)} names")
    for column in columns:
        for kind, body in _messages(read, column, COLUMN) if column is not None else ():
            if kind == LAYOUT and not (body[0] in (3, 4) and body[1] == CONTIGUOUS):
                raise _Strange("its data is not stored in one piece")
            if kind == ATTRIBUTES and struct.unpack_from("<Q", body, 2 + (body[1] & 1) * 2) != (NOWHERE,):
                raise _Strange("its names lie in a heap")


def _messages(read: Read, address: int, allowed: set[int]) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of the messages of the object header at `address`."""
    head = read(address, 6)
    if head[:5] != b"OHDR\x02":
        raise _Strange("it has a header of another kind")
    flags = head[5]
    at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(read(at, width), "little")
    pieces, done = [(at + width, size)], 0
    while pieces:
        done += 1
        if done > MAX_PIECES:
            raise _Strange("it has a header without end")
        data, place, prefix = read(*pieces.pop()), 0, 6 if flags & 4 else 4
        while place + prefix <= len(data):
            kind, length = data[place], int.from_bytes(data[place + 1 : place + 3], "little")
            body = _exactly(data[place + prefix : place + prefix + length], length)
            if kind not in allowed or data[place + 3] & SHARED:
                raise _Strange(f"it has a part of kind {kind}")
            if kind == MORE:
                goal, count = struct.unpack("<QQ", body)
                if count < 8 or read(goal, 4) != b"OCHK":
                    raise _Strange("it has a header that goes on nowhere")
                pieces.append((goal + 4, count - 8))
            yield kind, body
            place += prefix + length


def _goal(body: bytes) -> int | None:
    """Return where a hard link leads, None for other links."""
    flags = body[1]
    at = 2
    if flags & 0x08:
        if body[at]:
            return None
        at += 1
    at += (8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    at += width + int.from_bytes(body[at : at + width], "little")
    return int(struct.unpack_from("<Q", body, at)[0])
