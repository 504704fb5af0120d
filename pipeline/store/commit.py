"""Files that are whole or absent, whatever happens to the process or the power.

The order is always: write a temporary file beside its goal, fsync it, give it its name, fsync the folder.
Names are published with `link`, which fails if the name exists, so that of two writers exactly one wins;
the loser finds out and compares. HDF5 itself never calls fsync, which is why its files are built in memory
and come through here as bytes.
"""

import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any

from pipeline.digest import is_sealed, seal
from pipeline.errors import CacheError

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.EACCES}
"""What `link` answers where hard links are not to be had."""

MAX_JSON_BYTES = 256 << 20


def make_folder(path: Path) -> None:
    """Create `path` and its missing parents, and make their names durable."""
    missing = []
    goal = path
    while not path.exists():
        missing.append(path)
        path = path.parent
    with disk_errors(goal, 0):
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the file system knows how."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync names at once and refuse the call
            raise
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Write and fsync a file that must not exist yet; on any failure nothing stays behind.

    Its mode is read-only: files in the cache are replaced, never changed in place.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other process uses."""
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Put `data` under the name `path`, whether or not it exists; readers see the old bytes or the new."""
    temporary = temporary_name(path)
    with disk_errors(path, len(data)):
        write_new(temporary, data)
        try:
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def publish_file(path: Path, data: bytes | memoryview) -> bool:
    """Put `data` under the name `path` if the name is free. Return whether it was."""
    temporary = temporary_name(path)
    with disk_errors(path, len(data)):
        write_new(temporary, data)
        try:
            return publish_link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def publish_link(source: Path, path: Path) -> bool:
    """Give the durable file `source` the further name `path` if it is free. Return whether it was.

    Where links are not to be had the bytes are copied, whole or not at all.
    """
    with disk_errors(path, 0):
        try:
            os.link(source, path, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if path.exists():
                return False
            # Without links no call both refuses an existing name and publishes whole bytes; names in the
            # cache are decided by content, so a race replaces a file by an equal one.
            replace_file(path, source.read_bytes())
        sync_folder(path.parent)
    return True


def write_json(path: Path, body: dict[str, Any], *, replace: bool) -> bool:
    """Write a sealed JSON document, whole. Return whether it took the name (always true with `replace`)."""
    text = json.dumps(seal(body), indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    if replace:
        replace_file(path, text)
        return True
    return publish_file(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """Read a sealed JSON document.

    Raises:
        FileNotFoundError: if there is none.
        CacheError: if its bytes are not what was written.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        document = json.loads(data) if len(data) <= MAX_JSON_BYTES else None
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise CacheError(f"{path} cannot be read: {error}") from error
    # The seal covers the values; comparing the text with its own spelling covers every byte of the file.
    if not isinstance(document, dict) or not _same_text(document, data):
        raise CacheError(
            f"{path} is damaged: its content does not match its own SHA-256",
            "Run the `pipeline extract` that made it again; a damaged plan under plans/ can be deleted.",
        )
    return document


def _same_text(document: dict[str, Any], data: bytes) -> bool:
    try:
        return is_sealed(document) and json.dumps(document, indent=1, ensure_ascii=True).encode() + b"\n" == data
    except RecursionError:
        return False


class disk_errors:
    """Turn a full or read-only disk into one clear line; everything committed before stays."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CacheError(
                f"the disk is full: {self.size:,} bytes more were needed for {self.path}",
                "Everything committed so far is kept: free some space and run the same command again.",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise CacheError(
                f"cannot write {self.path}: {error.strerror}", "Choose a folder you may write with --cache-dir."
            ) from error
