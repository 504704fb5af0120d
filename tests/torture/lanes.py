"""Trials that start children, several at a time; and the processes that must not outlive them."""

import contextlib
import os
import select
import time
import traceback
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import Child, Outcome

LANES = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Children at a time."""
TIMEOUT = 120.0
SHOWN = 20
"""Failures that are printed."""
PAUSE = 0.002
WORKER = b"pipeline.loading.worker"


@dataclass
class Step:
    """A child, and the signal that it gets after some seconds if it still runs."""

    child: Child
    after: float = float("inf")
    signal: int = 0
    group: bool = False
    """Whether its loading processes get the signal too, as from a terminal or a job manager."""

    def send(self) -> None:
        """Send the signal, once."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if self.group else os.kill)(self.child.pid, self.signal)
        self.signal = 0


Trial = Generator[Step, Outcome, None]
"""Yields one step after the other and is sent how its child ended. Fails by raising."""


def run_trials(trials: Iterable[Trial]) -> int:
    """Run all trials to their ends, LANES of them at a time. Return how many there were.

    One that fails does not end the others: the campaign is long, and each failure tells something else.
    """
    waiting, count = iter(trials), 0
    failures: list[str] = []
    running: dict[int, tuple[Trial, Step]] = {}
    """By the pipe of the child: it can be read when the child is at its end."""
    try:
        while True:
            while len(running) < LANES and (trial := next(waiting, None)) is not None:
                count += 1
                _keep(running, trial, next(trial, None))
            if not running:
                assert not failures, f"{len(failures)} of {count} trials failed:\n" + "\n".join(failures[:SHOWN])
                return count
            for pipe in _ended([step for _, step in running.values()]):
                trial, step = running.pop(pipe)
                try:
                    _keep(running, trial, trial.send(step.child.end()))
                except StopIteration:
                    pass
                except AssertionError as error:
                    failures.append("".join(traceback.format_exception_only(error)))
    finally:
        for _, step in running.values():  # left over when a trial failed
            step.child.kill()
            step.child.end()


def _keep(running: dict[int, tuple[Trial, Step]], trial: Trial, step: Step | None) -> None:
    if step is not None:
        running[step.child._answer] = (trial, step)


def _ended(steps: list[Step]) -> list[int]:
    """Wait until a child is at its end or has its signal due. Send signals; return pipes of children that ended."""
    now = time.monotonic()
    due = [step.child.started + step.after for step in steps if step.signal]
    hung = [step for step in steps if now - step.child.started > TIMEOUT]
    assert not hung, f"a child hung for {TIMEOUT} s"
    ready, _, _ = select.select([step.child._answer for step in steps], [], [], max(0.0, min([*due, now + 1]) - now))
    for step in steps:
        if step.signal and time.monotonic() >= step.child.started + step.after:
            step.send()
    return ready


@contextlib.contextmanager
def about(*facts: object) -> Iterator[None]:
    """Say what it was about if it fails."""
    try:
        yield
    except BaseException as error:
        error.add_note("in the trial of " + ", ".join(map(str, facts)))
        raise


def workers_of(group: int) -> list[int]:
    """Return the ids of loading processes in the process group of a child that called `os.setpgid(0, 0)`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and WORKER in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    return found


def assert_no_orphans(child: Child, patience: float = 10.0) -> None:
    """Wait until no loading process of a dead child is left; the kernel ends them a moment after it."""
    limit = time.monotonic() + patience
    while left := workers_of(child.pid):
        assert time.monotonic() < limit, f"loading processes outlived their parent by {patience} s: {left}"
        time.sleep(PAUSE)
