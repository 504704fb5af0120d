"""The jobs of an extraction, from plan to entry: find what is there, make the missing shards, publish."""

from collections.abc import Callable, Iterable
from functools import partial

from pipeline.errors import CacheError
from pipeline.extraction.choosing import choose_engine, fit_batch
from pipeline.extraction.compat import trust_entry
from pipeline.extraction.job import Job
from pipeline.extraction.publish import check_images, publish, save_stat_index, whole_entry
from pipeline.extraction.shard import extract_shard, request_shard
from pipeline.extraction.together import align, share
from pipeline.launch.plan import Plan, check_disk, plan_of
from pipeline.launch.result import ExtractResult, result_of
from pipeline.progress import OnProgress, Progress
from pipeline.store.entry import Entry
from pipeline.store.key import SHORT
from pipeline.store.prune import mark_used

ROUNDS = 10
"""How often shards that vanish under a running extraction are made again before giving up."""


def run_jobs(
    jobs: list[Job],
    skip_bad: bool,
    command: str,
    on_plan: Callable[[Plan], None] | None,
    on_progress: OnProgress,
    started: float,
) -> list[ExtractResult]:
    """Find the finished entries of a pass and make the others, in this process. Return a result for each job.

    Args:
        jobs: one for each layer.
        skip_bad: whether unusable images are recorded and not refused.
        command: recorded in the manifest.
        on_plan: called with each job's plan, before any work; what it raises stops everything there.
        on_progress: called after every batch.
        started: when the clock of the results began, as `time.perf_counter` has it.

    Raises:
        DataError, CacheError: see `pipeline.errors`.
    """
    finished = [None if job.restart else _found(job) for job in jobs]
    todo = [job for job, found in zip(jobs, finished, strict=True) if found is None]
    if len(todo) > 1:
        align(todo)
    unpinned = [job for job in todo if job.work.pinned() is None]
    if unpinned and unpinned[0].wishes.engine == "auto":
        choose_engine(unpinned)
    plans = [plan_of(job, None if found is None else found[0]) for job, found in zip(jobs, finished, strict=True)]
    for plan in plans:
        if on_plan is not None:
            on_plan(plan)
    counts: dict[int, tuple[int, int]] = {}
    if todo:
        todo[0].backbone.check_image_size()
        check_disk(plans)
        if unpinned:
            fit_batch(unpinned)
        for job in todo:
            job.begin()
        for group in share(todo):
            counts |= dict(zip(map(id, group), _make_shards(group, on_progress), strict=True))
    results = []
    for job, found in zip(jobs, finished, strict=True):
        if found is not None:
            results.append(_hit(job, *found, skip_bad, started))
            continue
        made, more = _publish(job, skip_bad, command, on_progress)
        mark_used(made)
        computed = counts[id(job)][0] + more
        results.append(result_of(made, computed, max(0, made.rows - computed), started))
    return results


def _found(job: Job) -> tuple[Entry, list[tuple[str, str]]] | None:
    """Return the finished entry and its unusable images, (id, reason) each, read while it was there."""
    for left in reversed(range(ROUNDS)):
        entry = _finished(job)
        if entry is None:
            break
        try:
            return entry, [(item["id"], item["reason"]) for item in entry.skipped()]
        except CacheError:  # another process has removed or replaced it just now
            if not left:
                raise
    return None


def _finished(job: Job) -> Entry | None:
    """Return the finished and whole entry for the source as it is now, if all its digests are known."""
    if not job.known.all():
        return None
    entry = whole_entry(job.root, job.root / job.final_id(job.digests)[:SHORT])
    if entry is not None and job.wishes.engine not in ("auto", entry.manifest["recipe"]["engine"]):
        raise CacheError(
            f"cache entry {entry.id} was made by engine {entry.manifest['recipe']['engine']}, "
            f"you ask for {job.wishes.engine}",
            "Drop --engine to use it, or pass --restart to make it again.",
        )
    if entry is not None and not trust_entry(job, entry):
        job.replace_with_new_rows()
        return None
    return entry


def _hit(job: Job, entry: Entry, skipped: list[tuple[str, str]], skip_bad: bool, started: float) -> ExtractResult:
    check_images(skipped, int(entry.manifest["samples_listed"]), skip_bad=skip_bad)
    mark_used(entry)
    save_stat_index(job, job.work.each_record())  # a process killed after publishing leaves them, and the folder
    job.work.discard()
    return result_of(entry, 0, entry.rows, started)


def _make_shards(jobs: list[Job], on_progress: OnProgress) -> list[tuple[int, int]]:
    """Make every shard that is missing of jobs that share a pass. Return (rows computed, rows reused) of each."""
    missing = [job.missing() for job in jobs]
    tallies = [
        {"computed": 0, "reused": _rows(job, set(range(job.shards)).difference(numbers)), "skipped": 0}
        for job, numbers in zip(jobs, missing, strict=True)
    ]

    def report(tally: dict[str, int], computed: int, reused: int, skipped: int) -> None:
        tally["computed"] += computed
        tally["reused"] += reused
        tally["skipped"] += skipped
        total = {key: sum(one[key] for one in tallies) for key in tally}
        seconds = {key: sum(job.seconds[key] for job in jobs) for key in jobs[0].seconds}
        on_progress(
            Progress(
                sum(total.values()),
                len(jobs[0].listing) * len(jobs),
                **total,
                bottleneck=max(seconds, key=seconds.__getitem__),
            )
        )

    report(tallies[0], 0, 0, 0)
    numbers = sorted({number for numbers in missing for number in numbers})
    waiting = [[place for place, those in enumerate(missing) if number in those] for number in numbers]
    for at, number in enumerate(numbers):
        lead = jobs[waiting[at][0]]
        if lead.shared is not None:
            lead.shared.begin([jobs[place] for place in waiting[at]])
        request_shard(lead, number)
        if at + 1 < len(numbers) and jobs[waiting[at + 1][0]] is lead:
            request_shard(lead, numbers[at + 1])  # so that the workers stay busy in between
        for place in waiting[at]:
            extract_shard(jobs[place], number, partial(report, tallies[place]))
    return [(tally["computed"], tally["reused"]) for tally in tallies]


def _rows(job: Job, numbers: Iterable[int]) -> int:
    return sum(job.span(number).stop - job.span(number).start for number in numbers)


def _publish(job: Job, skip_bad: bool, command: str, on_progress: OnProgress) -> tuple[Entry, int]:
    """Publish the entry. Return it, and how many rows had to be computed (again) meanwhile."""
    job.backbone.check_frozen()
    computed = 0
    for _ in range(ROUNDS):
        entry = publish(job, skip_bad=skip_bad, command=command)
        if entry is not None:
            return entry, computed
        # Another process finished this entry and removed the folder, or a shard was damaged meanwhile.
        job.look_again()
        computed += _make_shards([job], on_progress)[0][0]
    raise CacheError(
        f"shards under {job.work.path} vanish as fast as they are made", "Is something deleting the cache?"
    )
