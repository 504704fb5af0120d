"""What an extraction is about to do, said before any work."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import CacheError, UsageError
from pipeline.extraction.job import Job
from pipeline.store.entry import Entry
from pipeline.store.key import SPLITS, Recipe
from pipeline.store.manifest import MAX_SHARDS

if TYPE_CHECKING:
    from pipeline.backbones.cutpoints import Advice

SPARE = 1.05
"""Disk space asked for beside the rows themselves."""


@dataclass(frozen=True)
class Plan:
    """What an extraction is about to do, for people and for `--dry-run`."""

    source: str
    kind: str
    samples: int
    classes: int
    splits: dict[str, int]
    split_rule: str
    backbone: str
    weights: str
    layer: str
    pool: str
    row_shape: tuple[int, ...]
    preprocess: dict[str, Any]
    preprocess_from: str
    resize: str
    """`workers`, or `device`."""
    device: str
    engine: str
    engine_why: str
    """Why this one, with what was measured; empty where nothing was to be chosen."""
    images_per_second: float | None
    """Of the engine's bare forward pass, where it was measured."""
    dtype: str
    batch_size: int
    threads: int
    store_dtype: str
    space: str
    cache: str
    """The entry's id where all image digests are known already, else an empty string."""
    state: str
    """`complete`, `resumed` or `new`."""
    shards: int
    shards_done: int
    rows_known: int
    """Rows that lie in the cache already, as far as that is known without opening images."""
    rows_to_compute: int
    """At most: a file not read yet may turn out to be known."""
    bytes: int
    """Of all rows; shards that lie in the cache already are shared and take no more."""
    free_bytes: int
    worker: dict[str, int] | None = None
    """`{index, count}` of one of several workers."""
    made_by: str = ""
    """Which processes do the work, for people; empty for this one alone."""
    finetune: "Advice | None" = None
    """Whether fine-tuning can start from these rows; None of vectors, which are for heads."""


def plan_of(job: Job, entry: Entry | None) -> Plan:
    """Say what `job` is about to do."""
    rule = job.split_rule
    known = bool(job.known.all())
    splits = job.splits(job.digests)[0] if known else job.listing.splits
    counts = np.bincount(splits, minlength=len(SPLITS)).tolist()
    done = 0 if entry is not None else len(job.work.outlines())
    there = next(folder for folder in (job.root, *job.root.absolute().parents) if folder.exists())
    found = job.rows_known() if entry is None else entry.rows
    recipe = job.recipe if entry is None else Recipe.from_json(entry.manifest["recipe"])
    return Plan(
        source=job.source.spec,
        kind=str(job.source.describe()["kind"]),
        samples=len(job.listing),
        classes=len(job.listing.classes),
        splits={name: count for name, count in zip(SPLITS, counts, strict=True) if count} if known or not rule else {},
        split_rule=_say(rule, bool(job.listing.classes)),
        backbone=job.backbone.name,
        weights=job.backbone.weights,
        layer=job.backbone.layer,
        pool=job.backbone.pool,
        row_shape=job.space.row_shape,
        preprocess=job.backbone.preprocess.to_json(),
        preprocess_from=job.backbone.preprocess_from,
        resize=job.wishes.resize,
        device=recipe.device,
        engine=recipe.engine,
        engine_why=job.engine_why if entry is None else "",
        images_per_second=job.images_per_second,
        dtype=job.space.dtype,
        batch_size=recipe.batch_size,
        threads=recipe.threads,
        store_dtype=job.space.store_dtype,
        space=job.space.sha256,
        cache=entry.id if entry is not None else "",
        state="complete" if entry is not None else "resumed" if done else "new",
        shards=job.shards,
        shards_done=job.shards if entry is not None else done,
        rows_known=found,
        rows_to_compute=0 if entry is not None else len(job.listing) - found,
        bytes=len(job.listing) * job.space.row_bytes,
        free_bytes=shutil.disk_usage(there).free,
        finetune=_advice(job),
    )


def _advice(job: Job) -> "Advice | None":
    from pipeline.backbones.cutpoints import advise

    return advise(job.backbone, len(job.listing), np.dtype(job.space.store_dtype).itemsize)


def _say(rule: dict[str, Any] | None, labelled: bool) -> str:
    if not labelled:
        return "no labels"
    if rule is None:
        return "named by the source"
    return f"test by {rule.get('by', 'content')} hash, fraction {rule['test_fraction']:g}"


def check_shards(jobs: Sequence[Job]) -> None:
    """Refuse to start what no manifest could list in the end."""
    for job in jobs:
        if job.shards > MAX_SHARDS:
            raise UsageError(
                f"{len(job.listing):,} rows in shards of {job.recipe.shard_rows:,} are {job.shards:,} shards; "
                f"an entry holds {MAX_SHARDS:,}",
                f"Pass --shard-rows {_roomy(len(job.listing), job.recipe.batch_size)}, or more.",
            )


def _roomy(rows: int, batch_size: int) -> int:
    """Return rows a shard with which so many fit: a power of two batches."""
    size = batch_size
    while rows > size * MAX_SHARDS:
        size *= 2
    return size


def check_disk(plans: Sequence[Plan]) -> None:
    """Refuse to start what cannot fit; a disk that fills up meanwhile is told by the commit.

    Rows that lie in the cache need none if their shards come out the same, so only new rows are asked room for.
    """
    rows = sum(plan.rows_to_compute for plan in plans)
    needed = int(sum(plan.rows_to_compute * plan.bytes / plan.samples for plan in plans) * SPARE)
    free = min(plan.free_bytes for plan in plans)
    if needed > free:
        raise CacheError(
            f"{rows:,} rows of features need {needed:,} bytes, {free:,} are free",
            "Free some space (`pipeline cache prune`), choose another disk with --cache-dir, or halve it with "
            "--store-dtype float16.",
        )
