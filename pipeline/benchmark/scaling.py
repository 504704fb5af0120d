"""(s) What an extraction of many images will take: a model of its time and money, with constants of this machine.

    time = start + list n + make r + publish n,    money = workers x time x price

n images are listed by every worker; r is what the busiest worker makes, whole shards; whoever is last publishes alone.
To make an image costs 1/F + 1/D where decoding and the network share the cores, the larger of both on a GPU, and
beside it what a row and its bytes cost. Time grows with n / workers until the terms without `workers` prevail.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pipeline.store.key import shard_rows_for

HOUR = 3600.0
BATCH_SIZE = 64
TERMS = ("starting", "listing", "network", "decoding", "rows", "writing", "publishing")


@dataclass(frozen=True)
class Constants:
    """What a worker of one kind takes, in seconds."""

    start: float
    """Until the first batch, of one image."""
    listed: float
    """An image listed."""
    forward: float
    """An image through the network."""
    decode: float
    """An image decoded, by all cores of a worker."""
    row: float
    """A row made, without its network, decoding and bytes: hashing, handing on, its part of a commit."""
    written: float
    """A byte of features committed, until it is durable."""
    published: float
    """A row published: sample table, ids, digests, its part of a shard read back."""
    read: float
    """A byte of features read back and hashed when the entry is published."""
    row_bytes: int
    shared_cores: bool = True
    """Whether decoding and the network compute on the same cores."""


@dataclass(frozen=True)
class Estimate:
    """What so many images take so many workers: seconds of each term, in the order they pass."""

    images: int
    workers: int
    terms: dict[str, float]

    @property
    def seconds(self) -> float:
        """From the first worker's start to the entry."""
        return sum(self.terms.values())

    @property
    def worker_hours(self) -> float:
        """What is paid for: workers wait while one publishes."""
        return self.workers * self.seconds / HOUR

    @property
    def longest(self) -> str:
        """The term that takes longest."""
        return max(self.terms, key=self.terms.__getitem__)

    def money(self, price: float) -> float:
        """Return what it costs at so much an hour of a worker."""
        return self.worker_hours * price

    def to_json(self) -> dict[str, object]:
        """Return plain JSON fields."""
        return {**asdict(self), "seconds": self.seconds, "worker_hours": self.worker_hours, "longest": self.longest}


def estimate(constants: Constants, images: int, workers: int, shard_rows: int | None = None) -> Estimate:
    """Return what `images` take `workers`; shards have the rows that `extract` gives them unless it is told.

    Workers are alike, never wait for the folder, and none is lost: `simulation` says what becomes of that.
    """
    shard_rows = shard_rows or shard_rows_for(constants.row_bytes, BATCH_SIZE)
    shards = -(-images // shard_rows)
    rows = min(images, -(-shards // workers) * shard_rows)
    forward, decode = rows * constants.forward, rows * constants.decode
    if not constants.shared_cores:  # the shorter is hidden behind the longer
        forward, decode = (forward, 0.0) if forward >= decode else (0.0, decode)
    terms = (
        constants.start,
        images * constants.listed,
        forward,
        decode,
        rows * constants.row,
        rows * constants.row_bytes * constants.written,
        images * (constants.published + constants.row_bytes * constants.read),
    )
    return Estimate(images, workers, dict(zip(TERMS, terms, strict=True)))


def linear_up_to(constants: Constants, images: int, workers: Sequence[int], least: float = 0.8) -> int:
    """Return the most of `workers` whose hours are at least `least` as well spent as a single worker's; else 1."""
    alone = estimate(constants, images, 1).worker_hours
    good = [count for count in workers if alone >= least * estimate(constants, images, count).worker_hours]
    return max(good, default=1)
