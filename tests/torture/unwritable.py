"""Folders that cannot be written: mounted read-only, or of another user. For children, which stay so until they end."""

import contextlib
import ctypes
import errno
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import in_child

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
KEPT_FLAGS = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
"""Flags of a mount that a user's own namespace may not lift."""
CAPABILITIES = 0x20080522
CAP_DAC_READ_SEARCH = 2
NOBODY = 65534


def mounted_read_only(*folders: Path) -> None:
    """Mount folders read-only, for this process alone."""
    _own_mounts()
    for folder in folders:
        flags = os.statvfs(folder).f_flag & KEPT_FLAGS
        _mount(str(folder), folder, MS_BIND)
        _mount(None, folder, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


def _own_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS):
        if libc.unshare(CLONE_NEWNS | CLONE_NEWUSER):
            raise OSError(ctypes.get_errno(), "no namespaces of mounts")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, Path("/"), MS_REC | MS_PRIVATE)


def _mount(source: str | None, goal: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    what = None if source is None else os.fsencode(source)
    if libc.mount(what, os.fsencode(goal), None, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(goal))


def of_another_user(*folders: Path) -> None:
    """Make folders such that this process may read but not write them.

    Root gives them to another user, and gives up all it may do beyond others but reading.
    """
    for path in [found for folder in folders for found in [*folder.rglob("*"), folder]]:
        if os.getuid():
            path.chmod(path.stat().st_mode & ~0o222)
        else:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    if not os.getuid():
        _keep_reading_only()


def _keep_reading_only() -> None:
    kept = 1 << CAP_DAC_READ_SEARCH
    header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


WAYS: dict[str, Callable[..., None]] = {
    "mounted read-only": mounted_read_only,
    "of another user": of_another_user,
}


def way_to_lock(name: str, folder: Path) -> Callable[..., None]:
    """Return the way called `name`, tried out on a new folder; skip the test where it is not to be had."""
    lock = WAYS[name]
    (folder / "locked").mkdir()

    def try_it() -> int:
        try:
            lock(folder / "locked")
        except OSError as error:
            return -(error.errno or errno.EPERM)
        try:
            (folder / "locked" / "new").mkdir()
        except OSError as error:
            return error.errno or 0
        return 0

    outcome = in_child(try_it)
    assert outcome.code == 0, outcome.error
    if outcome.result < 0:
        pytest.skip(f"a folder {name} is not to be had: {os.strerror(-outcome.result)}")
    assert outcome.result in (errno.EROFS, errno.EACCES), f"a folder {name} was written"
    return lock


def run_command(*arguments: str) -> dict[str, object]:
    """Run a command in this process and return its exit code, and what it said on stdout and stderr."""
    from pipeline.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as ended:
            code = ended.code
    return {"code": code or 0, "out": out.getvalue(), "err": err.getvalue()}


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All of a folder that writing could change: names, bytes, modes, times."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        facts = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_mtime_ns, facts.st_size, digest)
    return found
