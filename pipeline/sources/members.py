"""What lies in an uncompressed tar file and where: names with offsets and sizes, found by its headers alone."""

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError
from pipeline.sources.facts import Facts, file_facts

BLOCK = 512
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
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = [_member(path, item, found.st_size) for item in tar if item.isreg()]
                end = tar.offset
            if os.pread(descriptor, BLOCK, end) != bytes(BLOCK):
                raise DataError(f"{path} is truncated or damaged: after byte {end:,} it does not go on as a tar file")
    except FileNotFoundError:
        raise DataError(f"no file {path}", "Check the pattern.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise DataError(f"{path} is truncated, damaged or no tar file: {error}") from error
    return Archive(path, file_facts(found), members)


def _member(path: Path, item: tarfile.TarInfo, size: int) -> Member:
    if item.issparse():
        raise DataError(f"{path}: {item.name} is stored sparse, so that it cannot be read in place")
    if item.offset_data + item.size > size:
        raise DataError(f"{path} is truncated: {item.name} goes on beyond its end")
    return Member(item.name, item.offset_data, item.size)
