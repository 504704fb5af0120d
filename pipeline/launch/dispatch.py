"""A driver's side of an extraction with several workers: who makes which shard, and what if one of them dies."""

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.errors import PipelineError
from pipeline.launch.making import Maker

logger = logging.getLogger(__name__)

MAX_LOSSES = 40
"""Workers lost without a shard being made in between, before it is given up. Finding one image in a batch of 64 that
kills every worker takes ten."""
MAX_FAILED_STARTS = 3
"""In a row and without a worker that runs, before it is taken for a fault of the installation."""
TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Ready:
    """A worker has opened everything and waits."""

    member: str
    token: str
    """What tells its claims from those of others."""


@dataclass(frozen=True)
class Made:
    """A worker has made the shard it was told to."""

    member: str
    counts: Sequence[dict[str, int]]
    """Fields of a Tally for each job."""


@dataclass(frozen=True)
class Lost:
    """A worker has died."""

    member: str
    why: str


Event = Ready | Made | Lost


class Team(Protocol):
    """Workers, wherever they are; a lost one is replaced by the team itself as long as it is asked for events."""

    def send(self, member: str, number: int, ahead: int | None, lost: Sequence[str]) -> None:
        """Tell an idle worker to make a shard, which one it gets next, and whose claims are those of the dead."""

    def events(self, seconds: float) -> list[Event]:
        """Return what happened, after waiting at most so long for something to happen.

        Raises:
            PipelineError: what a worker has raised, of the same kind.
        """

    def close(self) -> None:
        """End all workers."""


@dataclass
class _Worker:
    token: str
    at: int | None = None
    """The shard being made."""
    next: int | None = None
    """The one whose images its loading processes read meanwhile."""


@dataclass
class _State:
    todo: deque[int]
    workers: dict[str, _Worker] = field(default_factory=dict)
    losses: int = 0
    failed_starts: int = 0
    lost: list[str] = field(default_factory=list)
    """Tokens of workers that have died."""
    shards: Counter[int] = field(default_factory=Counter)
    """Workers lost while they made a shard."""


def make_dispatched(maker: Maker, team: Team) -> None:
    """Have a team make every shard that is missing.

    Raises:
        PipelineError: if workers do not start, or die again and again without a shard being made.
    """
    state = _State(deque(maker.missing()))
    while state.todo or any(worker.at is not None for worker in state.workers.values()):
        for event in team.events(TICK_SECONDS):
            _take_note(event, state, maker)
        for name, worker in state.workers.items():
            if worker.at is None and (state.todo or worker.next is not None):
                _give_work(name, worker, state, team)


def _give_work(name: str, worker: _Worker, state: _State, team: Team) -> None:
    worker.at = worker.next if worker.next is not None else state.todo.popleft()
    # Near the end nothing is set aside for a worker that is busy: another may be idle.
    worker.next = state.todo.popleft() if len(state.todo) >= len(state.workers) else None
    team.send(name, worker.at, worker.next, state.lost)


def _take_note(event: Event, state: _State, maker: Maker) -> None:
    if isinstance(event, Ready):
        state.workers[event.member] = _Worker(event.token)
        state.failed_starts = 0
    elif isinstance(event, Made):
        worker = state.workers[event.member]
        assert worker.at is not None
        number, worker.at = worker.at, None
        if not maker.is_made(number):  # its folder was removed meanwhile
            state.todo.append(number)
        maker.made(event.counts)
        state.losses = 0
    else:
        _lose(event, state)


def _lose(event: Lost, state: _State) -> None:
    worker = state.workers.pop(event.member, None)
    if worker is None:
        if state.workers:
            logger.warning("%s did not start (%s); the others go on", event.member, event.why)
            return
        state.failed_starts += 1
        if state.failed_starts >= MAX_FAILED_STARTS:
            raise PipelineError(
                f"workers do not start; the last said: {event.why}", "`pipeline doctor` checks the installation."
            )
        return
    state.lost.append(worker.token)
    state.todo.extendleft(number for number in (worker.next, worker.at) if number is not None)
    state.losses += 1
    if worker.at is not None:
        state.shards[worker.at] += 1
    doing = "" if worker.at is None else f" while it made shard {worker.at}"
    logger.warning("%s was lost%s (%s); another goes on", event.member, doing, event.why)
    if state.losses >= MAX_LOSSES:
        often = f"shard {max(state.shards, key=state.shards.__getitem__)} most often" if state.shards else "at once"
        raise PipelineError(
            f"{state.losses} workers were lost one after another, {often}; the last: {event.why}",
            "What is made already is kept. Is there enough memory? The same command goes on.",
        )
