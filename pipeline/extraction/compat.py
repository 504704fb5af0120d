"""Rows made under other versions of what computes them: a few are computed again before any is reused."""

import logging
from collections.abc import Mapping

import numpy as np

from pipeline.extraction.job import Job
from pipeline.extraction.precision import within_rounding
from pipeline.loading.loader import Loader
from pipeline.loading.worker import OK
from pipeline.store.entry import Entry
from pipeline.threads import cpu_threads
from pipeline.versions import versions

logger = logging.getLogger(__name__)

COMPUTING = ("torch", "torchvision", "pillow")
"""Packages whose version can change a feature, whatever the backbone."""
TIMM = "timm"
ROWS = 8


def trust_entry(job: Job, entry: Entry) -> bool:
    """Tell whether a finished entry for exactly this job may be used as it is."""
    made_with = _key(job, entry.manifest["versions"])
    if made_with == _key(job, versions()):
        return True
    index = job.rows
    candidates = np.flatnonzero(index.find(job.digests)[:, 0] >= 0)
    return _compare(job, candidates, made_with)


def trust_rows(job: Job, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return `places` (m, 2) of listing rows (m,), without those of versions that give other features here.

    Each version that rows were made with is checked once an extraction.
    """
    here = _key(job, versions())
    numbers = np.unique(places[:, 0][places[:, 0] >= 0]).tolist()
    for made_with in {_key(job, job.rows.shards[number].versions) for number in numbers}:
        if made_with == here or made_with in job.checked_versions:
            continue
        job.checked_versions.add(made_with)
        of_version = [number for number in numbers if _key(job, job.rows.shards[number].versions) == made_with]
        if not _compare(job, rows[np.isin(places[:, 0], of_version)], made_with):
            everywhere = [n for n, shard in enumerate(job.rows.shards) if _key(job, shard.versions) == made_with]
            job.rows.forget(everywhere)
            places = np.where(np.isin(places[:, :1], everywhere), -1, places)
    return places


def _key(job: Job, found: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(found.get(name, "") for name in _computing(job))


def _computing(job: Job) -> tuple[str, ...]:
    """Return the packages whose version can change a feature of this job."""
    return (*COMPUTING, TIMM) if job.space.architecture.startswith(f"{TIMM}/") else COMPUTING


def _compare(job: Job, rows: np.ndarray, made_with: tuple[str, ...]) -> bool:
    """Compute some listing rows again and compare them with the cache; say what came of it."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)]
    cached = np.zeros((len(chosen), *job.space.row_shape), job.space.store_dtype)
    had = job.rows.fetch(job.rows.find(job.digests[chosen]), job.digests[chosen], cached)
    with Loader(job.backbone.preprocess, batch_size=job.recipe.batch_size, workers=1) as loader:
        loader.request(range(len(chosen)), lambda place: job.payload(int(chosen[place])))
        fresh, usable = np.zeros_like(cached), had.copy()
        for _ in range(-(-len(chosen) // job.recipe.batch_size)):
            batch = loader.next_batch()
            usable[batch.rows] &= np.array([item.outcome == OK for item in batch.loaded])
            batch.pixels[len(batch.rows) :] = 0
            with cpu_threads(job.recipe.threads):
                fresh[batch.rows] = job.features(batch.pixels)[: len(batch.rows)].astype(fresh.dtype)
            loader.release(batch)
    scale = float(np.abs(fresh[usable].astype(np.float64)).max(initial=0.0))
    gap = float(np.abs(fresh[usable].astype(np.float64) - cached[usable]).max(initial=0.0))
    was = ", ".join(f"{name} {version}" for name, version in zip(_computing(job), made_with, strict=True))
    if within_rounding(gap, scale, job.space.store_dtype, job.space.dtype):
        logger.info("rows made with %s agree with this installation within %.1e", was, gap)
        return True
    logger.warning(
        "rows made with %s differ from this installation's by %.1e (largest feature %.1e): they are computed again",
        was,
        gap,
        scale,
    )
    return False
