"""(g): time and memory of an extraction at 10,000, 100,000 and 1,000,000 rows."""

from common import script

from pipeline.benchmark.growth import measure_growth

FULL = {"rows": (10_000, 100_000, 1_000_000), "repeats": 3}
SMALL = {"rows": (500, 1_000), "repeats": 1}

if __name__ == "__main__":
    script(measure_growth, full=FULL, quick=SMALL)
