"""The verb `extract`: plan, make the missing shards in this process, publish."""

import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.backbone import load_backbone
from pipeline.errors import CacheError, UsageError
from pipeline.extraction.compat import trust_entry
from pipeline.extraction.job import Job, Wishes, prepare
from pipeline.extraction.publish import check_images, publish, whole_entry
from pipeline.extraction.shard import extract_shard, request_shard
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.sources.resolve import open_source
from pipeline.store.entry import Entry
from pipeline.store.key import SHORT, SPLITS

logger = logging.getLogger(__name__)

SPARE = 1.05
"""Disk space asked for beside the rows themselves."""
ROUNDS = 10
"""How often shards that vanish under a running extraction are made again before giving up."""


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
    row_shape: tuple[int, ...]
    preprocess: dict[str, Any]
    preprocess_from: str
    device: str
    engine: str
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
    bytes: int
    free_bytes: int


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

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return asdict(self)


def extract(
    source: str,
    *,
    backbone: str,
    weights: str = "DEFAULT",
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    store_dtype: str = "float32",
    batch_size: int | None = None,
    device: str = "auto",
    engine: str = "auto",
    workers: int | None = None,
    cache_dir: str | Path = "cache",
    shard_rows: int | None = None,
    test_fraction: float = 0.1,
    limit: int | None = None,
    on_bad_image: str = "fail",
    data_root: str | Path = "data",
    follow_symlinks: bool = False,
    restart: bool = False,
    image_timeout: float = 60.0,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress = ignore,
    command: str | None = None,
) -> ExtractResult:
    """Run a frozen backbone over a source once and keep its features in the cache.

    The same call finds a finished entry, continues an interrupted one, or computes only what is new.

    Args:
        source: a folder, `digits`, or a torchvision data set's name.
        backbone: a torchvision classification model.
        weights: `DEFAULT`, one of torchvision's names, `none` (random, seed 0) or a .safetensors/.pth file.
        image_size: pixels of a side of what the network sees; default as the weights'.
        mean: of pixels in [0, 1], one value or three; default as the weights'.
        std: as `mean`.
        store_dtype: `float32` or `float16`, how rows are stored.
        batch_size: images a forward pass, 64 unless an extraction was started with another.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        engine: `auto` or `reference`.
        workers: loading processes, by default one a core.
        cache_dir: the cache root.
        shard_rows: rows a shard, by default 32 MB worth.
        test_fraction: share of images that become test rows where the source names none; 0 for none.
        limit: use only so many images, spread evenly over the source.
        on_bad_image: `fail`, or `skip` to record unusable images and go on.
        data_root: where torchvision's data sets are or go.
        follow_symlinks: accept links that lead out of the source folder.
        restart: forget an interrupted extraction and compute a finished entry's rows anew.
        image_timeout: seconds after which decoding one image is given up.
        on_plan: called once with the plan, before any work; what it raises stops the extraction there.
        on_progress: called after every batch.
        command: recorded in the manifest; by default this process's own.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    if on_bad_image not in ("fail", "skip"):
        raise UsageError(f"on-bad-image is fail or skip, not {on_bad_image!r}")
    opened = open_source(source, data_root=Path(data_root), follow_symlinks=follow_symlinks)
    wishes = Wishes(batch_size, device, engine, workers, shard_rows, test_fraction, image_timeout)
    network = load_backbone(backbone, weights=weights, image_size=image_size, mean=mean, std=std)
    job = prepare(
        opened,
        network,
        root=Path(cache_dir),
        wishes=wishes,
        store_dtype=store_dtype,
        limit=limit,
        restart=restart,
    )
    skip_bad = on_bad_image == "skip"
    try:
        entry = None if restart else _finished(job)
        plan = plan_of(job, entry)
        if on_plan is not None:
            on_plan(plan)
        if entry is not None:
            return _hit(job, entry, skip_bad, started)
        said = command if command is not None else shlex.join(["pipeline", *sys.argv[1:]])
        network.check_image_size()
        _check_disk(plan)
        job.begin()
        counts = _make_shards(job, on_progress)
        entry = _publish(job, skip_bad, said, on_progress)
        return _result(job, entry, counts, started)
    finally:
        job.close()


def plan_of(job: Job, entry: Entry | None) -> Plan:
    """Say what `job` is about to do."""
    splits, rule = job.splits(job.digests)
    counts = np.bincount(splits, minlength=len(SPLITS)).tolist()
    known = bool(job.known.all())
    done = 0 if entry is not None else len(job.work.records())
    there = next(folder for folder in (job.root, *job.root.absolute().parents) if folder.exists())
    found = int((job.known & (job.rows.find(job.digests)[:, 0] >= 0)).sum()) if entry is None else entry.rows
    return Plan(
        source=job.source.spec,
        kind=str(job.source.describe()["kind"]),
        samples=len(job.listing),
        classes=len(job.listing.classes),
        splits={name: count for name, count in zip(SPLITS, counts, strict=True) if count} if known or not rule else {},
        split_rule=f"test by content hash, fraction {job.wishes.test_fraction:g}" if rule else "named by the source",
        backbone=job.backbone.name,
        weights=job.backbone.weights,
        layer=job.backbone.layer,
        row_shape=job.space.row_shape,
        preprocess=job.backbone.preprocess.to_json(),
        preprocess_from=job.backbone.preprocess_from,
        device=job.recipe.device,
        engine=job.recipe.engine,
        batch_size=job.recipe.batch_size,
        threads=job.recipe.threads,
        store_dtype=job.space.store_dtype,
        space=job.space.sha256,
        cache=entry.id if entry is not None else "",
        state="complete" if entry is not None else "resumed" if done else "new",
        shards=job.shards,
        shards_done=job.shards if entry is not None else done,
        rows_known=found,
        bytes=len(job.listing) * job.space.row_bytes,
        free_bytes=shutil.disk_usage(there).free,
    )


def _check_disk(plan: Plan) -> None:
    """Refuse to start what cannot fit; a disk that fills up meanwhile is told by the commit."""
    needed = int((plan.samples - plan.shards_done * (plan.samples // plan.shards)) * plan.bytes / plan.samples * SPARE)
    if needed > plan.free_bytes:
        raise CacheError(
            f"the features need {needed:,} bytes, {plan.free_bytes:,} are free",
            "Free some space, choose another disk with --cache-dir, or halve it with --store-dtype float16.",
        )


def _finished(job: Job) -> Entry | None:
    """Return the finished and whole entry for the source as it is now, if all its digests are known."""
    if not job.known.all():
        return None
    entry = whole_entry(job.root, job.root / job.final_id(job.digests)[:SHORT])
    if entry is not None and job.wishes.engine not in ("auto", entry.manifest["recipe"]["engine"]):
        raise CacheError(
            f"cache entry {entry.id} was made by engine {entry.manifest['recipe']['engine']}, "
            f"you ask for {job.wishes.engine}",
            "Drop --engine to use it, or pass --restart to make it again.",
        )
    if entry is not None and not trust_entry(job, entry):
        job.replace_with_new_rows()
        return None
    return entry


def _hit(job: Job, entry: Entry, skip_bad: bool, started: float) -> ExtractResult:
    skipped = [(item["id"], item["reason"]) for item in entry.skipped()]
    check_images(skipped, int(entry.manifest["samples_listed"]), skip_bad=skip_bad)
    return _result(job, entry, (0, entry.rows), started)


def _make_shards(job: Job, on_progress: OnProgress) -> tuple[int, int]:
    """Make every shard that is missing. Return how many rows were computed and reused."""
    missing = job.missing()
    asked = set(missing)
    done = sum(job.span(n).stop - job.span(n).start for n in range(job.shards) if n not in asked)
    counts = {"computed": 0, "reused": done, "skipped": 0}

    def on_rows(computed: int, reused: int, skipped: int) -> None:
        counts["computed"] += computed
        counts["reused"] += reused
        counts["skipped"] += skipped
        on_progress(
            Progress(
                sum(counts.values()),
                len(job.listing),
                **counts,
                bottleneck=max(job.seconds, key=job.seconds.__getitem__),
            )
        )

    on_rows(0, 0, 0)
    for place, number in enumerate(missing):
        for wanted in missing[place : place + 2]:  # the next one too, so that the workers stay busy in between
            request_shard(job, wanted)
        extract_shard(job, number, on_rows)
    return counts["computed"], counts["reused"]


def _publish(job: Job, skip_bad: bool, command: str, on_progress: OnProgress) -> Entry:
    job.backbone.check_frozen()
    for _ in range(ROUNDS):
        entry = publish(job, skip_bad=skip_bad, command=command)
        if entry is not None:
            return entry
        # Another process finished this entry and removed the folder, or a shard was damaged meanwhile.
        job.look_again()
        _make_shards(job, on_progress)
    raise CacheError(
        f"shards under {job.work.path} vanish as fast as they are made", "Is something deleting the cache?"
    )


def _result(job: Job, entry: Entry, counts: tuple[int, int], started: float) -> ExtractResult:
    computed, reused = counts
    seconds = time.perf_counter() - started
    return ExtractResult(
        cache=entry.id,
        path=str(entry.path),
        space=entry.space.sha256,
        rows=entry.rows,
        dim=int(np.prod(entry.space.row_shape)),
        computed=computed,
        reused=reused,
        skipped=int(entry.manifest["skipped"]["count"]),
        seconds=seconds,
        images_per_second=computed / seconds,
        splits=dict(entry.manifest["splits"]),
        classes=len(entry.classes),
        recipe=dict(entry.manifest["recipe"]),
    )
