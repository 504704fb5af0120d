"""From a source, a backbone and wishes to a job."""

import logging
from pathlib import Path

import numpy as np

from pipeline.backbones.backbone import Backbone
from pipeline.digest import array_digest
from pipeline.errors import DataError, UsageError
from pipeline.extraction.job import SPAN, Job
from pipeline.extraction.recipe import Wishes, pinned_recipe, wished_recipe
from pipeline.sources.source import UNLABELLED, ArrayPayload, Listing, Source
from pipeline.store.catalog import entry_stamps
from pipeline.store.key import STORE_DTYPES, FeatureSpace, plan_id
from pipeline.store.statindex import StatIndex
from pipeline.store.work import WorkFolder

logger = logging.getLogger(__name__)


def prepare(
    source: Source,
    backbone: Backbone,
    *,
    root: Path,
    wishes: Wishes,
    store_dtype: str = "float32",
    limit: int | None = None,
    restart: bool = False,
    rehash: bool = False,
    join: bool = False,
    beside: Job | None = None,
) -> Job:
    """List the source and find out what is known already; nothing is computed or written.

    `join` says that another process began this work: with `restart` it is not thrown away once more.
    `beside` is the job of another layer or view of the same images: its listing is used, and what either learns of
    files both know.

    Raises:
        UsageError, DataError, CacheError: as the command line says them.
    """
    if store_dtype not in STORE_DTYPES:
        raise UsageError(f"unknown store dtype {store_dtype!r}", f"Known: {', '.join(STORE_DTYPES)}")
    listing = _listing(source, limit) if beside is None else beside.listing
    space = FeatureSpace(
        architecture=backbone.architecture,
        weights=backbone.weights_digest,
        layer=backbone.layer,
        pool=backbone.pool,
        preprocess=backbone.preprocess.to_json(),
        dtype=wishes.dtype,
        store_dtype=store_dtype,
        row_shape=backbone.row_shape,
    )
    work = WorkFolder(root, plan_id(space, source.describe(), listing.ids))
    if restart and not join:
        work.discard()
    recipe = work.pinned()
    recipe = wished_recipe(space, wishes) if recipe is None else pinned_recipe(recipe, wishes)
    if beside is None:
        seen = entry_stamps(root)  # first: an entry that is seen here has remembered its files, which are read next
        digests, known = _known_digests(source, listing, root, rehash=rehash)
    else:
        seen, digests, known = beside.entries_seen, beside.digests, beside.known
    job = Job(
        root,
        source,
        listing,
        backbone,
        space,
        recipe,
        wishes,
        work,
        digests,
        known,
        restart=restart,
        rehash=rehash,
        entries_seen=seen,
    )
    if beside is not None:
        job.engines = beside.engines
    _ = job.resizing  # what it does not know is refused before any work
    for record in work.each_record():
        job.learn(record)
    return job


def look_at_files_again(job: Job) -> None:
    """Take over what other processes have remembered of the source's files since the job was prepared."""
    if job.source.folder is not None:
        digests, known = _known_digests(job.source, job.listing, job.root, rehash=job.rehash)
        job.digests[known] = digests[known]
        job.known |= known


def _listing(source: Source, limit: int | None) -> Listing:
    listing = _limited(source.listing(), limit)
    _check_classes(listing)
    for note in listing.notes:
        logger.warning("%s", note)
    return listing


def _limited(listing: Listing, limit: int | None) -> Listing:
    """Take `limit` samples spread evenly over the source, so that all classes and splits stay."""
    if limit is None or limit >= len(listing):
        return listing
    if limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    return listing.take(np.arange(limit, dtype=np.int64) * len(listing) // limit)


def _check_classes(listing: Listing) -> None:
    if not listing.classes and (listing.labels == UNLABELLED).all():
        return
    if len(listing.classes) < 2:
        raise DataError(
            f"the source has {len(listing.classes)} class ({', '.join(listing.classes)}); a classifier needs two",
            "Put each class's images in a folder of its own: FOLDER/<class>/*.jpg",
        )


def _known_digests(source: Source, listing: Listing, root: Path, *, rehash: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return digests (n, 32) and which are known (n,) without opening a file; none of files with `rehash`."""
    if listing.digests is not None:
        return listing.digests.copy(), np.asarray(listing.digests.any(axis=1))
    # Pages of zeros that are never written take no memory.
    digests, known = np.zeros((len(listing), 32), np.uint8), np.zeros(len(listing), bool)
    if listing.stats is None:
        for row, sample_id in enumerate(listing.ids):
            payload = source.payload(sample_id)
            assert isinstance(payload, ArrayPayload)
            digests[row] = np.frombuffer(array_digest(payload.array), np.uint8)
        known[:] = True
    elif source.folder is not None and not rehash:
        index = StatIndex.load(root, source.folder)
        for first in range(0, len(listing) if len(index.rows) else 0, SPAN):
            span = slice(first, first + SPAN)
            digests[span], known[span] = index.lookup(listing.stats[span])
    return digests, known
