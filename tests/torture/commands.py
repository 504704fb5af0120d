"""The command line in a child: its words, its exit code, and what its loading processes took."""

import io
import os
import resource
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import in_child

import pipeline.experiment  # what commands import, so that each child has it already
import pipeline.loading.loader
from pipeline.cli import main
from pipeline.loading.process import WorkerProcess

MEMORY_BYTES = 3 << 30
"""What a command may take beside what the test has, so that one that reads without end fails and harms nothing else."""


@dataclass
class Told:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    workers: int
    """Loading processes it started; more than it was to have means that some died."""
    peak_bytes: int
    """The most memory one of them held, 0 where the system does not say."""

    @property
    def is_one_line(self) -> bool:
        """Whether an error is one line of what is wrong and one of what to do, at the end, without a traceback."""
        lines = self.err.splitlines()
        at = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        after = lines[at[0] + 1 :] if at else ["nothing said"]
        hint_only = len(after) <= 1 and all(line.startswith("  try: ") for line in after)
        return len(at) == 1 and hint_only and "Traceback" not in self.err and "\x1b" not in self.err


@dataclass
class _Watch:
    """Counts loading processes and asks the kernel for the most memory each had."""

    started: int = 0
    peak: int = 0

    def watched(self) -> type[WorkerProcess]:
        """Return a WorkerProcess that reports here."""
        watch = self

        class Watched(WorkerProcess):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                watch.started += 1

            def end(self, *, gently: bool = False) -> None:
                watch.peak = max(watch.peak, _memory(self.pid, "VmHWM"))
                super().end(gently=gently)

        return Watched


def _memory(pid: int | str, what: str) -> int:
    """Return one of the kernel's figures of a process in bytes, 0 where there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{what}:")), 0)


def _limit_memory() -> None:
    if there := _memory("self", "VmSize"):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY_BYTES, hard))


def run_commands(
    commands: Sequence[tuple[Path, Sequence[object]]], timeout: float = 120.0, *, watched: bool = False
) -> list[Told]:
    """Run `pipeline ARGUMENTS` in a folder, one after the other in one child; if it hangs or dies the test fails.

    Loading processes are only counted and measured if the commands are `watched`.
    """

    def work() -> list[dict[str, Any]]:
        _limit_memory()
        return [_one(folder, arguments, watched) for folder, arguments in commands]

    ended = in_child(work, timeout)
    assert ended.code == 0, f"the command died ({ended.code}): {ended.error}"
    return [Told(*fields) for fields in ended.result]


def _one(folder: Path, arguments: Sequence[object], watched: bool) -> tuple[object, ...]:
    os.chdir(folder)
    watch, started = _Watch(), time.monotonic()
    if watched:
        pipeline.loading.loader.WorkerProcess = watch.watched()  # type: ignore[misc]
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code or 0
        except BaseException:  # noqa: BLE001 - told to the test
            traceback.print_exc()
    said = [stream.getvalue().encode("utf-8", "backslashreplace").decode() for stream in (out, err)]
    return code, *said, time.monotonic() - started, watch.started, watch.peak


def run_command(*arguments: object, cwd: Path, timeout: float = 120.0) -> Told:
    """Run one command in a child that works in `cwd`, and watch its loading processes."""
    [told] = run_commands([(cwd, arguments)], timeout, watched=True)
    return told
