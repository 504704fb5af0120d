"""A disk of a chosen size, which goes when the process does: a tmpfs in a mount namespace of its own."""

import ctypes
import os
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REMOUNT, MS_REC, MS_PRIVATE = 0x20, 0x4000, 0x40000
PAGE = 4096


def enter_namespace() -> None:
    """Give this process, which must be a child, mounts of its own; without root in a user namespace.

    Raises:
        OSError: if that is not allowed here.
    """
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", CLONE_NEWNS)
    except OSError:
        _call("unshare", CLONE_NEWNS | CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def mount(folder: Path, pages: int) -> None:
    """Put an empty disk of so many pages at `folder`."""
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % (pages * PAGE))


def resize(folder: Path, pages: int) -> None:
    """Change the size of the disk at `folder`."""
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", MS_REMOUNT, b"size=%d" % (pages * PAGE))


def _call(name: str, *given: bytes | int | None) -> None:
    arguments = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in given]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
