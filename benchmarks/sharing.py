"""(sharing): the share of their time that 1 and 16 workers on one extraction spend in the forward pass."""

from common import script

from pipeline.benchmark.sharing import measure_sharing

FULL = {"counts": (1, 16), "shards": 8, "wait": 1.0}
SMALL = {"counts": (1, 2), "shards": 3, "wait": 0.05}

if __name__ == "__main__":
    script(measure_sharing, full=FULL, quick=SMALL)
