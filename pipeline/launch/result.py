"""What `extract` did, as a value."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipeline.launch.making import Tally
from pipeline.launch.share import Share
from pipeline.store.entry import Entry


@dataclass(frozen=True)
class ExtractResult:
    """What `extract` did; `to_json` has the fields other programs rely on."""

    cache: str
    path: str
    space: str
    rows: int
    dim: int
    computed: int
    reused: int
    skipped: int
    seconds: float
    images_per_second: float
    splits: dict[str, int]
    classes: int
    recipe: dict[str, Any]
    rounding: dict[str, Any] | None
    """What storing in float16 cost, over the rows computed: see `extraction.precision.Rounding`."""
    deviation: dict[str, Any] | None
    """How far the engine was from the plain module on its first batch: see `extraction.deviation.Deviation`."""
    layer: str
    pool: str
    elsewhere: int = 0
    """Rows that other workers made while this one was at it."""
    worker: dict[str, int] | None = None
    """`{index, count}` of one of several workers."""
    beside: "tuple[ExtractResult, ...]" = ()
    """Of the other layers of the same pass."""
    views: "tuple[ViewResult, ...]" = ()
    """Of all views of the same images, this entry's first; empty where only plain images were asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; of several layers `{"entries": [...]}` with those of each."""
        if self.beside:
            return {"entries": [replace(self, beside=()).to_json(), *(result.to_json() for result in self.beside)]}
        left_out = ("beside",) if self.views else ("beside", "views")
        return {name: value for name, value in asdict(self).items() if name not in left_out}


@dataclass(frozen=True)
class ViewResult:
    """What `extract` did for a view."""

    view: int
    cache: str
    path: str
    rows: int
    computed: int
    reused: int


def view_by_view(results: Sequence[ExtractResult], layers: int) -> list[ExtractResult]:
    """Return the results of the plain images, one a layer, with those of their views; they come view by view."""
    if len(results) == layers:
        return list(results)
    return [replace(results[place], views=tuple(_views(results[place::layers]))) for place in range(layers)]


def _views(results: Sequence[ExtractResult]) -> Iterator[ViewResult]:
    for number, one in enumerate(results):
        yield ViewResult(number, one.cache, one.path, one.rows, one.computed, one.reused)


def result_of(entry: Entry, tally: Tally, share: Share, started: float) -> ExtractResult:
    """Return the result for an entry of which so many rows were computed and taken since `started`."""
    there = max(0, entry.rows - tally.computed)  # rows of a shard that was damaged meanwhile count twice
    reused = min(tally.reused, there) if share.count > 1 else there
    seconds = time.perf_counter() - started
    return ExtractResult(
        cache=entry.id,
        path=str(entry.path),
        space=entry.space.sha256,
        rows=entry.rows,
        dim=int(np.prod(entry.space.row_shape)),
        computed=tally.computed,
        reused=reused,
        elsewhere=there - reused,
        worker=share.to_json(),
        skipped=int(entry.manifest["skipped"]["count"]),
        seconds=seconds,
        images_per_second=tally.computed / seconds,
        splits=dict(entry.manifest["splits"]),
        classes=len(entry.classes),
        recipe=dict(entry.manifest["recipe"]),
        rounding=entry.manifest.get("rounding"),
        deviation=entry.manifest.get("deviation"),
        layer=entry.space.layer,
        pool=entry.space.pool,
    )
