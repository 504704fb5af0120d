"""(w) Where growth ends: up to 10,000 simulated workers that ask the real queue, on one shared folder."""

from collections.abc import Sequence

from pipeline.benchmark.figures import Claim, Table
from pipeline.benchmark.simulation import Fleet, Simulation
from pipeline.benchmark.storage import NFS
from pipeline.benchmark.timing import OnStep, silent

COLUMNS = ("workers", "ideal", "99%", "all", "efficiency", "busy", "asked")


def measure_fleets(
    *,
    images: int = 100_000_000,
    workers: Sequence[int] = (1, 8, 64, 256, 1_000, 10_000),
    shard_rows: int = 2048,
    speed: float = 2500.0,
    startup: float = 20.0,
    seed: int = 0,
    on_step: OnStep = silent,
) -> Claim:
    """Simulate fleets of each size.

    Efficiency is the time that the images alone would take so many workers of middle speed, over the time until 99 of
    100 shards were made. The last shard is that of a worker that was lost, most times: it has to be missed first.
    """
    rows = []
    for count in workers:
        on_step(f"{images:,} images, {count:,} workers")
        fleet = Fleet(count, images, shard_rows, speed, startup=startup, seed=seed)
        found = Simulation(fleet).run()
        most = found.server.asked.most_common(1)[0][0]
        rows.append(
            (
                count,
                fleet.ideal,
                found.nearly,
                found.made,
                fleet.ideal / found.nearly,
                min(1.0, found.server.busy / found.made),
                most,
            )
        )
    conditions = {"images": images, "shard_rows": shard_rows, "speed": speed, "seed": seed, "storage": vars(NFS)}
    title = f"simulated workers · {images:,} images, {shard_rows:,} a shard, {speed:g} images/s a worker"
    notes = (
        "ideal: seconds of the images alone; 99%, all: until so many shards were made",
        "efficiency: ideal over 99%; busy: share of time that the folder's server works",
        "asked: what for, most times",
    )
    return Claim("w", title, (), conditions, notes, (Table(COLUMNS, tuple(rows)),))
