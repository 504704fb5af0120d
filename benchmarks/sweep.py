"""(e): many heads at once against the same one by one."""

from common import script

from pipeline.benchmark.sweeps import measure_sweep

FULL = {
    "heads": 1_000,
    "epochs": 5,
    "rows": 50_000,
    "dim": 1280,
    "classes": 10,
    "batch_size": 64,
    "sample": 2,
    "repeats": 3,
    "device": "cpu",
    "features": "",
}
SMALL = {"heads": 20, "epochs": 1, "rows": 2_000, "dim": 64, "sample": 1, "repeats": 2}

if __name__ == "__main__":
    script(measure_sweep, full=FULL, quick=SMALL)
