"""(l) Ten million files: memory and time to plan, to walk a folder, to resume, to publish and to plan once more.

A folder of real files of a few bytes is looked at through several links to it, so that a table can name ten million
paths: each is looked up, but a file system that fits any disk holds them. Shards are committed by the store's own
code, of rows that no network made. Each step is a process of its own.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmark.child import Child, answer_of, memory_now, peak_memory, reset_peak
from pipeline.benchmark.figures import BYTES, SECONDS, Claim, Figure
from pipeline.benchmark.numbered import BATCH_SIZE, null_backbone
from pipeline.benchmark.timing import OnStep, Spread, silent
from pipeline.extraction.job import Job
from pipeline.extraction.prepare import prepare
from pipeline.extraction.publish import publish
from pipeline.extraction.recipe import Wishes
from pipeline.launch.plan import plan_of
from pipeline.sources.folder import FolderSource
from pipeline.sources.source import Listing, Source
from pipeline.sources.table import TableSource
from pipeline.store.shard import USABLE, ShardRows
from pipeline.store.statindex import stat_rows
from pipeline.versions import versions

DIM, FOLDER, CLASSES = 4, 1000, 1000
"""Numbers in a row, files in a folder, classes at most."""
MEGABYTES_500, MINUTE = 500e6, 60.0
"""What planning and the scan of a resume may take at ten million rows."""
FULL = 10_000_000
LATER_NS = 1 << 62
"""When the files count as read: an index does not remember what is as new as its reading."""


def make_files(root: Path, files: int) -> None:
    """Make files of a few bytes, all different, in folders of a thousand."""
    for number in range(files):
        folder, place = divmod(number, FOLDER)
        if not place:
            (root / f"photos/n{folder:08d}").mkdir(parents=True)
        (root / f"photos/n{folder:08d}/img_{place:06d}.JPEG").write_bytes(b"%d" % number)


def make_table(root: Path, rows: int, files: int) -> None:
    """Write a table of so many paths below links to the folder of files, a class every few folders."""
    every = max(1, rows // FOLDER // CLASSES)
    with (root / "table.csv").open("w") as file:
        file.write("path,label\n")
        for first in range(0, rows, FOLDER):
            view, number = divmod(first, files)
            if not number:
                (root / f"view{view}").symlink_to("photos")
            folder = f"view{view}/n{number // FOLDER:08d}"
            label = f"class{first // FOLDER // every:04d}"
            names = range(min(FOLDER, rows - first))
            file.writelines(f"{folder}/img_{place:06d}.JPEG,{label}\n" for place in names)


@dataclass
class _Timed:
    """A source whose listing is timed apart from the rest."""

    source: Source
    seconds: float = 0.0

    def listing(self) -> Listing:
        started = time.perf_counter()
        found = self.source.listing()
        self.seconds = time.perf_counter() - started
        return found

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a source has
        return getattr(self.source, name)


def job_of(root: str) -> Job:
    """Prepare the extraction of the table under `root`, for a network that takes no time."""
    source: Any = _Timed(TableSource(Path(root) / "table.csv"))
    wishes = Wishes(batch_size=BATCH_SIZE, device="cpu", engine="reference", workers=1)
    return prepare(source, null_backbone(DIM), root=Path(root) / "cache", wishes=wishes)


def measured(work: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Return `work` with its seconds and by how much its peak of memory is above what there was before."""

    def measure() -> dict[str, Any]:
        null_backbone(DIM)  # so that no import counts
        before, started = memory_now(), time.perf_counter()
        reset_peak()
        found = work()
        return {**found, "seconds": time.perf_counter() - started, "peak": peak_memory() - before}

    return measure


def planning(root: str) -> Callable[[], dict[str, Any]]:
    """Plan, and tell what listing takes of it."""

    def work() -> dict[str, Any]:
        job: Any = job_of(root)
        plan = plan_of(job, None)
        return {"listing": job.source.seconds, "missing": len(job.missing()), "known": plan.rows_known}

    return measured(work)


def walking(root: str) -> Callable[[], dict[str, Any]]:
    """List the folder of files."""
    return measured(lambda: {"rows": len(FolderSource(Path(root) / "photos").listing())})


def publishing(root: str) -> Callable[[], dict[str, Any]]:
    """Verify every shard and publish the entry."""

    def work() -> dict[str, Any]:
        job = job_of(root)
        begun = time.perf_counter()
        entry = publish(job, skip_bad=False, command="")
        assert entry is not None
        return {"rows": entry.rows, "publish": time.perf_counter() - begun}

    return measured(work)


