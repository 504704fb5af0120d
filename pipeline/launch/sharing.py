"""One of several workers that nobody leads: it makes what its queue says, and waits for others if that is nothing."""

import time

from pipeline.launch.making import Maker
from pipeline.launch.queue import POLL_SECONDS, Queue
from pipeline.launch.share import Share
from pipeline.store.claims import Claims


def make_shared(maker: Maker, share: Share, patience: float) -> None:
    """Make this worker's share of the shards, then help with what others have left, until all are done.

    A shard that another worker is at is left to it while it lives, and waited for. Returns early if another worker
    has published the entry and removed the work.
    """
    with Claims(maker.jobs[0].work.path, patience=patience) as claims:
        queue = Queue(maker, share, claims)

        def moved() -> None:
            claims.moved()
            queue.look_now_and_then()

        maker.moved = moved
        number = queue.ahead()
        while number is not None or (number := _other(queue, claims)) is not None:
            ahead = queue.ahead()
            maker.make_claimed(number, claims.held[str(number)], claims, ahead)
            claims.release(str(number))
            if not claims.folder.exists():  # taken for lost, and published without this one
                return
            number = ahead


def _other(queue: Queue, claims: Claims) -> int | None:
    """Return any shard that is free, once there is one; None when all are done."""
    while (found := queue.any()) is None and not queue.over:
        until = time.monotonic() + queue.pause()
        while (left := until - time.monotonic()) > 0 and claims.folder.exists():
            time.sleep(min(left, POLL_SECONDS[1]))
            claims.moved()
    return found
