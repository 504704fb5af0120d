"""Bytes read back: from regular files only, of the size and with the SHA-256 they were committed with.

Links are not followed and pipes not waited for, so that a file put in the place of another cannot lead elsewhere.
What is hashed is what is parsed: a file is read once.
"""

import io
import os
import stat
from pathlib import Path

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError

REPAIR = "Run the same `pipeline extract` again: it sets the damaged file aside and makes only what is missing."
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_verified(path: Path, sha256: str, size: int) -> memoryview:
    """Return the bytes of a file of the cache, read-only.

    Raises:
        CacheError: naming the file, if it is missing or anything but the `size` bytes with this SHA-256.
    """
    data = read_sized(path, size)
    if sha256_bytes(data) != sha256:
        raise CacheError(f"{path} is damaged: its bytes do not have the SHA-256 they were committed with", REPAIR)
    return data


def read_sized(path: Path, size: int) -> memoryview:
    """Return the bytes of a file that must have `size` of them; nothing is allocated for one that has not.

    Raises:
        CacheError: naming the file, if it is missing, unreadable, no regular file, or of another size.
    """
    try:
        with _open(path) as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise CacheError(f"{path} is damaged: {found:,} bytes where {size:,} were committed", REPAIR)
            view, filled = memoryview(bytearray(size)), 0
            while filled < size and (count := file.readinto(view[filled:])):
                filled += count
    except FileNotFoundError:
        raise CacheError(f"{path} is missing", REPAIR) from None
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}", REPAIR) from error
    if filled != size:
        raise CacheError(f"{path} is damaged: {filled:,} bytes where {size:,} were committed", REPAIR)
    return view.toreadonly()


def read_piece(path: Path, sha256: str, offset: int, size: int) -> memoryview:
    """Return some bytes of a file of the cache, read-only; only these are read.

    Raises:
        CacheError: naming the file, if it is missing, unreadable, no regular file, or has not these bytes there.
    """
    try:
        with _open(path) as file:
            data = memoryview(os.pread(file.fileno(), size, offset))
    except FileNotFoundError:
        raise CacheError(f"{path} is missing", REPAIR) from None
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}", REPAIR) from error
    if len(data) != size or sha256_bytes(data) != sha256:
        raise CacheError(f"{path} is damaged: {size:,} bytes from {offset:,} on are not those read before", REPAIR)
    return data


def read_whole(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises:
        FileNotFoundError: if there is none.
        CacheError: if it cannot be read, is no regular file, or is larger.
    """
    try:
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise CacheError(f"{path} has {size:,} bytes, more than the limit of {limit:,}")
            return file.readall()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> io.FileIO:
    descriptor = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CacheError(f"{path} cannot be read: it is no regular file", REPAIR)
    return io.FileIO(descriptor)
