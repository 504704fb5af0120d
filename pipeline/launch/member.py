"""A worker that a driver tells which shard to make next: a process of this machine, or an actor of Ray's."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from pipeline.errors import CacheError
from pipeline.extraction.choosing import choose_engine, fit_batch
from pipeline.extraction.job import Job
from pipeline.extraction.together import align, share
from pipeline.launch.making import Maker, Tally
from pipeline.launch.request import Request, open_jobs
from pipeline.launch.share import Share
from pipeline.store.claims import Claims


def scout(request: Mapping[str, Any], plans: Sequence[str], place: Share) -> list[dict[str, Any]]:
    """Return for each job of a pass that is not begun the recipe that suits this machine, and why.

    The arguments are those of `Member`.
    """
    jobs = _jobs(request, plans, place)
    if jobs[0].wishes.engine == "auto":
        choose_engine(jobs)
    fit_batch(jobs)
    return [{"recipe": job.recipe.to_json(), "why": job.engine_why, "rate": job.images_per_second} for job in jobs]


def _jobs(request: Mapping[str, Any], plans: Sequence[str], place: Share) -> list[Job]:
    opened = open_jobs(Request.from_json(request), place, join=True)
    jobs = [job for job in opened if job.work.plan in plans]
    if len(jobs) != len(plans):
        raise CacheError(
            "a worker lists other samples than the driver, or opens another network",
            "Source, weights and cache must lie under the same paths on every machine, and hold the same.",
        )
    if len(jobs) > 1:
        align(jobs)
    return jobs


class Member:
    """Opens what the driver has opened, and makes the shards it is told."""

    def __init__(self, request: Mapping[str, Any], plans: Sequence[str], place: Share) -> None:
        """Prepare the jobs of a pass.

        Args:
            request: `Request.to_json`'s fields.
            plans: what names the work of each job of the pass, which the driver has begun.
            place: this worker among those of its machine.

        Raises:
            CacheError: if the source lists other samples here than where the driver is.
        """
        self._stack = ExitStack()
        jobs = _jobs(request, plans, place)
        for job in jobs:
            self._stack.callback(job.close)
            job.begin()
        share(jobs)
        self.maker = Maker(jobs)
        self.claims = self._stack.enter_context(Claims(jobs[0].work.path))
        self.maker.moved = self.claims.moved

    @property
    def token(self) -> str:
        """What tells its claims from those of others."""
        return self.claims.holder.token

    def make(self, number: int, ahead: int | None, lost: Sequence[str]) -> list[dict[str, int]]:
        """Make shard `number`; return a tally for each job. `lost` are the tokens of members that have died."""
        self.maker.tallies = [Tally() for _ in self.maker.jobs]
        self.maker.make_led(number, self.claims, lost, ahead)
        return [asdict(tally) for tally in self.maker.tallies]

    def close(self) -> None:
        """Stop the loading processes."""
        self._stack.close()
