"""(streaming): memory and time of training on an entry from disk against in memory."""

from common import script

from pipeline.benchmark.streaming import measure_streaming

FULL = {"rows": (100_000, 600_000), "dim": 1280, "solver": "minibatch", "repeats": 1}
SMALL = {"rows": (2_000, 8_000), "dim": 256}

if __name__ == "__main__":
    script(measure_streaming, full=FULL, quick=SMALL)
