"""One of several workers that nobody leads: which shard it makes next, told by commit records and claims alone."""

import time
from collections.abc import Iterator

from pipeline.launch.making import Maker
from pipeline.launch.share import Share
from pipeline.store.claims import Claims

POLL_SECONDS = (0.1, 2.0)
"""Between looks at what others have done while there is nothing else to do: at first, and at most."""
LOOK_SECONDS = 2.0
"""Between such looks while there is, for those who watch the bar."""


def make_shared(maker: Maker, share: Share, patience: float) -> None:
    """Make this worker's share of the shards, then help with what others have left, until all are done.

    A shard that another worker is at is left to it while it lives, and waited for. Returns early if another worker
    has published the entry and removed the work.
    """
    with Claims(maker.jobs[0].work.path, patience=patience) as claims:
        queue = Queue(maker, share, claims)
        maker.moved = queue.moved
        number = queue.ahead()
        while number is not None or (number := queue.other()) is not None:
            ahead = queue.ahead()
            maker.make_claimed(number, claims.held[str(number)], claims, ahead)
            claims.release(str(number))
            if not claims.folder.exists():  # taken for lost, and published without this one
                return
            number = ahead


class Queue:
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

        Near the end nothing is set aside that others could begin at once: they would wait for it.
        """
        if len(self.left) <= self.share.count:
            return None
        mine = self.own()
        if mine is not None:
            return mine
        self._look()
        return next(self._free(), None) if len(self.left) > self.share.count else None

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
