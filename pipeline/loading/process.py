"""A worker process as its parent has it: started, two pipes, ended."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import IO, Any

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])['path']; from pipeline.loading.worker import main; main()"
)
"""Isolated from the environment and with the parent's own import path. Not `multiprocessing`, which would run the
user's main script again in every worker."""


GRACE_SECONDS = 1.0
PIPE_BYTES = 1 << 20
"""The most that Linux gives a user's pipe."""


class WorkerProcess:
    """A running `pipeline.loading.worker`."""

    def __init__(self, setup: Mapping[str, Any], shared: Mapping[str, int], stderr: IO[bytes]) -> None:
        task_read, task_write = os.pipe()
        answer_read, answer_write = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # Room for a task with its arrays, so that sending does not wait for a worker that is stopped.
            with contextlib.suppress(OSError):
                fcntl.fcntl(task_write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        pipes = {"tasks": task_read, "answers": answer_write}
        argument = {**setup, **shared, **pipes, "path": sys.path, "parent": os.getpid()}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", BOOT, json.dumps(argument)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(task_read, answer_write, *shared.values()),
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        os.close(task_read)
        os.close(answer_write)
        self.tasks = Connection(task_write, readable=False)
        self.answers = Connection(answer_read, writable=False)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int:
        """Exit code of an ended process; the negative signal number if one ended it."""
        return self._process.wait()

    def end(self, *, gently: bool = False) -> None:
        """Kill it, if it still runs, and free its pipes. It holds nothing that would be lost.

        With `gently` one that is ending by itself gets a moment to do so, so that its own exit code is seen.
        """
        if gently:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=GRACE_SECONDS)
        self._process.kill()
        self._process.wait()
        self.tasks.close()
        self.answers.close()