def committing(root: str, share: float) -> Callable[[], dict[str, Any]]:
    """Commit the first shards, as a run does that was stopped."""

    def work() -> dict[str, Any]:
        job = job_of(root)
        job.begin()
        missing = job.missing()
        for number in missing[: round(share * job.shards)]:
            _commit(job, number)
        return {}

    return work


def _commit(job: Job, number: int) -> None:
    span = job.span(number)
    rows = span.stop - span.start
    assert job.listing.stats is not None
    digests = _digests(job, range(span.start, span.stop))
    job.work.commit(
        number,
        job.space,
        ShardRows(np.zeros((rows, DIM), np.float32), digests, np.full(rows, USABLE, np.uint8)),
        bad={},
        stats=stat_rows(job.listing.stats[span], digests, np.full(rows, LATER_NS)),
        computed=rows,
        reused=0,
        facts={"recipe": job.recipe.to_json(), "versions": versions(), "seconds": 0.0},
        equal={},
        stale=None,
    )


def _digests(job: Job, rows: Iterable[int]) -> np.ndarray:
    """Return the digests (m, 32) of the contents of some rows' files, which are the numbers in their names."""
    hashed = bytearray()
    for row in rows:
        _, folder, name = job.listing.ids[row].split("/")
        hashed += hashlib.sha256(b"%d" % (int(folder[1:]) * FOLDER + int(name[4:10]))).digest()
    return np.frombuffer(hashed, np.uint8).reshape(-1, 32)


def measure_listing(*, rows: int = FULL, files: int = 1_000_000, share: float = 0.8, on_step: OnStep = silent) -> Claim:
    """Measure each step once.

    Args:
        rows: paths in the table.
        files: that there are; `rows` are so many views of them.
        share: of the shards that are committed when the extraction is resumed.
        on_step: called with what is measured next.
    """
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as root:
        on_step(f"making {files:,} files and a table of {rows:,}")
        make_files(Path(root), files)
        make_table(Path(root), rows, files)
        walk = _answer(on_step, "walking the folder", "walking", root)
        plan = _answer(on_step, "planning", "planning", root)
        _answer(on_step, f"committing {share:.0%} of the shards", "committing", root, share=share)
        resume = _answer(on_step, "resuming", "planning", root)
        _answer(on_step, "committing the others", "committing", root, share=1.0)
        made = _answer(on_step, "publishing", "publishing", root)
        again = _answer(on_step, "planning once more, all files remembered", "planning", root)
    full = rows >= FULL
    scan = resume["seconds"] - resume["listing"]
    figures = (
        _figure("list the table", SECONDS, plan["listing"]),
        _figure("plan, beside listing", SECONDS, plan["seconds"] - plan["listing"]),
        _figure("plan, memory beyond imports", BYTES, plan["peak"], MEGABYTES_500 if full else None),
        _figure(f"walk a folder of {walk['rows']:,}", SECONDS, walk["seconds"]),
        _figure("walk, memory beyond imports", BYTES, walk["peak"]),
        _figure("scan of a resume, beside listing", SECONDS, scan, MINUTE if full else None),
        _figure("resume, memory beyond imports", BYTES, resume["peak"]),
        _figure("publish, every byte verified", SECONDS, made["publish"]),
        _figure("publish, memory beyond imports", BYTES, made["peak"]),
        _figure("plan again, beside listing", SECONDS, again["seconds"] - again["listing"]),
        _figure("plan again, memory beyond imports", BYTES, again["peak"]),
    )
    conditions = {"rows": rows, "files": files, "share": share, "dim": DIM, "known_on_resume": resume["known"]}
    notes = (
        f"{rows:,} paths name {min(rows, files):,} files, through links to their folder",
        f"walking {FULL:,} files is {FULL / walk['rows'] * walk['seconds']:.0f} s at that speed (extrapolated)",
    )
    return Claim("l", f"listing · {rows:,} files, {4 * DIM} bytes a row", figures, conditions, notes)


def _figure(name: str, unit: str, value: float, at_most: float | None = None) -> Figure:
    return Figure(name, unit, Spread.of(value), at_most=at_most)


def _answer(on_step: OnStep, what: str, function: str, root: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    on_step(what)
    with Child(__name__, function, root=root, **more) as child:
        return answer_of(child)
