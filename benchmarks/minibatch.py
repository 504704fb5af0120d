"""(m): an epoch of the head against the plain loop over cached features."""

from common import script

from pipeline.benchmark.minibatch import measure_minibatch

FULL = {"rows": 50_000, "dim": 1280, "classes": 10, "batch_size": 64, "repeats": 7, "features": ""}
SMALL = {"rows": 2_000, "dim": 64, "repeats": 3}

if __name__ == "__main__":
    script(measure_minibatch, full=FULL, quick=SMALL)
