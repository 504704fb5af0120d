"""Files that are whole or absent, whatever happens to the process or the power.

The order is always: write a temporary file beside its goal, fsync it, give it its name, fsync the folder.
Names are published with `link`, which fails if the name exists, so that of two writers exactly one wins;
the loser finds out and compares. HDF5 itself never calls fsync, which is why its files are built in memory
and come through here as bytes.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.digest import is_sealed, seal
from pipeline.errors import CacheError, UsageError
from pipeline.store.verified import read_whole

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.EACCES}
"""What `link` answers where hard links are not to be had."""

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
"""What writing answers where this process may not."""

MAX_JSON_BYTES, MAX_JSON_VALUES = 256 << 20, 1_000_000
"""An empty list takes three bytes of text and twenty times as much memory, so values are counted before parsing."""
TEMPORARY = ".tmp-"
LEFTOVER_SECONDS = 3600.0
"""No write takes so long: what is older belonged to a process that was killed."""


def make_folder(path: Path, top: Path | None = None) -> None:
    """Create `path` and its missing parents, and make their names durable.

    With `top` also the names of those from `top` on that are there: another process may have made them just now and
    not come to it.

    Raises:
        FileNotFoundError: if another process removes folders meanwhile.
        CacheError: if the disk is full or cannot be written.
    """
    missing = []
    goal = path
    while not path.exists():
        missing.append(path)
        path = path.parent
    with disk_errors(goal, 0):
        for folder in reversed(missing):
            _make_one(folder)
            sync_folder(folder.parent)
        while top is not None and path.is_relative_to(top):
            sync_given_names(path.parent)  # the folder that the cache lies in may not be this user's
            path = path.parent


def _make_one(folder: Path) -> None:
    """Make a folder whose parent is there; one that another process makes meanwhile will do."""
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        if folder.exists():
            raise
        # It was there and is gone again: to callers the same as if its parent were gone.
        raise FileNotFoundError(errno.ENOENT, "removed by another process", str(folder)) from None


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


def sync_given_names(path: Path) -> None:
    """Make names durable that other processes gave just now; in a folder that cannot be written nobody did.

    Raises:
        CacheError: if the disk fails.
    """
    with disk_errors(path, 0):
        try:
            sync_folder(path)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise


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
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other process uses."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


@contextlib.contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """Make a folder under `root` with a name of its own; it is gone afterwards unless it was renamed."""
    make_folder(root, root)
    folder = temporary_name(root / "new")
    with disk_errors(folder, 0):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary name to write to; what lies there is made durable and named `path` on leaving.

    For files too large to be built in memory. Nothing stays behind if the body raises; with `replace` a file of that
    name gives way to a whole one.

    Raises:
        UsageError: if `path` exists.
        CacheError: if the disk is full or cannot be written.
    """
    if not path.name:
        raise UsageError("an empty string names no file")
    temporary = temporary_name(path)
    with disk_errors(path, 0):
        if not replace and (path.exists() or path.is_symlink()):
            raise UsageError(f"{path} exists", "Name another file, or remove it first.")
        make_folder(path.parent)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield temporary
        with disk_errors(path, 0):
            descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if replace:
                os.replace(temporary, path)
            else:
                _take_name(temporary, path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _take_name(temporary: Path, path: Path) -> None:
    """Give a file its name unless somebody has taken it meanwhile; bytes are not copied where links are refused."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise UsageError(f"{path} exists", "Name another file, or remove it first.") from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.rename(temporary, path)


def remove_folder(path: Path) -> None:
    """Remove a folder: at once for whoever looks, then file by file.

    Raises:
        CacheError: if it may not be removed.
    """
    gone = temporary_name(path)
    with disk_errors(path, 0):
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            os.rename(path, gone)
            sync_folder(path.parent)  # else it could be back after a power loss, without its files
        remove_leftovers([gone])


def leftovers(folders: list[Path], older_than: float = LEFTOVER_SECONDS) -> list[Path]:
    """Return temporary files and folders in `folders` that killed processes left: untouched for so many seconds."""
    found = []
    before = time.time() - older_than
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found += [folder / entry.name for entry in entries if entry.name.startswith(TEMPORARY)]
    return [path for path in found if _last_change(path) < before]


def _last_change(path: Path) -> float:
    """Return when a file, or a folder and what lies in it, was last changed; the future for what is gone."""
    try:
        times = [path.lstat().st_mtime]
        if path.is_dir() and not path.is_symlink():
            times += [inner.lstat().st_mtime for inner in path.iterdir()]
    except OSError:
        return float("inf")
    return max(times)


def remove_leftovers(found: list[Path]) -> None:
    """Remove what `leftovers` returned; what cannot be removed stays."""
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


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


def publish_link(source: Path, path: Path, *, sync: bool = True) -> bool:
    """Give the durable file `source` the further name `path` if it is free. Return whether it was.

    Where links are not to be had the bytes are copied, whole or not at all. Without `sync` the caller makes the
    folder's names durable, once for many.
    """
    with disk_errors(path, 0):
        try:
            os.link(source, path, follow_symlinks=False)
        except FileExistsError:
            taken = True
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            taken = path.exists()
            # Without links no call both refuses an existing name and publishes whole bytes; names in the
            # cache are decided by content, so a race replaces a file by an equal one.
            if not taken:
                replace_file(path, source.read_bytes())
        else:
            taken = False
        if sync:  # of a name that was taken, too: whoever took it may not have come to it
            sync_folder(path.parent)
    return not taken


def write_json(path: Path, body: dict[str, Any], *, replace: bool) -> bool:
    """Write a sealed JSON document, whole. Return whether it took the name (always true with `replace`)."""
    text = json.dumps(seal(body), indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    if replace:
        replace_file(path, text)
        return True
    return publish_file(path, text)


def read_json(path: Path, *, most_values: int = MAX_JSON_VALUES) -> dict[str, Any]:
    """Read a sealed JSON document.

    Raises:
        FileNotFoundError: if there is none.
        CacheError: if its bytes are not what was written.
    """
    data = read_whole(path, MAX_JSON_BYTES)
    if data.count(b",") > most_values:
        raise CacheError(f"{path} cannot be read: it holds more than {most_values:,} values")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
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
    """Turn a full, read-only or failing disk into one clear line; everything committed before stays.

    A missing file and one that is in the way pass through: they tell what another process did.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, FileNotFoundError | FileExistsError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CacheError(
                f"the disk is full: {self.size:,} bytes more were needed for {self.path}",
                "Everything committed so far is kept: free some space and run the same command again.",
            ) from error
        if error.errno in READ_ONLY:
            raise CacheError(
                f"cannot write {self.path}: {error.strerror}", "Choose a folder you may write with --cache-dir."
            ) from error
        # Never retried: after a failed fsync the kernel may have dropped the very pages that were not written.
        raise CacheError(
            f"cannot write {self.path}: {os.strerror(error.errno) if error.errno else error}",
            "Everything committed so far is kept: see to the disk and run the same command again.",
        ) from error
