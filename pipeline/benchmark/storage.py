"""A shared folder on a simulated clock: how long its server takes for what workers ask of it."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Storage:
    """What a shared folder does."""

    trip: float
    """Seconds until a client has the answer to one question about a name (lookup, open, stat, link, unlink)."""
    sync: float
    """Seconds more until a file or a folder is durable."""
    operations: float
    """Questions a second that the server answers to all clients together."""
    names: float
    """Names a second that it lists, to all clients together."""


NFS = Storage(trip=0.5e-3, sync=2e-3, operations=20_000, names=1_000_000)
"""A network file system on a fast server, as we assume it; nothing of it was measured."""


class Server:
    """A server that does one thing after another, in the order it was asked; clients wait in line."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.asked: Counter[str] = Counter()
        """Questions and names listed, by what they were for."""
        self.busy = 0.0
        """Seconds of work so far."""
        self._backlog = self._seen = 0.0

    def ask(self, now: float, operations: float, *, names: float = 0, syncs: float = 0) -> float:
        """Return how many seconds a client waits that asks at `now`, which never goes back, so much in turn."""
        seconds = self.wait(now, operations, names=names, syncs=syncs)
        work = self._work(operations, names)
        self._backlog, self._seen, self.busy = self._queued(now) + work, now, self.busy + work
        return seconds

    def wait(self, now: float, operations: float, *, names: float = 0, syncs: float = 0) -> float:
        """Return how many seconds a client would wait if it asked now."""
        alone = operations * self.storage.trip + syncs * self.storage.sync + names / self.storage.names
        return max(alone, self._queued(now) + self._work(operations, names))

    def _queued(self, now: float) -> float:
        return max(0.0, self._backlog - (now - self._seen))

    def _work(self, operations: float, names: float) -> float:
        return operations / self.storage.operations + names / self.storage.names
