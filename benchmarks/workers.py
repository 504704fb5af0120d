"""(w): up to 10,000 simulated workers that ask the real queue, on one shared folder."""

from common import script

from pipeline.benchmark.fleets import measure_fleets

FULL = {
    "images": 100_000_000,
    "workers": (1, 8, 64, 256, 1_000, 10_000),
    "shard_rows": 2048,
    "speed": 2500.0,
    "startup": 20.0,
    "seed": 0,
}
SMALL = {"images": 100_000, "workers": (1, 8)}

if __name__ == "__main__":
    script(measure_fleets, full=FULL, quick=SMALL)
