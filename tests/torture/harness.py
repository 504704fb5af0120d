"""What the fault campaign shares: its size, and children that may die.

Children are forked from this process, which has imported torch already, so that thousands of them are affordable.
"""

import json
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conftest import SPACE, make_photos

import pipeline
import pipeline.launch.extract

FULL = bool(os.environ.get("PIPELINE_TORTURE"))
"""Whether this is `make torture` and not `make test`."""

JOB = {**SPACE, "batch_size": 4, "shard_rows": 8, "workers": 1, "on_bad_image": "skip"}
"""Options of an extraction of several small shards."""


def trials(quick: int, full: int) -> int:
    """The number of trials: a sample of them in `make test`, all of them in `make torture`."""
    return full if FULL else quick


@dataclass(frozen=True)
class Outcome:
    """How a child ended: `code` is its exit code, or the negative number of the signal that killed it."""

    code: int
    result: Any
    """What its work returned, as JSON has it; None if it did not come so far."""
    error: str
    """The traceback of an exception, else empty."""
    seconds: float


def take_core(number: int) -> None:
    """Let this process use one core, the first for 0, and compute on one thread.

    OpenMP's threads do not survive a fork: a child of a process that has computed on several waits for them for ever.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    torch.set_num_threads(1)


@contextmanager
def on_one_core() -> Iterator[None]:
    """Let this process use one core for a while, and one thread; those it starts meanwhile too."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    threads = torch.get_num_threads()
    take_core(os.getpid())
    try:
        yield
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


class Child:
    """A forked process that runs `work()` on one core; what it returns must be JSON. Wait for it with `end`.

    Without `core` half of all children get the one core of two, and half the other.
    """

    def __init__(self, work: Callable[[], Any], core: int | None = None) -> None:
        read, write = os.pipe()
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: none holds a lock here
            self.pid = os.fork()
        if not self.pid:
            os.close(read)
            take_core(os.getpid() if core is None else core)
            _run(work, write)
        os.close(write)
        self._answer = read

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if it is still there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def end(self, timeout: float = 120.0) -> Outcome:
        """Wait for the end; a child that hangs is killed and fails the test."""
        data = b""
        limit = time.monotonic() + timeout
        while True:
            ready, _, _ = select.select([self._answer], [], [], max(0.0, limit - time.monotonic()))
            if not ready:
                self.kill()
                os.waitpid(self.pid, 0)
                os.close(self._answer)
                raise AssertionError(f"a child hung for {timeout} s")
            piece = os.read(self._answer, 1 << 16)
            if not piece:
                break
            data += piece
        os.close(self._answer)
        _, status = os.waitpid(self.pid, 0)
        said = json.loads(data) if data else {}
        code = os.waitstatus_to_exitcode(status)
        return Outcome(code, said.get("result"), said.get("error", ""), time.monotonic() - self.started)


def _run(work: Callable[[], Any], answer: int) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        said = {"result": work()}
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        said = {}
    except BaseException:  # noqa: BLE001 - told to the parent
        said = {"error": traceback.format_exc()}
    try:
        os.write(answer, json.dumps(said).encode())
    finally:
        os._exit(code)


def in_child(work: Callable[[], Any], timeout: float = 120.0, core: int | None = None) -> Outcome:
    """Run `work` in a child and wait for its end."""
    return Child(work, core).end(timeout)


def photos_in(folder: Path, per_class: int = 8) -> Path:
    """Make 3 x `per_class` small images, two of which are the same and one of which is broken."""
    made = make_photos(folder, per_class=per_class)
    (made / "beet" / "00.jpg").write_bytes((made / "apple" / "00.jpg").read_bytes())
    (made / "corn" / "00.jpg").write_bytes(b"no image")
    return made


def run_extract(photos: Path, cache: Path, **options: Any) -> dict[str, Any]:
    """Extract and return the result's JSON fields. For use in children."""
    return pipeline.extract(str(photos), cache_dir=cache, **{**JOB, **options}).to_json()


def entry_bytes(path: Path) -> dict[str, bytes]:
    """The bytes of an entry that equal work makes equal: shards, sample table and ledger by name."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "entry.json"
    }
