"""Calls of the operating system that change the disk under one folder: seen, counted, and interfered with.

All of them are made through functions of `os` (also where pathlib and shutil make them), so wrapping these
functions shows every moment at which a process can die or a disk can fail.
"""

import builtins
import io
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ON_DESCRIPTORS = ("write", "pwrite", "fsync", "fdatasync", "ftruncate")
ON_PATHS = ("mkdir", "rmdir", "unlink", "remove", "truncate", "utime", "chmod")
ON_TWO_PATHS = ("link", "symlink", "rename", "replace")
CHANGING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Call:
    """One call: `path` is relative to the folder, and where two are given the new one."""

    name: str
    """As in `os`; opening without changing anything is `read`."""
    path: str
    size: int = 0
    """Bytes to be written."""


Act = Callable[[int, Call, Callable[..., Any]], Any]
"""Gets the number of a call (from 1), the call, and `make()` that makes it; `make(n)` writes only n bytes.

What it returns or raises is what the caller sees.
"""


class Watch:
    """While the context lasts, lists calls under `root` in `calls` and lets `act` stand in for each."""

    def __init__(self, root: Path, act: Act | None = None, *, reads: bool = False) -> None:
        self.root = os.path.abspath(root)
        self.act = act
        self.reads = reads
        """Whether opening for reading counts."""
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        self._opened: dict[int, tuple[str, tuple[int, int]]] = {}
        """By descriptor: full path, device and inode, so that a number used again is not mistaken."""
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Self:
        for name in (*ON_DESCRIPTORS, *ON_PATHS, *ON_TWO_PATHS):
            self._replace(os, name, self._wrapped(name, getattr(os, name)))
        self._replace(os, "open", self._wrapped_open(os.open))
        opening = self._wrapped_file(io.open)
        for module in (io, builtins):
            self._replace(module, "open", opening)
        return self

    def __exit__(self, *_: object) -> None:
        for module, name, original in reversed(self._originals):
            setattr(module, name, original)

    def _replace(self, module: object, name: str, function: Callable[..., Any]) -> None:
        self._originals.append((module, name, getattr(module, name)))
        setattr(module, name, function)

    def _wrapped(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            if name in ON_TWO_PATHS:
                folder = options.get("dst_dir_fd", options.get("dir_fd"))
                path = self._full(given[1], folder)
            else:
                path = self._full(given[0], options.get("dir_fd"))
            if path is None:
                return original(*given, **options)
            size = len(memoryview(given[1]).cast("B")) if name in ("write", "pwrite") else 0

            def make(part: int | None = None) -> Any:
                if part is None:
                    return original(*given, **options)
                return original(given[0], memoryview(given[1]).cast("B")[:part], *given[2:])

            return self._made(Call(name, self._relative(path), size), make)

        return call

    def _wrapped_open(self, original: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            full = self._full(path, options.get("dir_fd"))
            if full is None:
                return original(path, flags, *rest, **options)

            def make() -> int:
                descriptor = original(path, flags, *rest, **options)
                found = os.fstat(descriptor)
                self._opened[descriptor] = (full, (found.st_dev, found.st_ino))
                return descriptor

            name = "open" if flags & CHANGING_FLAGS else "read"
            return self._made(Call(name, self._relative(full)), make)

        return call

    def _wrapped_file(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            full = None if isinstance(path, int) else self._full(path, None)
            if full is None:
                return original(path, mode, *rest, **options)
            name = "open" if set(mode) & set("wax+") else "read"
            return self._made(Call(name, self._relative(full)), lambda: original(path, mode, *rest, **options))

        return call

    def _made(self, call: Call, make: Callable[..., Any]) -> Any:
        if call.name == "read" and not self.reads:
            return make()
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
        return make() if self.act is None else self.act(number, call, make)

    def _full(self, path: Any, folder: int | None) -> str | None:
        """Return the full path if it is the root or below it, else None."""
        if isinstance(path, int):
            return self._of_descriptor(path)
        base = None if folder is None else self._of_descriptor(folder)
        if folder is not None and base is None:
            return None
        full = os.path.abspath(os.path.join(base or os.curdir, os.fsdecode(path)))
        return full if full == self.root or full.startswith(self.root + os.sep) else None

    def _of_descriptor(self, descriptor: int) -> str | None:
        path, identity = self._opened.get(descriptor, (None, None))
        if path is None:
            return None
        found = os.fstat(descriptor)
        return path if (found.st_dev, found.st_ino) == identity else None

    def _relative(self, full: str) -> str:
        return os.path.relpath(full, self.root)


def kill_at(number: int, when: str) -> Act:
    """Kill this process `before` call `number`, `after` it, or with `half` of its bytes written."""

    def act(current: int, call: Call, make: Callable[..., Any]) -> Any:
        if current == number:
            if when != "before":
                make(*([call.size // 2] if when == "half" else []))
            os.kill(os.getpid(), signal.SIGKILL)
        return make()

    return act


def fail_at(number: int, code: int, *, ever_after: bool = False) -> Act:
    """Let call `number` fail with `code`; with `ever_after` everything that changes the disk fails from there on."""

    def act(current: int, call: Call, make: Callable[..., Any]) -> Any:
        if current == number or (ever_after and current > number and call.name != "read"):
            raise OSError(code, os.strerror(code), call.path)
        return make()

    return act


def short_writes(size: Callable[[int], int]) -> Act:
    """Let every write of n bytes write only `size(n)` of them."""

    def act(_: int, call: Call, make: Callable[..., Any]) -> Any:
        return make(size(call.size)) if call.name == "write" else make()

    return act
