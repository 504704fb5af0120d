"""The phases of an extraction of a million images that take no memory, by a network that takes no time."""

import hashlib
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

from pipeline.benchmark.numbered import NumberedImages, null_backbone
from pipeline.extraction.job import Job
from pipeline.extraction.prepare import prepare
from pipeline.extraction.publish import publish, whole_entry
from pipeline.extraction.recipe import Wishes
from pipeline.extraction.shard import extract_shard, request_shard
from pipeline.launch.plan import plan_of
from pipeline.store.entry import open_entry
from pipeline.store.key import SHORT


def memory() -> int:
    """Bytes of this process that lie in memory."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_memory() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self.last
        self.last = now


def prepared(root: Path, rows: int, shard_rows: int) -> Job:
    """Make a job that loads with one process."""
    wishes = Wishes(batch_size=256, shard_rows=shard_rows, workers=1)
    return prepare(NumberedImages(rows), null_backbone(), root=root, wishes=wishes)


def make_shards(root: Path, rows: int, shard_rows: int) -> dict[str, Any]:
    """Do what `extract` does up to publishing; note memory and descriptors after each shard."""
    clock = Clock()
    job = prepared(root, rows, shard_rows)
    clock.lap("prepare")
    assert whole_entry(root, root / job.final_id(job.digests)[:SHORT]) is None
    clock.lap("look for the entry")
    plan_of(job, None)
    clock.lap("plan")
    job.begin()
    missing = job.missing()
    clock.lap("missing")
    notes = []
    try:
        for place, number in enumerate(missing):
            for wanted in missing[place : place + 2]:
                request_shard(job, wanted)
            extract_shard(job, number)
            notes.append((memory(), descriptors()))
    finally:
        job.close()
    clock.lap("extract")
    return {"seconds": clock.seconds, "memory": [a for a, _ in notes], "descriptors": [b for _, b in notes]}


def resume(root: Path, rows: int, shard_rows: int) -> dict[str, Any]:
    """Find out that nothing is missing, and publish."""
    clock = Clock()
    job = prepared(root, rows, shard_rows)
    clock.lap("prepare")
    assert job.missing() == []
    clock.lap("missing")
    before = memory()
    reset_peak()
    entry = publish(job, skip_bad=False, command="")
    clock.lap("publish")
    assert entry is not None
    return {"seconds": clock.seconds, "entry": str(entry.path), "before": before, "peak": peak_memory()}


def read_speeds(path: Path, repeats: int) -> dict[str, Any]:
    """Read an entry verified, and hash the same bytes where they lie in memory, in turns; return bytes a second.

    Seconds are the processor's, of all threads: those of the clock say more of what else the machine does.
    """
    entry = open_entry(path)
    data = [entry.shard_path(number).read_bytes() for number in range(len(entry.shards))]

    def read() -> None:
        assert sum(len(shard.status) for _, shard in entry.read_shards()) == entry.rows

    def hash_only() -> None:
        for part in data:
            hashlib.sha256(part).hexdigest()

    spent: dict[str, list[float]] = {"read": [], "hash": []}
    for _ in range(repeats):
        for name, work in (("read", read), ("hash", hash_only)):
            started = time.process_time()
            work()
            spent[name].append(time.process_time() - started)
    size = sum(map(len, data))
    return {"bytes": size, **{name: size / statistics.median(values) for name, values in spent.items()}}
