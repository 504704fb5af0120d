"""(l): memory and time of planning, resuming and publishing ten million files."""

from common import script

from pipeline.benchmark.listing import measure_listing

FULL = {"rows": 10_000_000, "files": 1_000_000, "share": 0.8}
SMALL = {"rows": 20_000, "files": 5_000}

if __name__ == "__main__":
    script(measure_listing, full=FULL, quick=SMALL)
