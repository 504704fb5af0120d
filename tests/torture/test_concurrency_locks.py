"""Locks that lie, or that are not to be had: nothing here takes one, so nothing changes."""

import errno
import fcntl
import functools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import BACKBONE
from harness import FULL, Child, run_extract, take_core, trials
from writers import WAIT, check_cache, results, shared_world, start_writers

LOCK_COMMANDS = {fcntl.F_SETLK, fcntl.F_SETLKW, getattr(fcntl, "F_OFD_SETLK", 37), getattr(fcntl, "F_OFD_SETLKW", 38)}
LOCK = re.compile(r"\bflock\(|\bF_(OFD_)?SETLKW?\b")
"""A lock in what strace writes."""
OPTIONS = [*BACKBONE, "--batch-size", "4", "--shard-rows", "8", "--workers", "1", "--on-bad-image", "skip"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return shared_world(tmp_path_factory.getbasetemp())


def with_locks(answer: str, extract) -> dict:
    """Run `extract` where every lock `succeeds` for everybody or `fails`; count the locks it asked for."""
    asked = []

    def lock(*arguments: object) -> None:
        asked.append(arguments)
        if answer == "fails":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    real = fcntl.fcntl
    fcntl.flock = fcntl.lockf = os.lockf = lock
    fcntl.fcntl = lambda file, command, *more: (lock if command in LOCK_COMMANDS else real)(file, command, *more)
    return {**extract(), "locks": len(asked)}


@pytest.mark.parametrize("answer", ["succeeds", "fails"])
def test_writers_need_no_locks(world, answer, tmp_path, tally):
    runs = trials(1, 50)
    for run in range(runs):
        cache, rng = tmp_path / f"cache-{run}", random.Random(run)
        begun = start_writers(
            [world.photos] * 2, cache, rng, spread=world.seconds / 2, wrap=lambda extract: with_locks(answer, extract)
        )
        for result in results([writer.child.end(WAIT) for writer in begun]):
            assert (result["cache"], result["locks"]) == (world.id, 0)
        check_cache(cache, world.expected(world.id))
        shutil.rmtree(cache)
    tally(f"runs of 2 writers where every lock {answer}", runs, "0 locks asked for, 0 differences")


def test_a_lock_would_be_counted(tmp_path):
    for lock in (
        lambda: fcntl.flock(0, fcntl.LOCK_EX),
        lambda: fcntl.lockf(0, fcntl.LOCK_EX),
        lambda: os.lockf(0, os.F_LOCK, 0),
        lambda: fcntl.fcntl(0, fcntl.F_SETLK, b""),
    ):
        kept = fcntl.flock, fcntl.lockf, os.lockf, fcntl.fcntl
        try:
            assert with_locks("succeeds", lambda lock=lock: lock() or {})["locks"] == 1
        finally:
            fcntl.flock, fcntl.lockf, os.lockf, fcntl.fcntl = kept


def strace(trace: Path, *what: str) -> list[str]:
    """The command that writes the locks that a command or process takes, with its children, to `trace`."""
    return ["strace", "-f", "-e", "trace=flock,fcntl", "-o", str(trace), *what]


@pytest.fixture(scope="module")
def can_trace(tmp_path_factory):
    """Skip where strace is not to be had or may not trace; make sure that it shows a lock."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not to be had")
    trace = tmp_path_factory.mktemp("strace") / "trace"
    lock = "import fcntl; fcntl.flock(open('/dev/null'), fcntl.LOCK_SH)"
    ended = subprocess.run(strace(trace, sys.executable, "-I", "-c", lock), capture_output=True, check=False)
    if ended.returncode:
        pytest.skip("strace may not trace here")
    assert LOCK.search(trace.read_text()), "strace is blind to locks"


def wait_for_tracer() -> None:
    """Wait until somebody traces this process."""
    for _ in range(1000):
        if "TracerPid:\t0\n" not in Path("/proc/self/status").read_text():
            time.sleep(0.1)  # until it has stopped it and sees its calls
            return
        time.sleep(0.01)
    raise TimeoutError("nobody traces this process")


@pytest.mark.parametrize("lock", [False, True])
def test_an_extraction_takes_no_lock_in_any_of_its_processes(world, can_trace, lock, tmp_path, tally):
    def work() -> str:
        wait_for_tracer()
        if lock:  # so that it is known that one would be seen
            with open(tmp_path / "lock", "w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
            return world.id
        return run_extract(world.photos, tmp_path / "cache")["cache"]

    child = Child(work, core=0)
    tracer = subprocess.Popen(strace(tmp_path / "trace", "-p", str(child.pid)), stderr=subprocess.DEVNULL)
    try:
        outcome = child.end(WAIT)
        tracer.wait(WAIT)
    finally:
        tracer.kill()
        tracer.wait()
    if "TimeoutError" in outcome.error:
        pytest.skip("strace may not trace a running process here")
    assert results([outcome]) == [world.id]
    seen = LOCK.findall((tmp_path / "trace").read_text())
    assert bool(seen) == lock
    if not lock:
        tally("extractions traced with all their processes", 1, "0 locks")


@pytest.mark.skipif(not FULL, reason="the whole campaign only: each command takes seconds to import torch")
def test_nothing_changes_whatever_hdf5_is_told_of_locking(world, can_trace, tmp_path, tally):
    for run in range(5):
        cache = tmp_path / f"cache-{run}"
        started = []
        for number, told in enumerate(("TRUE", "FALSE")):
            trace = tmp_path / f"trace-{run}-{told}"
            command = ["-m", "pipeline", "extract", str(world.photos), "--cache-dir", str(cache), "-q", *OPTIONS]
            process = subprocess.Popen(
                strace(trace, sys.executable, *command),
                env={**os.environ, "HDF5_USE_FILE_LOCKING": told, "OMP_NUM_THREADS": "1"},
                cwd=tmp_path,
                preexec_fn=functools.partial(take_core, number),  # one thread, as what it is compared with
            )
            started.append((process, trace))
        for process, trace in started:
            try:
                assert process.wait(WAIT) == 0
            finally:
                process.kill()
                process.wait()
            assert not LOCK.search(trace.read_text())
        check_cache(cache, world.expected(world.id))
    tally("pairs of commands, HDF5_USE_FILE_LOCKING on and off", 5, "0 locks in what strace saw, 0 differences")
