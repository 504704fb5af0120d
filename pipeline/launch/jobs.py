"""The jobs of an extraction, from plan to entry: find what is there, have the missing shards made, publish."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from pipeline.errors import CacheError
from pipeline.extraction.compat import trust_entry
from pipeline.extraction.job import Job
from pipeline.extraction.prepare import look_at_files_again
from pipeline.extraction.publish import (
    check_images,
    publish,
    published_entry,
    refuse_images,
    save_stat_index,
    whole_entry,
)
from pipeline.extraction.together import align, share
from pipeline.launch.crews import Crew
from pipeline.launch.making import Maker, Tally
from pipeline.launch.plan import Plan, check_disk, check_shards, plan_of
from pipeline.launch.queue import POLL_SECONDS
from pipeline.launch.result import ExtractResult, result_of
from pipeline.progress import OnProgress, parts_of
from pipeline.store.catalog import entry_stamps, mark_extracted
from pipeline.store.claims import Claims
from pipeline.store.entry import Entry
from pipeline.store.key import SHORT

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
    plans = [
        replace(
            plan_of(job, None if found is None else found[0]),
            worker=crew.share.to_json(),
            made_by=crew.about,
        )
        for job, found in zip(jobs, finished, strict=True)
    ]
    for plan in plans:
        if on_plan is not None:
            on_plan(plan)
    tallies: dict[int, Tally] = {}
    if todo:
        todo[0].backbone.check_image_size()
        check_shards(todo)
        check_disk(plans)
        if unpinned:
            crew.fit(unpinned)
        for job in todo:
            job.begin()
        if entry_stamps(jobs[0].root) != jobs[0].entries_seen:  # others may have finished since
            finished = [found or _found_since(job) for job, found in zip(jobs, finished, strict=True)]
            todo = [job for job, found in zip(jobs, finished, strict=True) if found is None]
        tallies = _make(todo, crew, on_progress)
    results = []
    for job, found in zip(jobs, finished, strict=True):
        if found is not None:
            results.append(_hit(job, *found, skip_bad, started, crew))
            continue
        tally = tallies[id(job)]
        made = _publish(job, tally, crew, skip_bad, command, on_progress)
        mark_extracted(made)
        results.append(result_of(made, tally, crew.share, started))
    return results


def _make(todo: list[Job], crew: Crew, on_progress: OnProgress) -> dict[int, Tally]:
    """Have the shards of all jobs made, pass by pass; return what came of each job, by its identity."""
    tallies: dict[int, Tally] = {}
    groups = share(todo)
    told = parts_of(on_progress, [len(group[0].listing) * len(group) for group in groups])
    for group, on_part in zip(groups, told, strict=True):
        maker = Maker(group, on_part)
        crew.make(maker)
        tallies |= dict(zip(map(id, group), maker.tallies, strict=True))
        for job in group:
            job.close()  # the loading processes of another view are others
    return tallies


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


def _found_since(job: Job) -> tuple[Entry, list[tuple[str, str]]] | None:
    """Return what `_found` does, by what is remembered of the files by now."""
    if job.restart:
        return None
    look_at_files_again(job)
    return _found(job)


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


def _hit(
    job: Job, entry: Entry, skipped: list[tuple[str, str]], skip_bad: bool, started: float, crew: Crew
) -> ExtractResult:
    check_images(skipped, int(entry.manifest["samples_listed"]), skip_bad=skip_bad)
    mark_extracted(entry)
    save_stat_index(job, job.work.each_record())  # a process killed after publishing leaves them, and the folder
    job.work.discard()
    return result_of(entry, Tally(reused=entry.rows), crew.share, started)


def _publish(job: Job, tally: Tally, crew: Crew, skip_bad: bool, command: str, on_progress: OnProgress) -> Entry:
    """Publish the entry, or return it if another process has. Rows that had to be made meanwhile are counted."""
    job.backbone.check_frozen()
    for _ in range(ROUNDS):
        entry = _published(job, crew, skip_bad, command)
        if entry is not None:
            return entry
        # Another process has removed the folder, or a shard was damaged meanwhile.
        job.look_again()
        if job.work.pinned() is None:
            job.begin()
        maker = Maker([job], on_progress)
        crew.make(maker)
        tally.computed += maker.tallies[0].computed
    raise CacheError(
        f"shards under {job.work.path} vanish as fast as they are made", "Is something deleting the cache?"
    )


def _published(job: Job, crew: Crew, skip_bad: bool, command: str) -> Entry | None:
    """Publish the entry, or wait for the worker that does. Return None if shards are missing after all."""
    entry = None
    if crew.share.count == 1:
        entry = publish(job, skip_bad=skip_bad, command=command)
    else:
        with Claims(job.work.path, patience=crew.patience, hang=math.inf) as claims:
            if _has_turn(claims):
                refuse_images(job, skip_bad=skip_bad)  # of those that come to it one after the other, none reads shards
                entry = publish(job, skip_bad=skip_bad, command=command)
    if entry is not None:
        return entry
    entry = published_entry(job)
    if entry is None and not job.restart:
        look_at_files_again(job)
        entry = published_entry(job)
    if entry is not None:
        check_images([(item["id"], item["reason"]) for item in entry.skipped()], len(job.listing), skip_bad=skip_bad)
        job.work.discard()  # what this process may have committed since
    return entry


def _has_turn(claims: Claims) -> bool:
    """Wait until nobody else is publishing; tell whether it is still to be done."""
    wait = POLL_SECONDS[0]
    try:
        while claims.take(ENTRY) is None:
            time.sleep(wait)
            wait = min(POLL_SECONDS[1], 2 * wait)
    except FileNotFoundError:  # another has, and removed the work
        return False
    return True
