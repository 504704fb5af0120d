"""Who makes the shards of a pass: this process alone, this process as one of several workers, or a team."""

from collections.abc import Sequence
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
from pipeline.launch.sharing import make_shared
from pipeline.store.claims import PATIENCE_SECONDS
from pipeline.store.key import Recipe


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
        processes = "1 process" if len(self.devices) == 1 else f"{len(self.devices)} processes"
        return f"{processes} of this machine: {', '.join(self.devices)}"

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
