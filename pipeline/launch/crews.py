"""Who makes the shards of a pass: this process alone, this process as one of several workers, or a team."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from pipeline.extraction.choosing import choose_engine, fit_batch
from pipeline.extraction.job import Job
from pipeline.launch.cluster import Cluster
from pipeline.launch.dispatch import make_dispatched
from pipeline.launch.local import LocalTeam
from pipeline.launch.making import Maker
from pipeline.launch.on_ray import RayTeam
from pipeline.launch.request import Request
from pipeline.launch.share import ALONE, WORKER, Share
from pipeline.store.claims import PATIENCE_SECONDS, Claims
from pipeline.store.key import Recipe

POLL_SECONDS = (0.1, 2.0)
"""Between looks at what others have done while there is nothing else to do: at first, and at most."""
LOOK_SECONDS = 2.0
"""Between such looks while there is, for those who watch the bar."""


class Crew(Protocol):
    """Who makes shards."""

    @property
    def share(self) -> Share:
        """This process among the workers that publish the entry, whoever of them is the last."""

    @property
    def patience(self) -> float:
        """Seconds after which one of these that is silent is taken for lost."""

    @property
    def about(self) -> str:
        """Who it is, for people; empty for this process alone."""

    def choose(self, jobs: list[Job]) -> None:
        """Give jobs of one pass, none of them begun, the engine that suits; nothing is written."""

    def fit(self, jobs: list[Job]) -> None:
        """Give them the batch that fits, before they are begun."""

    def make(self, maker: Maker) -> None:
        """Have every shard made that is missing."""


class _Here:
    """Whose work is done on machines like this one."""

    def choose(self, jobs: list[Job]) -> None:
        """See `Crew`."""
        if jobs[0].wishes.engine == "auto":
            choose_engine(jobs)

    def fit(self, jobs: list[Job]) -> None:
        """See `Crew`."""
        fit_batch(jobs)


@dataclass(frozen=True)
class Alone(_Here):
    """This process."""

    share: Share = ALONE
    patience: float = PATIENCE_SECONDS
    about: str = ""

    def make(self, maker: Maker) -> None:
        """See `Crew`."""
        make_alone(maker)


@dataclass(frozen=True)
class Shared(_Here):
    """This process, as one of several workers that nobody leads."""

    share: Share
    patience: float = PATIENCE_SECONDS

    @property
    def about(self) -> str:
        """See `Crew`."""
        told = f", as {self.share.told_by} says" if self.share.told_by != WORKER else ""
        return f"this is {self.share.name}, counted from 0{told}"

    def make(self, maker: Maker) -> None:
        """See `Crew`."""
        make_shared(maker, self.share, self.patience)


@dataclass(frozen=True)
class OnDevices(_Here):
    """A process for each device of this machine, led by this one."""

    request: Request
    devices: tuple[str, ...]
    share: Share = ALONE
    patience: float = PATIENCE_SECONDS

    @property
    def about(self) -> str:
        """See `Crew`."""
        return f"{len(self.devices)} processes of this machine: {', '.join(self.devices)}"

    def make(self, maker: Maker) -> None:
        """See `Crew`."""
        with closing(LocalTeam(self.request, plans_of(maker.jobs), self.devices)) as team:
            make_dispatched(maker, team)


@dataclass
class OnRay:
    """Actors on a Ray cluster, led by this process. Ray is started when it is first needed."""

    request: Request
    address: str | None
    share: Share = ALONE
    patience: float = PATIENCE_SECONDS
    about: str = "actors on Ray"

    @cached_property
    def cluster(self) -> Cluster:
        """The connection."""
        return Cluster(self.request, self.address)

    def choose(self, jobs: list[Job]) -> None:
        """See `Crew`. The driver may have no GPU: engine and batch are chosen where the work will be done."""
        for job, found in zip(jobs, self.cluster.choose(plans_of(jobs)), strict=True):
            job.recipe = Recipe.from_json(found["recipe"])
            job.engine_why, job.images_per_second = found["why"], found["rate"]
            job.look_again()

    def fit(self, jobs: list[Job]) -> None:
        """See `Crew`; `choose` has done it."""

    def make(self, maker: Maker) -> None:
        """See `Crew`."""
        with closing(RayTeam(self.cluster, plans_of(maker.jobs), maker.jobs[0].recipe.device)) as team:
            make_dispatched(maker, team)

    def close(self) -> None:
        """Leave the cluster."""
        if "cluster" in self.__dict__:
            self.cluster.close()


def plans_of(jobs: Sequence[Job]) -> list[str]:
    """Return what names the work of each job."""
    return [job.work.plan for job in jobs]


def make_alone(maker: Maker) -> None:
    """Make every shard that is missing, in order."""
    numbers = maker.missing()
    for number, ahead in zip(numbers, [*numbers[1:], None], strict=False):
        maker.make(number, ahead)


def make_shared(maker: Maker, share: Share, patience: float) -> None:
    """Make this worker's share of the shards, then help with what others have left, until all are done.

    A shard that another worker is at is left to it while it lives, and waited for. Returns early if another worker
    has published the entry and removed the work.
    """
    with Claims(maker.jobs[0].work.path, patience=patience) as claims:
        queue = _Queue(maker, share, claims)
        maker.moved = queue.moved
        number = queue.ahead()
        while number is not None or (number := queue.other()) is not None:
            ahead = queue.ahead()
            maker.make_claimed(number, claims.held[str(number)], claims, ahead)
            claims.release(str(number))
            if not claims.folder.exists():  # taken for lost, and published without this one
                return
            number = ahead


class _Queue:
    """What is left to do, as one worker sees it. What it returns is claimed."""

    def __init__(self, maker: Maker, share: Share, claims: Claims) -> None:
        self.maker, self.share, self.claims = maker, share, claims
        self.left = set(maker.missing())
        self.mine = iter(share.begins_with(list(range(maker.shards))))
        self.looked = time.monotonic()

    def moved(self) -> None:
        """Tell that rows were done; look from time to time what others have done."""
        self.claims.moved()
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self._look()

    def ahead(self) -> int | None:
        """Return the shard to turn to next, if there is one to be had without waiting.

        Near the end nothing is set aside that others could begin at once.
        """
        mine = self.own()
        if mine is None and len(self.left) > self.share.count:
            self._look()
            return next(self._free(), None)
        return mine

    def own(self) -> int | None:
        """Return the next shard of this worker's own share that is free; None when there are no more."""
        return next((number for number in self.mine if number in self.left and self._take(number)), None)

    def other(self) -> int | None:
        """Return any shard that is free, once there is one; None when all are done."""
        wait = POLL_SECONDS[0]
        while True:
            self._look()
            if not self.left:
                return None
            found = next(self._free(), None)
            if found is not None:
                return found
            time.sleep(wait)
            self.claims.moved()
            wait = min(POLL_SECONDS[1], 2 * wait)

    def _free(self) -> Iterator[int]:
        order = self.share.helps_with(sorted(self.left), self.maker.shards)
        return (number for number in order if self._take(number))

    def _look(self) -> None:
        """See what others have committed since."""
        self.looked = time.monotonic()
        for number in sorted(self.left & _committed(self.maker)):
            if self.maker.is_made(number):
                self.left.discard(number)
                self.maker.made_elsewhere(number)

    def _take(self, number: int) -> bool:
        """Claim a shard; tell whether it is this worker's to make."""
        try:
            claim = self.claims.take(str(number))
        except FileNotFoundError:  # another worker has published the entry
            self.left.clear()
            return False
        if claim is None:
            return False
        self.left.discard(number)
        if self.maker.is_made(number):
            self.claims.release(str(number))
            self.maker.made_elsewhere(number)
            return False
        return True


def _committed(maker: Maker) -> set[int]:
    """Return the numbers that have a commit record, of every job, by their names alone."""
    found = [set(job.work.numbers()) for job in maker.jobs]
    return set.intersection(*found)
