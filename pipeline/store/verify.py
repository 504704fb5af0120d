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
from pipeline.store.commit import disk_errors, make_folder, sync_folder
from pipeline.store.entry import READERS, SAMPLES, SKIPPED, Entry


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


def find_foreign(entry: Entry) -> list[Damage]:
    """Check that the sample table is the one that the entry is named by."""
    try:
        entry.read_samples()
    except CacheError as error:
        return [Damage(entry.path / SAMPLES, error.message)]
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
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def set_aside(root: Path, path: Path) -> Path:
    """Move a damaged file or folder of the cache to `quarantine/` and return its new place."""
    make_folder(root / QUARANTINE)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    name = "-".join(path.relative_to(root).parts) if path.is_relative_to(root) else path.name
    goal = root / QUARANTINE / f"{stamp}-{name}"
    with disk_errors(path, 0):
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            os.rename(path, goal)
        sync_folder(path.parent)
        sync_folder(goal.parent)
    return goal
