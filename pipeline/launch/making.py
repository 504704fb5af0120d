"""Making shards of one pass, a number at a time, and the count of what came of it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.extraction.careful import PATIENT_DEATHS, Trial
from pipeline.extraction.job import Job
from pipeline.extraction.shard import drop_request, extract_shard, request_shard
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.store.claims import Claim, Claims
from pipeline.store.work import Mark


@dataclass
class Tally:
    """Rows of one job."""

    computed: int = 0
    reused: int = 0
    skipped: int = 0
    elsewhere: int = 0
    """Made by other workers while this one was at it."""


class Maker:
    """Makes shards of jobs that share a pass, in whatever order it is told to."""

    def __init__(self, jobs: list[Job], on_progress: OnProgress = ignore) -> None:
        self.jobs = jobs
        self.tallies = [Tally() for _ in jobs]
        self.on_progress = on_progress
        self._before: list[dict[int, Mark | None]] = []
        """The commit records of shards that were missing, as they were when they were looked for."""
        self._left: set[int] = set()
        """Numbers that nobody has committed since, as far as is known."""
        self._stale: set[int] = set()
        """Those of them that had a record before, which says nothing."""
        self.moved: Callable[[], None] = lambda: None
        """Called as rows are done."""

    @property
    def shards(self) -> int:
        """How many shards each job has."""
        return self.jobs[0].shards

    def missing(self) -> list[int]:
        """Return the numbers that are not done, or not up to date, of any job; the others' rows count as reused."""
        self._before = [_marks(job) for job in self.jobs]
        for job, tally, before in zip(self.jobs, self.tallies, self._before, strict=True):
            tally.reused += rows_of(job, set(range(job.shards)).difference(before))
        self.report()
        self._left = set().union(*self._before)
        self._stale = {number for before in self._before for number, mark in before.items() if mark is not None}
        return sorted(self._left)

    def is_made(self, number: int) -> bool:
        """Tell whether all that was missing of shard `number` has been committed since, by whoever it was.

        What other workers of the same extraction have read a moment ago is not read again to see whether it is still
        so, as what lay there before is.
        """
        pairs = zip(self.jobs, self._before, strict=True)
        return all(job.work.mark(number) not in (None, before[number]) for job, before in pairs if number in before)

    def make(self, number: int, ahead: int | None = None) -> None:
        """Make shard `number` of every job it is missing of; ask the loader for those of `ahead` already."""
        waiting = self._waiting(number)
        self._drop_requests(number, too=not waiting)
        if not waiting:
            self.made_elsewhere(number)
            return
        self._left.discard(number)
        lead = self.jobs[waiting[0]]
        if lead.shared is not None:
            lead.shared.begin([self.jobs[place] for place in waiting])
        request_shard(lead, number)
        if ahead is not None and self._waiting(ahead)[:1] == waiting[:1]:
            request_shard(lead, ahead)  # so that the loading processes stay busy in between
        for place in waiting:
            extract_shard(self.jobs[place], number, partial(self._count, self.tallies[place]))

    def _drop_requests(self, number: int, *, too: bool) -> None:
        """Take from the loader what was asked of it before shard `number` and is not made now; with `too` of that too.

        Another process has committed it, or the order in which shards are made has changed.
        """
        for job in self.jobs:
            for asked in list(job.requested):
                if asked != number or too:
                    drop_request(job, asked)
                if asked == number:
                    break

    def _waiting(self, number: int) -> list[int]:
        """Return the places of the jobs that shard `number` is missing of."""
        return [place for place, job in enumerate(self.jobs) if job.committed(number) is None]

    def make_claimed(self, number: int, claim: Claim, claims: Claims, ahead: int | None = None) -> None:
        """Make shard `number`, whose claim is held; carefully, if it has cost several workers."""
        trial = None
        if claim.deaths >= PATIENT_DEATHS:
            write_down = partial(_write_down, claims, str(number))
            trial = Trial(frozenset(claim.trying), claim.strikes or {}, write_down)
        for job in self.jobs:
            job.trial = trial
        try:
            self.make(number, ahead)
        finally:
            for job in self.jobs:
                job.trial = None

    def make_led(self, number: int, claims: Claims, lost: Collection[str], ahead: int | None = None) -> None:
        """Make shard `number` because a driver says so, whoever is at it; `lost` are holders that it knows to be dead.

        Where another worker that lives has the claim, led by another driver or by none, both make the shard.
        """
        claim = claims.take(str(number), lost=lost)
        if claim is None:
            self.make(number, ahead)
            return
        self.make_claimed(number, claim, claims, ahead)
        claims.release(str(number))

    def look(self) -> None:
        """See which numbers have been committed since, by whoever it was; the names of records say so, most times."""
        there = set.intersection(*(set(job.work.numbers()) for job in self.jobs))
        for number in sorted(self._left & there):
            if number not in self._stale or self.is_made(number):
                self._count_elsewhere(number)
        self.report()

    def left(self) -> np.ndarray:
        """Return the numbers (n,) int64 that were missing when it was looked last, in order."""
        return np.array(sorted(self._left), np.int64)

    def remaining(self) -> int:
        """Return how many those are."""
        return len(self._left)

    def made_elsewhere(self, number: int) -> None:
        """Count a shard that another worker made."""
        self._count_elsewhere(number)
        self.report()

    def _count_elsewhere(self, number: int) -> None:
        if number in self._left:
            self._left.discard(number)
            for job, tally in zip(self.jobs, self.tallies, strict=True):
                tally.elsewhere += rows_of(job, [number])

    def made(self, counts: Sequence[Mapping[str, int]]) -> None:
        """Add what a worker that this process leads says of a shard it has made, for each job."""
        for tally, count in zip(self.tallies, counts, strict=True):
            for name, value in count.items():
                setattr(tally, name, getattr(tally, name) + value)
        self.report()

    def report(self) -> None:
        """Tell how far it is, over all jobs."""
        counts = [vars(tally) for tally in self.tallies]
        total = {name: sum(count[name] for count in counts) for name in counts[0]}
        seconds = {key: sum(job.seconds[key] for job in self.jobs) for key in self.jobs[0].seconds}
        self.on_progress(
            Progress(
                sum(total.values()),
                len(self.jobs[0].listing) * len(self.jobs),
                **total,
                bottleneck=max(seconds, key=seconds.__getitem__) if any(seconds.values()) else "",
            )
        )

    def _count(self, tally: Tally, computed: int, reused: int, skipped: int) -> None:
        tally.computed += computed
        tally.reused += reused
        tally.skipped += skipped
        self.moved()
        self.report()


def _marks(job: Job) -> dict[int, Mark | None]:
    """Return what is missing of a job, each with its commit record's mark if there is one; listed once for all."""
    there = set(job.work.numbers())
    return {number: job.work.mark(number) if number in there else None for number in job.missing()}


def _write_down(claims: Claims, name: str, rows: Iterable[int]) -> None:
    claims.update(name, trying=tuple(rows))


def rows_of(job: Job, numbers: Iterable[int]) -> int:
    """Return how many rows some shards have."""
    return sum(job.span(number).stop - job.span(number).start for number in numbers)
