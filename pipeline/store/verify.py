"""Full checks of an entry, and setting damaged files aside."""

import contextlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.digest import sha256_file
from pipeline.errors import CacheError
from pipeline.store.catalog import QUARANTINE
from pipeline.store.commit import disk_errors, make_folder, publish_link, sync_folder, temporary_name, write_new
from pipeline.store.entry import READERS, SAMPLES, SHARDS, SKIPPED, Entry

STAMP = "%Y%m%dT%H%M%S%f"
"""When a file was set aside (UTC), the first part of its name in quarantine."""


MISSING = "missing"


@dataclass(frozen=True)
class Damage:
    """A file of an entry that is not what was committed."""

    path: Path
    reason: str


def find_damage(entry: Entry) -> list[Damage]:
    """Check every byte of an entry against its manifest; the manifest itself was checked on opening."""
    return find_changed(entry) or find_foreign(entry)


def find_changed(entry: Entry) -> list[Damage]:
    """Check that all files have the SHA-256 of the manifest."""
    checks = [(entry.path / SAMPLES, entry.manifest["samples"]), (entry.path / SKIPPED, entry.manifest["skipped"])]
    checks += [(entry.shard_path(number), shard) for number, shard in enumerate(entry.shards)]
    with ThreadPoolExecutor(READERS) as pool:
        reasons = list(pool.map(lambda check: _reason(check[0], check[1]["sha256"], check[1]["bytes"]), checks))
    return [Damage(path, reason) for (path, _), reason in zip(checks, reasons, strict=True) if reason]


def still_damaged(entry: Entry, damage: list[Damage]) -> list[Damage]:
    """Return those of `damage` that lie there and are damaged now."""
    paths = {item.path for item in damage if item.path.exists() or item.path.is_symlink()}
    return [item for item in find_changed(entry) if item.path in paths and item.reason != MISSING] if paths else []


def find_foreign(entry: Entry) -> list[Damage]:
    """Check that the sample table is the one that the entry is named by, and that the shards hold its rows."""
    try:
        table = entry.read_samples()
    except CacheError as error:
        return [Damage(entry.path / SAMPLES, error.message)]
    try:
        for _ in entry.read_shards(table):
            pass
    except CacheError as error:
        return [Damage(entry.path / SHARDS, error.message)]
    return []


def _reason(path: Path, sha256: str, size: int) -> str:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return "is no regular file"
        if found.st_size != size:
            return f"{found.st_size:,} bytes where {size:,} were committed"
        return "" if sha256_file(path) == sha256 else "its bytes do not have the SHA-256 in the manifest"
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def put_back(root: Path, path: Path, committed: Path | bytes) -> None:
    """Put a file's committed bytes (or another file that holds them) in its place and set aside what lies there.

    The new file is durable before the old one moves, so that a full disk makes nothing worse.
    """
    make_folder(path.parent)
    temporary = temporary_name(path)
    try:
        with disk_errors(path, 0):
            if isinstance(committed, Path):
                publish_link(committed, temporary, sync=False)
            else:
                write_new(temporary, committed)
            if path.exists() or path.is_symlink():
                set_aside(root, path)
            os.rename(temporary, path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(root: Path, path: Path) -> Path:
    """Move a damaged file or folder of the cache to `quarantine/` and return its new place."""
    make_folder(root / QUARANTINE)
    stamp = datetime.now(UTC).strftime(STAMP)
    name = "-".join(path.relative_to(root).parts) if path.is_relative_to(root) else path.name
    goal = root / QUARANTINE / f"{stamp}-{name}"
    with disk_errors(path, 0):
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            os.rename(path, goal)
        sync_folder(path.parent)
        sync_folder(goal.parent)
    return goal
