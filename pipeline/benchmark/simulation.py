"""Thousands of workers on a simulated clock, each asking the real `launch.queue.Queue` what to turn to next.

Real are the shares, the queue and the order in which workers help each other. Simulated are the folder (claims and
commit records in memory, each question to the server costs time), the network (a shard takes its rows over the
worker's speed), deaths and late starts. A step of a worker is asked of the queue at once, and then paid for, a slice
of it at a time, so that workers take turns at the server.
"""

import heapq
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from pipeline.benchmark.storage import NFS, Server, Storage
from pipeline.launch.queue import LOOK_SECONDS, POLL_SECONDS, Queue
from pipeline.launch.share import Share
from pipeline.store.claims import BEATS, PATIENCE_SECONDS

SLICE = 200
"""Questions that a worker asks before others have a turn."""
FEW = 2_000
"""Numbers up to which a worker's list of what is left is kept free of what it knows of; else it tries them."""


@dataclass(frozen=True)
class Operations:
    """Questions to the server, and how many of them end in fsync, as `strace` counts them (docs/SCALING.md)."""

    read: int = 4
    """Of a shard that is there, and its record, when a worker starts."""
    claim: tuple[int, int] = (9, 2)
    refused: int = 2
    """A claim that another holds."""
    commit: tuple[int, int] = (29, 9)
    release: int = 3
    beat: int = 3
    look: int = 1
    """And the names of the records."""


COSTS = Operations()


@dataclass(frozen=True)
class Fleet:
    """Workers and what they do."""

    workers: int
    images: int
    shard_rows: int = 2048
    speed: float = 2500.0
    """Images a second of the middle worker."""
    spread: float = 0.1
    """Standard deviation of the logarithm of speeds."""
    startup: float = 20.0
    """Seconds until a worker asks for its first shard; each takes up to half as long again."""
    late: float = 0.01
    """Share of workers that start late, by up to half of the time that all would need."""
    dying: float = 0.01
    """Share of workers that die within the time that all would need."""
    storage: Storage = NFS
    seed: int = 0

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.images // self.shard_rows)

    @property
    def ideal(self) -> float:
        """Seconds that so many workers need at the middle speed for the images alone."""
        return self.images / (self.workers * self.speed)


@dataclass
class Outcome:
    """What came of it."""

    made: float = 0.0
    """When the last shard was committed, in seconds."""
    nearly: float = 0.0
    """When 99 of 100 were."""
    computed: int = 0
    """Shards computed, those that were computed twice included."""
    server: Server = field(default_factory=lambda: Server(NFS))


Step = Generator[float, None, None]


