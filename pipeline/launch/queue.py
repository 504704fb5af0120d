"""What a worker turns to next where several share an extraction and nobody leads them. Nothing here sleeps.

A shared folder has one server. What each of N workers asks of it for every one of S shards it is asked N x S times,
which is what ended growth first (docs/SCALING.md): so all workers together list the folder no oftener than one after
another would, and one that has nothing left tries what it does not know to be done before it lists.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sized
from itertools import chain, islice
from typing import Protocol

import numpy as np

from pipeline.launch.share import Share

LOOK_SECONDS = 2.0
"""Between looks at what others have done, while a worker has work: for those who watch its bar."""
SPARE = 20
"""How many times as long as a look takes all workers together leave the folder alone until the next."""
NAME_SECONDS = 1e-6
"""What listing a name is taken to cost before it was measured."""
TRIES, WATCHED = 16, 8
"""Shards that a worker without work tries before it waits; claims of others that it tries each time."""
POLL_SECONDS = (0.1, 2.0, 30.0)
"""Between tries: at first, at most among few workers, and at most."""


class Work(Protocol):
    """The shards of an extraction as one worker knows of them: `launch.making.Maker`, or a simulated one."""

    @property
    def shards(self) -> int:
        """How many there are."""

    def missing(self) -> list[int]:
        """Return the numbers that are not done, in order; before anything else is asked."""

    def look(self) -> None:
        """See which numbers have been committed since, by listing their records."""

    def left(self) -> np.ndarray:
        """Return the numbers (n,) int64 that were missing when it was looked last, in order."""

    def remaining(self) -> int:
        """Return how many those are."""

    def is_made(self, number: int) -> bool:
        """Tell whether a shard that was missing has been committed since."""

    def made_elsewhere(self, number: int) -> None:
        """Count a shard that another worker made."""


class Board(Protocol):
    """Who is at which shard: `store.claims.Claims`, or a simulated one."""

    @property
    def held(self) -> Sized:
        """What this worker holds."""

    def take(self, name: str) -> object | None:
        """Claim a shard; None while another holds it and lives.

        Raises:
            FileNotFoundError: if the entry is published and the work removed.
        """

    def release(self, name: str) -> None:
        """Give a claim up."""


class Queue:
    """What is left to do, as one worker sees it. What it returns is claimed."""

    def __init__(self, work: Work, share: Share, board: Board, clock: Callable[[], float] = time.monotonic) -> None:
        self.work, self.share, self.board, self.clock = work, share, board, clock
        missing, run = work.missing(), share.begins_with(range(work.shards))
        self._own = iter(missing[bisect_left(missing, run.start) : bisect_left(missing, run.stop)])
        self._others, self._through = self._order(), False
        self._watched: dict[int, None] = {}
        """Others' claims: a lost one is told by two looks at it (see `store.claims`). In the order they were met."""
        self._taken: set[int] = set()
        self._gone = False
        """Whether another worker has published the entry."""
        self._look_takes = work.shards * NAME_SECONDS
        self._try_takes = 0.0
        self._poll = POLL_SECONDS[0]
        # As if all workers had looked one after another, this one not yet.
        self._looked = clock() - SPARE * self._look_takes * (share.count - 1 - share.index)

    @property
    def over(self) -> bool:
        """Whether nothing is left, as far as is known."""
        return self._gone or not self.work.remaining()

    def ahead(self) -> int | None:
        """Return the shard to turn to next, if there is one to be had without waiting.

        Near the end nothing is set aside that others could begin at once: they would wait for it.
        """
        return self.any() if self.work.remaining() - len(self.board.held) > self.share.count else None

    def any(self) -> int | None:
        """Return a shard that is free now, of its own share first; None if none was found, or all are done."""
        mine = next((number for number in self._own if self._take(number)), None)
        return self.other() if mine is None else mine

    def other(self) -> int | None:
        """Return a shard of another's share that is free now; None if none was found, or all are done."""
        began = self.clock()
        if began - self._looked >= SPARE * self._look_takes * self.share.count:
            self.look()
        if self._through:  # what was another's may be free by now
            self._others = self._order()
        order = chain(tuple(self._watched), islice(self._others, TRIES))
        found = next((number for number in order if self._take(number)), None)
        self._try_takes = self.clock() - began
        if found is not None:
            self._poll = POLL_SECONDS[0]
        return found

    def pause(self) -> float:
        """Return the seconds to wait after `other` found nothing: the longer the more workers may be waiting."""
        wait, self._poll = self._poll, min(POLL_SECONDS[1], 2 * self._poll)
        return min(POLL_SECONDS[2], max(wait, self._try_takes * self.share.count))

    def look_now_and_then(self) -> None:
        """See what others have done if that was long ago."""
        if self.clock() - self._looked > max(LOOK_SECONDS, SPARE * self._look_takes * self.share.count):
            self.look()

    def look(self) -> None:
        """See what others have committed since."""
        began = self.clock()
        self.work.look()
        self._looked = self.clock()
        self._look_takes = self._looked - began
        self._others = self._order()

    def _order(self) -> Iterator[int]:
        """Yield what others may have left, in the order in which to try it."""
        self._through = False
        yield from self.share.helps_with(self.work.left(), self.work.shards)
        self._through = True

    def _take(self, number: int) -> bool:
        """Claim a shard; tell whether it is this worker's to make."""
        if self._gone or number in self._taken:
            return False
        if self.work.is_made(number):
            self.work.made_elsewhere(number)
            self._watched.pop(number, None)
            return False
        try:
            if self.board.take(str(number)) is None:
                if len(self._watched) < WATCHED:
                    self._watched[number] = None
                return False
        except FileNotFoundError:
            self._gone = True
            return False
        if self.work.is_made(number):  # between the two
            self.board.release(str(number))
            self.work.made_elsewhere(number)
            return False
        self._taken.add(number)
        self._watched.pop(number, None)
        return True
