"""Measurements in fresh processes: with their own memory to look at, or several at the same time.

A child is told which function of which module makes it ready. That function returns another, which is called once
for each line that the parent sends; its answer, plain JSON, goes back as a line.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import PipelineError

BOOT = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given['path']; "
    "from pipeline.benchmark.child import serve; serve(given)"
)
READY = "ready"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Answer = dict[str, Any]


def serve(given: dict[str, Any]) -> None:
    """Be the child: get ready, then answer each line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    work: Callable[[], Answer] = getattr(import_module(given["module"]), given["function"])(**given["arguments"])
    answers.write(READY + "\n")
    answers.flush()
    for _ in sys.stdin:
        answers.write(json.dumps(work()) + "\n")
        answers.flush()


class Child:
    """A process that answers. Use as a context manager.

    Args:
        module: where `function` is.
        function: called in the child with `arguments`, returns what answers.
        threads: of OpenMP and the like; 0 leaves it to the libraries.
        arguments: plain JSON values.
    """

    def __init__(self, module: str, function: str, *, threads: int = 0, **arguments: Any) -> None:  # noqa: ANN401
        given = {"module": module, "function": function, "arguments": arguments, "path": sys.path}
        single = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)} if threads else {}
        self._what = f"{module}.{function}"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", BOOT, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **single},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_ready(self) -> None:
        """Wait until it is ready to be asked."""
        self._line()

    def ask(self) -> None:
        """Ask for an answer, and do not wait for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a child that ended is told of by its answer
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def answer(self) -> Answer:
        """Return the answer to the oldest question.

        Raises:
            PipelineError: if the child ended instead, with the last it said.
        """
        found: Answer = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            last = (said.strip().splitlines() or ["nothing"])[-1]
            raise PipelineError(
                f"measuring {self._what} in a process of its own ended with code {self._process.returncode}: {last}",
                "Was it out of memory? Try --quick.",
            )
        return line


def answer_of(child: Child) -> Answer:
    """Wait for a child, ask it once, and return the answer."""
    child.wait_ready()
    child.ask()
    return child.answer()


def memory_now() -> int:
    """Return the memory this process has now, in bytes; where Linux does not tell it, the most it has had."""
    if not STATUS.exists():
        return peak_memory()
    return next(int(line.split()[1]) << 10 for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))


def reset_peak() -> None:
    """Let `peak_memory` begin anew, where Linux can."""
    if RESET.exists():
        RESET.write_text("5")


def peak_memory() -> int:
    """Return the most memory this process has had, in bytes."""
    if STATUS.exists():  # what Linux says elsewhere counts the parent's memory, from before the child was itself
        return next(int(line.split()[1]) << 10 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used << 10
