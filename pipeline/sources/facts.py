"""Stat fields by which a file, or a member of an archive, is known again without being read."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Facts = tuple[int, int, int, int]
"""Inode, size, mtime and ctime in nanoseconds."""

UNKNOWN: Facts = (0, 0, 0, 0)
"""Of what cannot be a regular file; never remembered."""


def file_facts(found: os.stat_result) -> Facts:
    """Return the facts of a whole file."""
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def path_facts(path: str) -> Facts:
    """Return the facts of the file at `path`; UNKNOWN for what is no regular file, or cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return UNKNOWN
    return file_facts(found) if stat.S_ISREG(found.st_mode) else UNKNOWN


def member_facts(archive: Facts, offset: int) -> Facts:
    """Return the facts of a member that begins at byte `offset` of an archive.

    In place of the inode, by which facts are looked up, stands a 63-bit hash of the archive's inode and size and the
    offset; in place of the size the offset, so that two members of one archive never have the same facts.
    """
    inode, size, mtime, ctime = archive
    name = hashlib.sha256(b"%d %d %d" % (inode, size, offset)).digest()
    return (int.from_bytes(name[:8], "big") >> 1, offset, mtime, ctime)


@dataclass(frozen=True)
class Stats:
    """Facts (n, 4) int64 of a source's files: inode, size, mtime and ctime in nanoseconds.

    None of them is held: `stats[rows]` looks at the files of those rows, as they are then. A listing that nothing
    is remembered of is never looked at.
    """

    count: int
    of: Callable[[Iterable[int]], Iterator[Facts]]
    """Takes rows and yields the facts of each."""

    @classmethod
    def of_paths(cls, ids: Sequence[str], folder: str) -> "Stats":
        """Return the stats of files whose ids are their paths below `folder`."""
        inside = folder.rstrip("/") + "/"
        return cls(len(ids), lambda rows: (path_facts(inside + ids[row]) for row in rows))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: "int | slice | np.ndarray | Sequence[int]") -> np.ndarray:
        if isinstance(rows, int):
            return self._taken([range(self.count)[rows]]).reshape(4)
        return self._taken(range(self.count)[rows] if isinstance(rows, slice) else np.asarray(rows).tolist())

    def take(self, rows: np.ndarray) -> "Stats":
        """Return the stats of some rows (m,) int64."""
        return Stats(len(rows), lambda places: self.of(int(rows[place]) for place in places))

    def _taken(self, rows: Sequence[int]) -> np.ndarray:
        return np.fromiter(self.of(rows), np.dtype((np.int64, 4)), len(rows))
