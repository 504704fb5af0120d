"""The constants of `scaling`: extractions with a network that takes no time, split into their phases."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.benchmark.child import Child, answer_of
from pipeline.benchmark.numbered import extract_numbers
from pipeline.benchmark.scaling import Constants
from pipeline.progress import Progress

FEW, MANY = 10_000, 40_000
NARROW, WIDE = 128, 2048
"""Features a row."""
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Phases:
    """Seconds of an extraction of so many rows."""

    rows: int
    row_bytes: int
    start: float
    """Until the first batch, listing included."""
    make: float
    """Until the last shard was committed."""
    publish: float
    """Until the entry was there."""

    @property
    def seconds(self) -> float:
        """Of the whole."""
        return self.start + self.make + self.publish


def extract_in_phases(rows: int, dim: int) -> Callable[[], dict[str, Any]]:
    """Return what extracts so many numbered images and answers with the fields of `Phases`."""

    def work() -> dict[str, Any]:
        first = last = 0.0

        def note(progress: Progress) -> None:
            nonlocal first, last
            now = time.perf_counter()
            if progress.done:
                first = first or now
            if progress.done == rows:
                last = last or now

        with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as folder:
            began = time.perf_counter()
            extract_numbers(Path(folder), rows, dim, on_progress=note)
            ended = time.perf_counter()
        return {"start": first - began, "make": last - first, "publish": ended - last}

    return work


def measure_phases(rows: int, dim: int = NARROW) -> Phases:
    """Extract in a fresh process."""
    with Child(__name__, "extract_in_phases", rows=rows, dim=dim) as child:
        return Phases(rows, FLOAT_BYTES * dim, **answer_of(child))


def constants_from(
    few: Phases, many: Phases, wide: Phases, *, forward: float, decode: float, row_bytes: int, shared_cores: bool
) -> Constants:
    """Return the constants that three extractions tell: `many` has more rows than `few`, `wide` longer ones.

    Args:
        few: of some rows.
        many: of more rows, as long.
        wide: of as many rows as `few`, longer.
        forward: seconds of an image in the network.
        decode: seconds of an image decoded.
        row_bytes: of the features to be estimated for.
        shared_cores: see `Constants`.
    """
    more, longer = many.rows - few.rows, wide.row_bytes - few.row_bytes
    listed = max(0.0, (many.start - few.start) / more)
    written = max(0.0, (wide.make - few.make) / few.rows / longer)
    read = max(0.0, (wide.publish - few.publish) / few.rows / longer)
    return Constants(
        start=few.start - few.rows * listed,
        listed=listed,
        forward=forward,
        decode=decode,
        row=max(0.0, (many.make - few.make) / more - few.row_bytes * written),
        written=written,
        published=max(0.0, (many.publish - few.publish) / more - few.row_bytes * read),
        read=read,
        row_bytes=row_bytes,
        shared_cores=shared_cores,
    )