class Simulation:
    """A folder in memory, a clock, and workers."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.now = 0.0
        self.done: set[int] = set()
        self._missing = np.arange(fleet.shards)
        """As it was when it was asked for last; all who ask meanwhile are given the same."""
        self.claims: dict[int, _Worker] = {}
        self.outcome = Outcome(server=Server(fleet.storage))

    def run(self) -> Outcome:
        """Run until every shard is committed.

        Raises:
            RuntimeError: if all workers have died.
        """
        workers = self._workers()
        order = count()
        events = [(worker.starts, next(order), worker, worker.work()) for worker in workers]
        heapq.heapify(events)
        while len(self.done) < self.fleet.shards:
            if not events:
                raise RuntimeError("no worker is left")
            self.now, _, worker, steps = heapq.heappop(events)
            if self.now >= worker.dies:
                continue
            wait = next(steps, None)
            if wait is not None:
                heapq.heappush(events, (self.now + wait, next(order), worker, steps))
        self.outcome.made = self.now
        return self.outcome

    def missing(self) -> np.ndarray:
        """Return the numbers (n,) int64 that are not committed, in order."""
        if len(self._missing) != self.fleet.shards - len(self.done):
            self._missing = self._missing[[number not in self.done for number in self._missing.tolist()]]
        return self._missing

    def commit(self, number: int) -> None:
        """Take note of a shard that was made."""
        self.done.add(number)
        self.outcome.computed += 1
        if len(self.done) == -(-99 * self.fleet.shards // 100):
            self.outcome.nearly = self.now

    def _workers(self) -> list["_Worker"]:
        fleet, rng = self.fleet, random.Random(self.fleet.seed)
        found = []
        for index in range(fleet.workers):
            starts = fleet.startup * rng.uniform(1, 1.5)
            starts += rng.random() * fleet.ideal / 2 if rng.random() < fleet.late else 0.0
            dies = starts + rng.random() * fleet.ideal if rng.random() < fleet.dying else float("inf")
            speed = fleet.speed * rng.lognormvariate(0, fleet.spread)
            found.append(_Worker(self, index, starts, dies if fleet.workers > 1 else float("inf"), speed))
        return found


class _Worker:
    """A worker: what it does in turn, and the `Work` and the `Board` that its queue sees."""

    def __init__(self, simulation: Simulation, index: int, starts: float, dies: float, speed: float) -> None:
        self.simulation, self.index = simulation, index
        self.starts, self.dies, self.speed = starts, dies, speed
        self.shards = simulation.fleet.shards
        self.held: set[int] = set()
        self._left = np.empty(0, np.int64)
        self._known: set[int] = set()
        """Numbers that it has made, or found made, since it looked."""
        self._owed = [0.0, 0.0, 0.0]
        """Questions, names and fsyncs that it has still to wait for."""
        self._seen: dict[int, float] = {}
        """Since when a claim is known whose holder gives no sign of life."""

    def work(self) -> Step:
        """Do what `launch.sharing.make_shared` does; yield the seconds that pass."""
        fleet = self.simulation.fleet
        queue = Queue(self, Share(self.index, fleet.workers), self, self._clock)
        yield from self._pay()
        number = queue.ahead()
        yield from self._pay()
        while True:
            while number is None:
                number = queue.any()
                yield from self._pay()
                if number is None:
                    if queue.over:
                        return
                    yield self._wait(queue.pause())
            ahead = queue.ahead()
            yield from self._pay()
            yield from self._make(number, queue)
            self.release(str(number))
            number = ahead

    def _make(self, number: int, queue: Queue) -> Step:
        fleet = self.simulation.fleet
        rows = min(fleet.shard_rows, fleet.images - number * fleet.shard_rows)
        left = rows / self.speed
        while left > 0:
            passed = min(left, LOOK_SECONDS)
            yield passed
            left -= passed
            self._charge("beat", COSTS.beat * len(self.held) * passed * BEATS / PATIENCE_SECONDS)
            queue.look_now_and_then()
            yield from self._pay()
        self._charge("commit", *COSTS.commit)
        yield from self._pay()
        self.simulation.commit(number)
        self._known.add(number)

    def _clock(self) -> float:
        """Return the time by which what is owed so far will be paid."""
        operations, names, syncs = self._owed
        return self.simulation.now + self.simulation.outcome.server.wait(
            self.simulation.now, operations, names=names, syncs=syncs
        )

    def _wait(self, seconds: float) -> float:
        self._charge("wait", seconds / POLL_SECONDS[1])
        return seconds

    def _charge(self, what: str, operations: float, syncs: float = 0, names: float = 0) -> None:
        self.simulation.outcome.server.asked[what] += round(operations + names)
        for place, value in enumerate((operations, names, syncs)):
            self._owed[place] += value

    def _pay(self) -> Step:
        """Wait for what was asked, a slice at a time."""
        operations, names, syncs = self._owed
        self._owed = [0.0, 0.0, 0.0]
        slices = max(1, int(operations // SLICE))
        for _ in range(slices if operations else 0):
            yield self.simulation.outcome.server.ask(
                self.simulation.now, operations / slices, names=names / slices, syncs=syncs / slices
            )

    # What `launch.queue.Work` is.

    def missing(self) -> list[int]:
        """See `Work`. What is done is read and hashed."""
        folder = self.simulation
        self._charge("scan", COSTS.look + COSTS.read * len(folder.done), names=len(folder.done))
        self._left = folder.missing()
        return self._left.tolist()

    def look(self) -> None:
        """See `Work`."""
        self._charge("look", COSTS.look, names=len(self.simulation.done))
        self._left = self.simulation.missing()
        self._known.clear()

    def left(self) -> np.ndarray:
        """See `Work`."""
        few = self._known and len(self._left) < FEW
        return self._left[~np.isin(self._left, list(self._known))] if few else self._left

    def remaining(self) -> int:
        """See `Work`."""
        return len(self.left())

    def is_made(self, number: int) -> bool:
        """See `Work`."""
        self._charge("try", 1)
        return number in self.simulation.done

    def made_elsewhere(self, number: int) -> None:
        """See `Work`."""
        self._known.add(number)

    # What `launch.queue.Board` is.

    def take(self, name: str) -> object | None:
        """See `Board`. A holder that died is taken for lost as `store.claims` does it on another machine."""
        number = int(name)
        holder = self.simulation.claims.get(number)
        if holder is not None and holder is not self:
            self._charge("claim", COSTS.refused)
            if holder.dies > self.simulation.now:
                return None
            if self.simulation.now - self._seen.setdefault(number, self.simulation.now) <= PATIENCE_SECONDS:
                return None
        self._charge("claim", *COSTS.claim)
        self.simulation.claims[number] = self
        self.held.add(number)
        return self

    def release(self, name: str) -> None:
        """See `Board`."""
        self._charge("claim", COSTS.release)
        self.held.discard(int(name))
        self.simulation.claims.pop(int(name), None)
