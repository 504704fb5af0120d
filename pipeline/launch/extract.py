"""The verb `extract`: plan, make the missing shards in this process, publish."""

import logging
import shlex
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
from pipeline.extraction.precision import Judge
from pipeline.extraction.publish import check_images, publish, save_stat_index, whole_entry
from pipeline.extraction.shard import extract_shard, request_shard
from pipeline.launch.plan import Plan, check_disk, plan_of
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.sources.resolve import open_source
from pipeline.store.entry import Entry
from pipeline.store.key import SHORT, FeatureSpace
from pipeline.store.prune import mark_used

logger = logging.getLogger(__name__)

ROUNDS = 10
"""How often shards that vanish under a running extraction are made again before giving up."""


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

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return asdict(self)


def extract(
    source: str,
    *,
    backbone: str,
    weights: str = "DEFAULT",
    layer: str | None = None,
    pool: str | None = None,
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
    rehash: bool = False,
    image_timeout: float = 60.0,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress = ignore,
    find_judge: Callable[[FeatureSpace], Judge | None] | None = None,
    command: str | None = None,
) -> ExtractResult:
    """Run a frozen backbone over a source once and keep its features in the cache.

    The same call finds a finished entry, continues an interrupted one, or computes only what is new.

    Args:
        source: a folder, `digits`, or a torchvision data set's name.
        backbone: a torchvision classification model, `timm/<model>`, or `package.module:function`.
        weights: `DEFAULT`, one of the library's names, `none` (random, seed 0) or a .safetensors/.pth file.
        layer: a module whose output is kept, `input:<module>` for its input; default the original classifier's input.
        pool: `avg`, `max`, `cls`, `cls+avg` or `none`; of a layer's maps and tokens the default is `avg`.
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
        rehash: read and hash every file, whatever is remembered of it.
        image_timeout: seconds after which decoding one image is given up.
        on_plan: called once with the plan, before any work; what it raises stops the extraction there.
        on_progress: called after every batch.
        find_judge: finds a trained head for a feature space, with which a float16 extraction counts the
            predictions that rounding changes.
        command: recorded in the manifest; by default this process's own.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    if on_bad_image not in ("fail", "skip"):
        raise UsageError(f"on-bad-image is fail or skip, not {on_bad_image!r}")
    opened = open_source(source, data_root=Path(data_root), follow_symlinks=follow_symlinks)
    wishes = Wishes(batch_size, device, engine, workers, shard_rows, test_fraction, image_timeout)
    network = load_backbone(
        backbone, weights=weights, layer=layer, pool=pool, image_size=image_size, mean=mean, std=std
    )
    job = prepare(
        opened,
        network,
        root=Path(cache_dir),
        wishes=wishes,
        store_dtype=store_dtype,
        limit=limit,
        restart=restart,
        rehash=rehash,
    )
    if find_judge is not None and store_dtype != "float32":
        job.judge = find_judge(job.space)
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
        check_disk(plan)
        job.begin()
        counts = _make_shards(job, on_progress)
        entry, more = _publish(job, skip_bad, said, on_progress)
        mark_used(entry)
        computed = counts[0] + more
        return _result(job, entry, (computed, max(0, entry.rows - computed)), started)
    finally:
        job.close()


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
    mark_used(entry)
    save_stat_index(job, job.work.records())  # a process killed after publishing leaves them, and the folder
    job.work.discard()
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


def _publish(job: Job, skip_bad: bool, command: str, on_progress: OnProgress) -> tuple[Entry, int]:
    """Publish the entry. Return it, and how many rows had to be computed (again) meanwhile."""
    job.backbone.check_frozen()
    computed = 0
    for _ in range(ROUNDS):
        entry = publish(job, skip_bad=skip_bad, command=command)
        if entry is not None:
            return entry, computed
        # Another process finished this entry and removed the folder, or a shard was damaged meanwhile.
        job.look_again()
        computed += _make_shards(job, on_progress)[0]
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
        rounding=entry.manifest.get("rounding"),
    )
