"""(f): a verified read of an entry against a raw read and SHA-256 of the same bytes."""

from common import script

from pipeline.benchmark.reading import measure_reading

FULL = {"rows": 50_000, "dim": 1280, "repeats": 7}
SMALL = {"rows": 2_000, "repeats": 3}

if __name__ == "__main__":
    script(measure_reading, full=FULL, quick=SMALL)
