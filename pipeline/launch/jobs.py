"""The jobs of an extraction, from plan to entry: find what is there, have the missing shards made, publish."""

import time
from collections.abc import Callable

from pipeline.errors import CacheError
from pipeline.extraction.compat import trust_entry
from pipeline.extraction.job import Job
from pipeline.extraction.publish import check_images, publish, published_entry, save_stat_index, whole_entry
from pipeline.extraction.together import align, share
from pipeline.launch.crews import POLL_SECONDS, Crew, make_alone
from pipeline.launch.making import Maker, Tally
from pipeline.launch.plan import Plan, check_disk, plan_of
from pipeline.launch.result import ExtractResult, result_of
from pipeline.progress import OnProgress, parts_of
from pipeline.store.claims import CLAIMS, Claims
from pipeline.store.entry import Entry
from pipeline.store.key import SHORT
from pipeline.store.prune import mark_used

ROUNDS = 10
"""How often shards that vanish under a running extraction are made again before giving up."""
ENTRY = "entry"
"""The claim of whoever publishes."""


def run_jobs(
    jobs: list[Job],
    crew: Crew,
    skip_bad: bool,
    command: str,
    on_plan: Callable[[Plan], None] | None,
    on_progress: OnProgress,
    started: float,
) -> list[ExtractResult]:
    """Find the finished entries of a pass and make the others. Return a result for each job.

    Args:
        jobs: one for each layer of each view.
        crew: who makes shards.
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
    if unpinned:
        crew.choose(unpinned)
    plans = [plan_of(job, None if found is None else found[0]) for job, found in zip(jobs, finished, strict=True)]
    for plan in plans:
        if on_plan is not None:
            on_plan(plan)
    tallies: dict[int, Tally] = {}
    if todo:
        todo[0].backbone.check_image_size()
        check_disk(plans)
        if unpinned:
            crew.fit(unpinned)
        for job in todo:
            job.begin()
        groups = share(todo)
        told = parts_of(on_progress, [len(group[0].listing) * len(group) for group in groups])
        for group, on_part in zip(groups, told, strict=True):
            maker = Maker(group, on_part)
            crew.make(maker)
            tallies |= dict(zip(map(id, group), maker.tallies, strict=True))
    results = []
    for job, found in zip(jobs, finished, strict=True):
        if found is not None:
            results.append(_hit(job, *found, skip_bad, started))
            continue
        made, more = _publish(job, crew.patience, skip_bad, command, on_progress)
        mark_used(made)
        computed = tallies[id(job)].computed + more
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
    save_stat_index(job, job.work.records())  # a process killed after publishing leaves them, and the folder
    job.work.discard()
    return result_of(entry, 0, entry.rows, started)


def _publish(
    job: Job, patience: float | None, skip_bad: bool, command: str, on_progress: OnProgress
) -> tuple[Entry, int]:
    """Publish the entry. Return it, and how many rows had to be computed (again) meanwhile.

    `patience` is how long a silent worker is waited for where others may publish the same; None where none do.
    """
    job.backbone.check_frozen()
    if patience is None:
        return _publish_here(job, skip_bad, command, on_progress)
    with Claims(job.work.path, patience=patience) as claims:
        while (job.work.path / CLAIMS).exists():
            try:
                if claims.take(ENTRY) is not None:
                    return _publish_here(job, skip_bad, command, on_progress)
            except FileNotFoundError:
                break
            time.sleep(POLL_SECONDS[0])
    entry = published_entry(job)
    if entry is None:  # under the name of other work, with the same content
        return _publish_here(job, skip_bad, command, on_progress)
    check_images([(item["id"], item["reason"]) for item in entry.skipped()], len(job.listing), skip_bad=skip_bad)
    job.work.discard()  # what this process may have committed since
    return entry, 0


def _publish_here(job: Job, skip_bad: bool, command: str, on_progress: OnProgress) -> tuple[Entry, int]:
    computed = 0
    for _ in range(ROUNDS):
        entry = publish(job, skip_bad=skip_bad, command=command)
        if entry is not None:
            return entry, computed
        # Another process finished this entry and removed the folder, or a shard was damaged meanwhile.
        job.look_again()
        maker = Maker([job], on_progress)
        make_alone(maker)
        computed += maker.tallies[0].computed
    raise CacheError(
        f"shards under {job.work.path} vanish as fast as they are made", "Is something deleting the cache?"
    )
