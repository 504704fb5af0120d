"""File digests remembered by (inode, size, mtime, ctime), so that unchanged files are not read again.

One small file per source folder, `index/<digest of the folder's path>.stat`, protected by its own SHA-256.
A file whose times are as new as the moment it was read is not remembered: it could be edited again without
its times moving (the "racy git" problem), so it is hashed again next time.
"""

import logging
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.commit import make_folder, replace_file
from pipeline.store.key import SHORT
from pipeline.store.verified import read_whole

logger = logging.getLogger(__name__)

MAGIC = b"pipeline-statindex 1\n"
HEAD = len(MAGIC) + 65
"""Bytes before the rows: the magic, their SHA-256, a line's end."""
ROW = np.dtype([("inode", "<i8"), ("size", "<i8"), ("mtime", "<i8"), ("ctime", "<i8"), ("digest", "u1", 32)])
MAX_BYTES = 4 << 30
"""Of an index: 64 million files."""
GRANULARITY_NS = 2_000_000_000
"""The coarsest time stamps in use (FAT: 2 s). A file must be older than its reading by more than this."""


class StatIndex:
    """Digests of files by their stat fields; `rows` is a structured array of dtype `ROW`, sorted by inode."""

    def __init__(self, rows: np.ndarray | None = None) -> None:
        self.rows = np.empty(0, ROW) if rows is None else _by_inode(rows)

    @classmethod
    def load(cls, root: Path, folder: str) -> Self:
        """Read the index of a source folder; a missing or damaged one is an empty one."""
        path = index_path(root, folder)
        try:
            data = memoryview(read_whole(path, MAX_BYTES))
        except FileNotFoundError:
            return cls()
        except CacheError as error:
            logger.warning("%s; files are hashed again", error.message)
            return cls()
        head, payload = data[:HEAD], data[HEAD:]
        if head != MAGIC + sha256_bytes(payload).encode() + b"\n" or len(payload) % ROW.itemsize:
            logger.warning("%s is damaged and is made anew: every file is read again", path)
            return cls()
        return cls(np.frombuffer(payload, ROW))

    def save(self, root: Path, folder: str) -> None:
        """Write the index, whole. On a cache that cannot be written it is only not remembered."""
        path = index_path(root, folder)
        document = bytearray(HEAD + self.rows.nbytes)  # built in place: it is large where files are many
        payload = memoryview(document)[HEAD:]
        np.frombuffer(payload, ROW)[:] = self.rows
        document[:HEAD] = MAGIC + sha256_bytes(payload).encode() + b"\n"
        try:
            make_folder(path.parent)
            replace_file(path, memoryview(document))
        except (CacheError, OSError) as error:
            logger.warning("file digests are not remembered: %s", error)

    def lookup(self, stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return digests (n, 32) uint8 and which are known (n,) bool for `stats` (n, 4) int64.

        The columns of `stats` are inode, size, mtime and ctime, times in nanoseconds.
        """
        n = len(stats)
        digests = np.zeros((n, 32), np.uint8)
        if not len(self.rows):
            return digests, np.zeros(n, bool)
        at = np.minimum(np.searchsorted(self._inodes, stats[:, 0]), len(self.rows) - 1)
        found = self.rows[at]
        known = np.ones(n, bool)
        for column, name in enumerate(("inode", "size", "mtime", "ctime")):
            known &= found[name] == stats[:, column]
        digests[known] = found["digest"][known]
        return digests, known

    @cached_property
    def _inodes(self) -> np.ndarray:
        return np.ascontiguousarray(self.rows["inode"])

    def updated(self, rows: np.ndarray) -> "StatIndex":
        """Return an index in which `rows` (of dtype `ROW`) replace what was known of the same inodes."""
        both = _by_inode(np.concatenate([rows, self.rows]) if len(self.rows) else rows)
        first = np.ones(len(both), bool)
        first[1:] = both["inode"][1:] != both["inode"][:-1]
        return StatIndex(both if first.all() else both[first])


def _by_inode(rows: np.ndarray) -> np.ndarray:
    """Return rows of dtype `ROW` sorted by inode, equal ones in the order they came in; sorted ones as they are."""
    inodes = rows["inode"]
    return rows if (inodes[1:] >= inodes[:-1]).all() else rows[np.argsort(inodes, kind="stable")]


def stat_rows(stats: np.ndarray, digests: np.ndarray, read_ns: np.ndarray) -> np.ndarray:
    """Return index rows for files read at `read_ns` (n,) nanoseconds, without those too new to be trusted."""
    rows = np.empty(len(stats), ROW)
    for column, name in enumerate(("inode", "size", "mtime", "ctime")):
        rows[name] = stats[:, column]
    rows["digest"] = digests
    old = np.maximum(stats[:, 2], stats[:, 3]) < read_ns - GRANULARITY_NS
    return np.asarray(rows[old])


def index_path(root: Path, folder: str) -> Path:
    """Return where the index of a source folder lies."""
    return root / "index" / f"{sha256_bytes(folder.encode('utf-8', 'surrogateescape'))[:SHORT]}.stat"
