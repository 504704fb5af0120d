"""(workers): the share of their time that 1 and 16 workers on one extraction spend in the forward pass."""

from common import script

from pipeline.benchmark.workers import measure_workers

FULL = {"counts": (1, 16), "shards": 20, "wait": 0.25}
SMALL = {"counts": (1, 2), "shards": 3, "wait": 0.05}

if __name__ == "__main__":
    script(measure_workers, full=FULL, quick=SMALL)
