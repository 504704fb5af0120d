"""What lies in an uncompressed tar file and where: names with offsets and sizes, found by its headers alone."""

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.sources.facts import Facts, file_facts

BLOCK = 512
FILE, FOLDER, EXTENDED = (b"0", b"\0"), b"5", b"x"
"""Kinds of members; an extended header says more of the next one."""
NAMED = re.compile(rb" (path|size|GNU\.sparse[^=]*|hdrcharset)=")
"""What an extended header may say that changes what is listed here."""
MAX_EXTENDED = 1 << 16
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class Member:
    """A regular file in an archive."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Archive:
    """A tar file, its stat fields and its members in order."""

    path: Path
    facts: Facts
    members: list[Member]

    def read(self, members: list[Member]) -> Iterator[bytes]:
        """Yield the bytes of some members, which are small."""
        with self.path.open("rb", buffering=0) as file:
            for member in members:
                yield os.pread(file.fileno(), member.size, member.offset)


def open_archive(path: Path) -> Archive:
    """List the regular files in a tar file; links, folders and devices in it are passed over.

    Raises:
        DataError: if it cannot be read, is compressed, truncated, or no tar file.
    """
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{path} is not a regular file")
            packed = COMPRESSED.get(file.read(2))
            if packed is not None:
                raise DataError(
                    f"{path} is compressed ({packed}): its members cannot be read in place",
                    "Unpack it to a plain .tar; images are compressed already.",
                )
            file.seek(0)
            members, end = _plain(descriptor) or _any(path, file)
            for member in members:
                if member.offset + member.size > found.st_size:
                    raise DataError(f"{path} is truncated: {member.name} goes on beyond its end")
            if os.pread(descriptor, BLOCK, end) != bytes(BLOCK):
                raise DataError(f"{path} is truncated or damaged: after byte {end:,} it does not go on as a tar file")
    except FileNotFoundError:
        raise DataError(f"no file {path}", "Check the pattern.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise DataError(f"{path} is truncated, damaged or no tar file: {error}") from error
    return Archive(path, file_facts(found), members)


def _plain(descriptor: int) -> tuple[list[Member], int] | None:
    """List an archive that has nothing but plain headers, ten times faster than `tarfile` does.

    Return its members and where the headers end; None where any header is not plain, or none is there.
    """
    members: list[Member] = []
    at = 0
    while len(head := os.pread(descriptor, BLOCK, at)) == BLOCK and head[0]:
        kind, digits = head[156:157], head[124:135]
        if head[257:262] != b"ustar" or head[345] or not digits.isdigit() or not _has_checksum(head):
            return None
        size = int(digits, 8)
        if kind in FILE:
            members.append(Member(head[:100].rstrip(b"\0").decode("utf-8", "surrogateescape"), at + BLOCK, size))
        elif kind == EXTENDED:
            if size > MAX_EXTENDED or NAMED.search(os.pread(descriptor, size, at + BLOCK)):
                return None
        elif kind != FOLDER:
            return None
        at += BLOCK + -(-size // BLOCK) * BLOCK
    return (members, at) if members else None


def _has_checksum(head: bytes) -> bool:
    told = head[148:156].strip(b"\0 ")
    return told.isdigit() and int(told, 8) == sum(head) - sum(head[148:156]) + 8 * ord(" ")


def _any(path: Path, file: BinaryIO) -> tuple[list[Member], int]:
    """List an archive of any kind that Python can read."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        members = [_member(path, item) for item in tar if item.isreg()]
        return members, tar.offset


def _member(path: Path, item: tarfile.TarInfo) -> Member:
    if item.issparse():
        raise DataError(f"{path}: {item.name} is stored sparse, so that it cannot be read in place")
    return Member(item.name, item.offset_data, item.size)
