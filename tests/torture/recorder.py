"""What a piece of work does to the disk, recorded by wrapping the functions of `os` that change it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from powerloss import Calls, Disk, Mark, Names, Op, Sync, Tree, Write

import pipeline

PACKAGE = os.path.dirname(pipeline.__file__) + os.sep
UNKNOWN = ("truncate", "ftruncate", "symlink", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range")
"""Changes that the package does not make: a recording without them would be wrong, so they are refused."""


class Killed(BaseException):
    """The process is dead: nothing it does from now on reaches the disk, what its `finally` does neither."""


class Recorder:
    """What is done below the folder `root` while `recording`; what lies there before is durable.

    With `stop` the process is killed instead of making the change of that number, or instead of the first fsync that
    a function of that name asks for. With `other`, a number and some work, another process does that work just before
    the change of that number, and with `until` it is killed in the same way, counting its own changes.
    """

    def __init__(
        self,
        root: Path,
        *,
        stop: int | str | None = None,
        other: tuple[int, Callable[[], None]] | None = None,
        until: int | str | None = None,
    ) -> None:
        self.root, self.stop, self.other, self.until = root, stop, other, until
        self.dead = False
        self.ops: list[Op] = []
        self.steps = 0
        self.parted = 0
        """How much was recorded when the process was killed or another began."""
        self.start = Disk()
        self._nodes: dict[tuple[int, int], int] = {}
        self._made = 0
        self._walk(root)

    def mark(self, promise: Any) -> None:
        """Note that something is promised from here on."""
        self.ops.append(Mark(promise))

    def live(self) -> Tree:
        """Return the disk as processes see it now, by what was recorded."""
        disk = self.start.copy()
        for op in self.ops:
            disk.apply(op)
        return disk.tree(*disk.newest())

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Wrap the functions of `os`; ends in silence if the process is killed."""
        wrappers = {
            "open": self._open,
            "write": self._write,
            "fsync": self._fsync,
            "link": self._link,
            "rename": self._rename,
            "replace": self._rename,
            "unlink": self._unlink,
            "remove": self._unlink,
            "mkdir": self._mkdir,
            "rmdir": self._rmdir,
            **{name: self._refuse for name in UNKNOWN},
        }
        self._os = {name: getattr(os, name) for name in wrappers}
        try:
            for name, wrapper in wrappers.items():
                setattr(os, name, wrapper)
            yield
        except Killed:
            self._revive()
        finally:
            for name, real in self._os.items():
                setattr(os, name, real)

    def _walk(self, folder: Path) -> None:
        names: dict[str, int] = {}
        self.start.names[self._learn(folder.lstat())] = names
        for path in sorted(folder.iterdir()):
            names[path.name] = self._learn(path.lstat())
            if path.is_dir():
                self._walk(path)
            else:
                self.start.contents[names[path.name]] = path.read_bytes()

    def _learn(self, found: os.stat_result) -> int:
        """Return the number of a file or folder, a new one if it is not known: the disk itself has the first."""
        key = (found.st_dev, found.st_ino)
        if key not in self._nodes:
            self._nodes[key] = self._made
            self._made += 1
        return self._nodes[key]

    def _known(self, found: os.stat_result) -> int | None:
        return self._nodes.get((found.st_dev, found.st_ino))

    def _place(self, path: Any, dir_fd: int | None) -> tuple[int | None, str]:
        """Return the folder that a name lies in, None if that is not below the root, and the name."""
        parent, name = os.path.split(os.fspath(path))
        try:
            return self._known(os.stat(parent or ".", dir_fd=dir_fd)), name
        except FileNotFoundError:
            return None, name

    def _revive(self) -> None:
        self.stop, self.dead = None, False

    def _step(self, calls: Calls = ()) -> None:
        """Called before every change, with the calls that led to an fsync."""
        if self.stop == self.steps or (calls and asks(calls) == self.stop):
            self.dead = True
            self.parted = max(self.parted, len(self.ops))
        if self.dead:
            raise Killed
        if self.other is not None and self.steps == self.other[0]:
            work, self.other, self.parted = self.other[1], None, len(self.ops)
            self.stop = self.until if not isinstance(self.until, int) else self.steps + self.until
            with contextlib.suppress(Killed):
                work()
            self._revive()
        self.steps += 1

    def _forget(self, found: os.stat_result) -> None:
        """Numbers of files are used again once the last name has gone."""
        if found.st_nlink == 1 or os.path.stat.S_ISDIR(found.st_mode):
            self._nodes.pop((found.st_dev, found.st_ino))

    def _refuse(self, *arguments: Any, **options: Any) -> None:
        raise AssertionError(f"a change of the disk that is not recorded: {arguments}")

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        real = self._os["open"]
        if not flags & (os.O_CREAT | os.O_TRUNC) or self._place(path, dir_fd)[0] is None:
            return real(path, flags, mode, dir_fd=dir_fd)
        self._step()
        folder, name = self._place(path, dir_fd)
        there = os.path.lexists(path) if dir_fd is None else name in os.listdir(dir_fd)
        descriptor = real(path, flags, mode, dir_fd=dir_fd)
        node = self._learn(os.fstat(descriptor))
        if not there:
            self.ops.append(Names(((folder, name, node),)))
        elif flags & os.O_TRUNC:
            self.ops.append(Write(node, 0, None))
        return descriptor

    def _write(self, descriptor: int, data: Any) -> int:
        node = self._known(os.fstat(descriptor))
        if node is None:
            return self._os["write"](descriptor, data)
        self._step()
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        written = self._os["write"](descriptor, data)
        self.ops.append(Write(node, at, bytes(memoryview(data)[:written])))
        return written

    def _fsync(self, descriptor: int) -> None:
        node = self._known(os.fstat(descriptor))
        if node is not None:
            calls = _calls()
            self._step(calls)
            self.ops.append(Sync(node, calls, self.steps - 1))

    def _link(self, source: Any, path: Any, *, follow_symlinks: bool = True) -> None:
        if self._place(path, None)[0] is not None:
            self._step()
        self._os["link"](source, path, follow_symlinks=follow_symlinks)
        folder, name = self._place(path, None)
        if folder is not None:
            self.ops.append(Names(((folder, name, self._nodes[os.lstat(path).st_dev, os.lstat(path).st_ino]),)))

    def _rename(self, source: Any, path: Any) -> None:
        inside = [self._place(each, None)[0] is not None for each in (source, path)]
        if inside == [False, False]:
            return self._os["replace"](source, path)
        self._step()
        found = os.lstat(source)
        gone = os.lstat(path) if os.path.lexists(path) else None
        (folder, name), (goal, new) = self._place(source, None), self._place(path, None)
        self._os["replace"](source, path)
        if gone is None or not os.path.samestat(found, gone):  # else nothing happens: both name one file
            self.ops.append(Names(((folder, name, None), (goal, new, self._known(found)))))
            if gone is not None:
                self._forget(gone)
        return None

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("unlink", path, dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("rmdir", path, dir_fd)

    def _remove(self, how: str, path: Any, dir_fd: int | None) -> None:
        if self._place(path, dir_fd)[0] is None:
            return self._os[how](path, dir_fd=dir_fd)
        self._step()
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        folder, name = self._place(path, dir_fd)
        self._os[how](path, dir_fd=dir_fd)
        self.ops.append(Names(((folder, name, None),)))
        return self._forget(found)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if self._place(path, dir_fd)[0] is None:
            return self._os["mkdir"](path, mode, dir_fd=dir_fd)
        self._step()
        self._os["mkdir"](path, mode, dir_fd=dir_fd)
        folder, name = self._place(path, dir_fd)
        node = self._learn(os.stat(path, dir_fd=dir_fd))
        self.ops.append(Names(((folder, name, node),), node))
        return None


def asks(calls: Calls) -> str:
    """Return the function that asks for an fsync: the one that calls what makes it."""
    return next(name for _, name, _ in calls if name not in ("sync_folder", "write_new"))


def _calls() -> Calls:
    """Return the calls within the package that led here, innermost first."""
    found, frame = [], sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            found.append((code.co_filename[len(PACKAGE) :], code.co_name, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)
