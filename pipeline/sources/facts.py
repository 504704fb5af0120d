"""Stat fields by which a file, or a member of an archive, is known again without being read."""

import hashlib
import os

Facts = tuple[int, int, int, int]
"""Inode, size, mtime and ctime in nanoseconds."""

UNKNOWN: Facts = (0, 0, 0, 0)
"""Of what cannot be a regular file; never remembered."""


def file_facts(found: os.stat_result) -> Facts:
    """Return the facts of a whole file."""
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def member_facts(archive: Facts, offset: int) -> Facts:
    """Return the facts of a member that begins at byte `offset` of an archive.

    In place of the inode, by which facts are looked up, stands a 63-bit hash of the archive's inode and size and the
    offset; in place of the size the offset, so that two members of one archive never have the same facts.
    """
    inode, size, mtime, ctime = archive
    name = hashlib.sha256(b"%d %d %d" % (inode, size, offset)).digest()
    return (int.from_bytes(name[:8], "big") >> 1, offset, mtime, ctime)
