"""How often a run's test split was looked at: a line a time, written before its rows are read and never taken back."""

import json
import os
import shlex
import sys
from datetime import UTC, datetime

from pipeline.runs import Run
from pipeline.store.commit import disk_errors

LOG = "test-touches.jsonl"


def log_touch(run: Run, entry: str, n: int, command: str | None = None) -> int:
    """Append that `n` test rows of an entry are about to be measured; return the number of this touch.

    A line is one write in append mode, and on disk before this returns: kills lose none, and processes do not mix.

    Raises:
        CacheError: if the run's folder cannot be written.
    """
    said = command if command is not None else shlex.join(["pipeline", *sys.argv[1:]])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"time": now, "entry": entry, "n": n, "command": said}) + "\n"
    with disk_errors(run.path / LOG, len(line)):
        log = os.open(run.path / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(log, line.encode())
            os.fsync(log)
        finally:
            os.close(log)
    return count_touches(run)


def count_touches(run: Run) -> int:
    """Return how often the test split was measured for a run."""
    try:
        return len((run.path / LOG).read_bytes().splitlines())
    except FileNotFoundError:
        return 0
