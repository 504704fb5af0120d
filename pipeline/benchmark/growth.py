"""(g) How time and memory of an extraction grow with its rows: a network that takes no time, a process a size."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmark.child import Child, answer_of, peak_memory
from pipeline.benchmark.figures import BYTES, EXPONENT, SECONDS, TIMES, Claim, Figure
from pipeline.benchmark.numbered import DIM, extract_numbers
from pipeline.benchmark.timing import OnStep, Spread, silent
from pipeline.progress import Progress

EXPONENT_LIMIT = 1.05
WARM_SHARE = 0.1
LINEAR_FROM = 100_000
"""Rows from which time is more than starting, so that something is asked of the exponent."""


def log_log_slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return b of the least-squares fit log(value) = a + b log(size): 1 is linear, 2 quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def extract_once(rows: int) -> Callable[[], dict[str, Any]]:
    """Return what extracts so many rows and answers with seconds and peaks of memory in bytes."""

    def work() -> dict[str, Any]:
        warm = made = 0

        def note(progress: Progress) -> None:
            nonlocal warm, made
            if not warm and progress.done >= WARM_SHARE * rows:
                warm = peak_memory()
            if progress.done == rows:
                made = peak_memory()

        with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as folder:
            started = time.perf_counter()
            extract_numbers(Path(folder), rows, on_progress=note)
            seconds = time.perf_counter() - started
        return {"seconds": seconds, "warm": warm, "made": made, "peak": peak_memory()}

    return work


def measure_growth(
    *, rows: Sequence[int] = (10_000, 100_000, 1_000_000), repeats: int = 3, on_step: OnStep = silent
) -> Claim:
    """Measure extractions of each size in turns; the largest once, where it has a million rows.

    The exponent is that of a log-log fit over all sizes. Starting takes part in it, most in the smallest size, so
    that of the two largest sizes alone stands beside it.
    """
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in rows}
    for number in range(repeats):
        for size in rows:
            if number and size >= 1_000_000:
                continue
            on_step(f"{size:,} rows ({number + 1} of {repeats})")
            with Child(__name__, "extract_once", rows=size) as child:
                found[size].append(answer_of(child))
    seconds = {size: Spread(tuple(answer["seconds"] for answer in answers)) for size, answers in found.items()}
    peaks = {size: Spread(tuple(answer["peak"] for answer in answers)) for size, answers in found.items()}
    flat = Spread(tuple(answer["made"] / answer["warm"] for answer in found[rows[-1]]))
    limit = EXPONENT_LIMIT if rows[-1] >= LINEAR_FROM else None
    medians = [seconds[size].median for size in rows]
    more_rows, more_bytes = rows[-1] - rows[0], peaks[rows[-1]].median - peaks[rows[0]].median
    figures = [
        *(Figure(f"extract, {size:,} rows", SECONDS, seconds[size]) for size in rows),
        Figure("exponent, all sizes", EXPONENT, Spread.of(log_log_slope(rows, medians)), at_most=limit),
        Figure(
            "exponent, the two largest",
            EXPONENT,
            Spread.of(log_log_slope(rows[-2:], medians[-2:])),
            at_most=limit,
        ),
        *(Figure(f"peak memory, {size:,} rows", BYTES, peaks[size]) for size in rows),
        Figure("last shard over a tenth, largest", TIMES, flat),
        Figure("peak memory a row more", BYTES, Spread.of(max(0.0, more_bytes / more_rows))),
    ]
    conditions = {"rows": list(rows), "dim": DIM, "repeats": repeats}
    title = f"growth · {4 * DIM:,} bytes a row, a network that takes no time"
    return Claim("g", title, tuple(figures), conditions)
