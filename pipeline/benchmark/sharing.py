"""(sharing) What several workers lose to one another: a network that only waits, so that many of them fit a core.

A pass waits as a device would make it wait. Of N workers, `passes · wait / (N · seconds)` is the share of their time
that they spend so; what is missing is claims, commits, loading, and waiting for the others at the end.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipeline.benchmark.child import Child
from pipeline.benchmark.figures import SECONDS, SHARE, Claim, Figure
from pipeline.benchmark.numbered import NumberedImages, null_backbone
from pipeline.benchmark.timing import OnStep, Spread, silent

BATCH, BATCHES_A_SHARD = 16, 4


def worker(root: str, index: int, count: int, rows: int, wait: float) -> Callable[[], dict[str, Any]]:
    """Return what makes this worker's part of an entry, and answers when it did what, by the machine's clock."""
    from pipeline.extraction.prepare import prepare
    from pipeline.extraction.recipe import Wishes
    from pipeline.launch.crews import Alone, Crew, Shared
    from pipeline.launch.jobs import run_jobs
    from pipeline.launch.share import Share
    from pipeline.progress import ignore

    starts: list[float] = []
    backbone = null_backbone()

    def pause(*_: object) -> None:
        starts.append(time.monotonic())
        time.sleep(wait)

    backbone.network.register_forward_pre_hook(pause)

    def work() -> dict[str, Any]:
        begun = time.monotonic()
        wishes = Wishes(
            batch_size=BATCH,
            shard_rows=BATCH * BATCHES_A_SHARD,
            device="cpu",
            engine="reference",
            workers=1,
            test_fraction=0.0,
            local_workers=count,
        )
        job = prepare(NumberedImages(rows), backbone, root=Path(root), wishes=wishes)
        crew: Crew = Shared(Share(index, count)) if count > 1 else Alone()
        try:
            run_jobs([job], crew, False, "benchmark", None, ignore, time.perf_counter())
        finally:
            job.close()
        return {"begun": begun, "starts": starts, "ended": time.monotonic()}

    return work


def measure_sharing(
    *, counts: tuple[int, ...] = (1, 16), shards: int = 8, wait: float = 1.0, on_step: OnStep = silent
) -> Claim:
    """Let each number of workers make so many shards each, once; each worker is a process of its own."""
    figures: list[Figure] = []
    for count in counts:
        on_step(f"{count} workers, {shards} shards each")
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as root, ExitStack() as stack:
            rows = BATCH * BATCHES_A_SHARD * shards * count
            told = {"root": root, "count": count, "rows": rows, "wait": wait}
            processes = [
                stack.enter_context(Child(__name__, "worker", threads=1, index=index, **told)) for index in range(count)
            ]
            for process in processes:
                process.wait_ready()
            ready = time.monotonic()
            for process in processes:
                process.ask()
            figures += _figures(count, [process.answer() for process in processes], wait, ready - began)
    conditions = {"counts": list(counts), "shards": shards, "wait": wait, "batch": BATCH}
    title = f"passes of {wait:g} s · {BATCHES_A_SHARD} a shard · {shards} shards a worker"
    return Claim("sharing", title, tuple(figures), conditions)


def _figures(count: int, answers: list[dict[str, Any]], wait: float, starting: float) -> list[Figure]:
    starts = [start for answer in answers for start in answer["starts"]]
    waited, first, last = len(starts) * wait, min(starts), max(starts) + wait
    begun, ended = min(answer["begun"] for answer in answers), max(answer["ended"] for answer in answers)
    return [
        Figure(
            f"{count} workers: efficiency, passes", SHARE, Spread.of(waited / (count * (last - first))), at_least=0.95
        ),
        Figure("  of the whole call", SHARE, Spread.of(waited / (count * (ended - begun)))),
        Figure("  from the call to the first pass", SECONDS, Spread.of(first - begun)),
        Figure("  from the last pass to the end", SECONDS, Spread.of(ended - last)),
        Figure("  processes start and import", SECONDS, Spread.of(starting)),
    ]
