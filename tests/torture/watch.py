"""What work in a child did besides its answer: how it died, memory, seconds, files that it had no business with."""

import contextlib
import ctypes
import faulthandler
import functools
import json
import logging
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import in_child

MB = 1 << 20
IN_ACCESS, IN_OPEN, IN_CREATE = 0x1, 0x20, 0x100
STATUS = Path("/proc/self/status")


class Hung(BaseException):
    """Raised in whatever waits for too long; no `except Exception` catches it."""


@contextlib.contextmanager
def hung_after(seconds: float) -> Iterator[None]:
    """Interrupt system calls that wait, like the opening of a pipe, with `Hung`."""

    def give_up(*_: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def memory(field: str) -> int:
    """A field of this process's status in bytes; `VmPeak` counts memory that was asked for, used or not."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) << 10


def needs_proc() -> None:
    """Skip where memory cannot be measured."""
    if not STATUS.exists():
        pytest.skip("peak memory is read from /proc")


def one_arena() -> None:
    """Let threads share their memory: each would reserve 64 MB of addresses for itself, used or not."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(-8, 1)


@dataclass(frozen=True)
class Answer:
    """How one piece of work ended."""

    said: str
    """What it returned, or `crashed with signal N` or `hung`."""
    seconds: float = 0.0
    """Of the processor's time."""
    grown: int = 0
    """Bytes of memory asked for beyond what the process had, at the peak."""
    opened: list[str] = field(default_factory=list)
    """Files that Python code opened, other than the interpreter's own."""


def answers(
    work: Callable[[int], str],
    count: int,
    notes: Path,
    *,
    limit: float = 10.0,
    prepare: Callable[[], Any] = bool,
    before: Callable[[int], Any] = bool,
) -> list[Answer]:
    """Do `work(0)`, `work(1)` ... in a child; after a crash or more than `limit` seconds the rest in a new one.

    Args:
        work: what to do; an exception fails the test.
        count: how often.
        notes: a file for the answers, which outlive the child.
        limit: seconds for each.
        prepare: called in each child first.
        before: called before each piece of work, and not measured.
    """
    found: list[Answer] = []
    while len(found) < count:
        notes.write_bytes(b"")
        rest = functools.partial(_work_on, work, len(found), count, notes, limit, prepare, before)
        outcome = in_child(rest, timeout=3600.0)
        found += [Answer(**json.loads(line)) for line in notes.read_bytes().splitlines()]
        if outcome.code < 0:
            hung = -outcome.code == signal.SIGALRM
            found.append(Answer("hung" if hung else f"crashed with signal {-outcome.code}", outcome.seconds))
        else:
            assert outcome.code == 0, outcome.error
    return found


def _work_on(
    work: Callable[[int], str],
    first: int,
    count: int,
    notes: Path,
    limit: float,
    prepare: Callable[[], Any],
    before: Callable[[int], Any],
) -> None:
    one_arena()
    faulthandler.disable()  # crashes are counted by the parent
    logging.disable()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process wherever it is, in C code too
    prepare()
    opened: list[str] = []
    own = (sys.prefix, sys.base_prefix, "/proc/")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and not str(arguments[0]).startswith(own):
            opened.append(str(arguments[0]))

    with notes.open("wb", buffering=0) as out:
        sys.addaudithook(hook)
        for number in range(first, count):
            before(number)
            opened.clear()
            earlier, size = memory("VmPeak"), memory("VmSize")
            signal.setitimer(signal.ITIMER_REAL, limit)
            start = time.process_time()  # a busy machine makes no difference
            said = work(number)
            seconds = time.process_time() - start
            signal.setitimer(signal.ITIMER_REAL, 0)
            peak = memory("VmPeak")
            answer = Answer(said, seconds, peak - size if peak > earlier else 0, opened)
            out.write(json.dumps(vars(answer)).encode() + b"\n")


class Guard:
    """Watches folders: `events()` tells which names in them any process opened, read or made, at C level too."""

    def __init__(self, *folders: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            pytest.skip("opened files are watched with inotify")
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            pytest.skip("no inotify to be had")
        for folder in folders:
            mask = IN_ACCESS | IN_OPEN | IN_CREATE
            assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask) >= 0

    def events(self) -> list[str]:
        """Names since the last call; the empty name is a watched folder itself."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 1 << 16):
                while data:
                    length = struct.unpack_from("iIII", data)[3]
                    found.append(data[16 : 16 + length].rstrip(b"\0").decode())
                    data = data[16 + length :]
        return found

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
