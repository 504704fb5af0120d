"""Rows of a finished entry computed once more from the images: to check them, or to make a damaged shard again."""

from dataclasses import dataclass

import numpy as np

from pipeline.backbones.backbone import Backbone
from pipeline.device import resolve_device
from pipeline.engines.registry import make_engine
from pipeline.errors import CacheError
from pipeline.extraction.precision import within_rounding
from pipeline.extraction.reread import reread
from pipeline.progress import OnProgress, ignore
from pipeline.sources.source import Source
from pipeline.store.entry import Entry
from pipeline.store.graphs import GraphFolder
from pipeline.store.key import Recipe
from pipeline.store.samples import SampleTable
from pipeline.store.shard import USABLE, ShardRows
from pipeline.threads import cpu_threads


@dataclass(frozen=True)
class Recomputed:
    """How rows computed now compare with those in the cache."""

    rows: int
    equal: int
    """Rows that are the same bits."""
    max_abs_difference: float
    scale: float
    """The largest feature computed now."""
    store_dtype: str
    worst: str
    """Id of the sample that differs most."""
    dtype: str = "float32"
    """What the entry was computed in."""

    @property
    def holds(self) -> bool:
        """Whether the rows agree up to rounding."""
        return within_rounding(self.max_abs_difference, self.scale, self.store_dtype, self.dtype)


def recompute_rows(
    entry: Entry,
    table: SampleTable,
    rows: np.ndarray,
    source: Source,
    backbone: Backbone,
    *,
    device: str = "auto",
    workers: int | None = None,
    on_progress: OnProgress = ignore,
) -> np.ndarray:
    """Return the features (m, *row_shape), in the stored dtype, of usable table rows (m,), as `entry` made them.

    Raises:
        DataError: if an image is gone or has changed, naming it.
        CacheError: if the entry's device is not to be had here.
    """
    recipe = Recipe.from_json(entry.manifest["recipe"])
    where = resolve_device(device if device != "auto" else recipe.device)
    engine = make_engine(
        recipe.engine,
        backbone.network,
        backbone.preprocess,
        where,
        dtype=entry.space.dtype,
        threads=recipe.threads,
        graphs=GraphFolder(entry.path.parent, entry.space.of_view("", 0).sha256),
    )
    features = np.zeros((len(rows), *entry.space.row_shape), entry.space.store_dtype)
    batches = reread(
        source,
        [table.ids[row] for row in rows.tolist()],
        table.digests[rows],
        backbone.preprocess,
        batch_size=recipe.batch_size,
        workers=workers,
        on_progress=on_progress,
    )
    for places, pixels in batches:
        with cpu_threads(recipe.threads):
            found = engine.features(pixels)[: len(places)]
        with np.errstate(over="ignore"):
            features[places] = found.astype(features.dtype, copy=False)
    return features


def check_rows(
    entry: Entry,
    source: Source,
    backbone: Backbone,
    count: int,
    *,
    workers: int | None = None,
    on_progress: OnProgress = ignore,
) -> Recomputed:
    """Compute `count` rows, spread evenly over the entry, once more and compare them with the cache."""
    table = entry.read_samples()
    usable = np.flatnonzero(table.usable)
    rows = usable[np.linspace(0, len(usable) - 1, min(count, len(usable))).astype(int)]
    fresh = recompute_rows(entry, table, rows, source, backbone, workers=workers, on_progress=on_progress)
    cached = np.zeros_like(fresh)
    for first, shard in entry.read_shards(table):
        here = (rows >= first) & (rows < first + len(shard.status))
        cached[here] = shard.features[rows[here] - first]
    flat_fresh, flat_cached = fresh.reshape(len(rows), -1), cached.reshape(len(rows), -1)
    gap = np.abs(flat_fresh.astype(np.float64) - flat_cached).max(axis=1, initial=0.0)
    return Recomputed(
        rows=len(rows),
        equal=int((flat_fresh == flat_cached).all(axis=1).sum()),
        max_abs_difference=float(gap.max(initial=0.0)),
        scale=float(np.abs(flat_fresh).max(initial=0.0)),
        store_dtype=entry.space.store_dtype,
        dtype=entry.space.dtype,
        worst=table.ids[int(rows[gap.argmax()])] if len(rows) else "",
    )


def remake_shard(
    entry: Entry,
    number: int,
    source: Source,
    backbone: Backbone,
    *,
    workers: int | None = None,
    on_progress: OnProgress = ignore,
) -> ShardRows:
    """Return the rows of shard `number`, computed again.

    Raises:
        DataError: if an image is gone or has changed.
        CacheError: if the sample table is damaged too.
    """
    table = entry.read_samples()
    first = sum(shard["rows"] for shard in entry.shards[:number])
    span = slice(first, first + entry.shards[number]["rows"])
    status = table.status[span]
    features = np.zeros((len(status), *entry.space.row_shape), entry.space.store_dtype)
    usable = np.flatnonzero(status == USABLE)
    if len(usable):
        features[usable] = recompute_rows(
            entry, table, usable + first, source, backbone, workers=workers, on_progress=on_progress
        )
    if not np.isfinite(features.reshape(len(status), -1)).all():
        raise CacheError(f"shard {number} of {entry.id} has features that are not finite when made again")
    return ShardRows(features, table.digests[span].copy(), status.copy())
