"""(d): logistic regression to its optimum against scikit-learn."""

from common import script

from pipeline.benchmark.exact import measure_exact

FULL = {"rows": 50_000, "dim": 1280, "classes": 10, "max_iterations": 1_000, "repeats": 3, "features": ""}
SMALL = {"rows": 2_000, "dim": 64, "max_iterations": 100, "repeats": 2}

if __name__ == "__main__":
    script(measure_exact, full=FULL, quick=SMALL)
