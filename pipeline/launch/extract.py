"""The verb `extract`: plan, make the missing shards in this process, publish."""

import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.backbone import cut_original, load_original
from pipeline.errors import CacheError, UsageError
from pipeline.extraction.compat import trust_entry
from pipeline.extraction.job import Job, Wishes, prepare
from pipeline.extraction.precision import Judge
from pipeline.extraction.publish import check_images, publish, save_stat_index, whole_entry
from pipeline.extraction.shard import extract_shard, request_shard
from pipeline.extraction.together import align, share
from pipeline.launch.plan import Plan, check_disk, plan_of
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.sources.dataset import dataset_source
from pipeline.sources.reading import Reading
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
    layer: str
    pool: str
    beside: "tuple[ExtractResult, ...]" = ()
    """Of the other layers of the same pass."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; of several layers `{"entries": [...]}` with those of each."""
        if self.beside:
            return {"entries": [replace(self, beside=()).to_json(), *(result.to_json() for result in self.beside)]}
        return {name: value for name, value in asdict(self).items() if name != "beside"}


def extract(
    source: Any,  # noqa: ANN401 - a path or name, or any data set
    *,
    name: str | None = None,
    backbone: str,
    weights: str = "DEFAULT",
    layer: str | None = None,
    beside: Sequence[str] = (),
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
    data_root: str | Path | None = None,
    follow_symlinks: bool = False,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    image_column: str | None = None,
    group_by: str | None = None,
    unlabelled: bool = False,
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
        source: a folder, a table, tar shards, `digits`, a torchvision data set's name, `hf:NAME`; or a data set
            with `__len__` and `__getitem__` -> (image, label), or a dict of them: `{"train": …, "test": …}`.
        name: what a data set is called in the cache; default its class's name.
        backbone: a torchvision classification model, `timm/<model>`, or `package.module:function`.
        weights: `DEFAULT`, one of the library's names, `none` (random, seed 0) or a .safetensors/.pth file.
        layer: a module whose output is kept, `input:<module>` for its input; default the original classifier's input.
        beside: more layers, whose features are kept in the same pass, each as the entry it would be alone.
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
        data_root: where torchvision's data sets are or go, by default `data`; what a table's paths are relative to,
            by default its own folder.
        follow_symlinks: accept links that lead out of the source folder.
        path_column: the table's column of paths, by default `path`.
        label_column: the column of labels, by default `label`.
        split_column: the table's column of splits, by default `split` if it has one.
        image_column: the Hugging Face data set's column of images.
        group_by: a column, or `folder:N`: samples of one group stay on one side of a split.
        unlabelled: look for no labels; the entry has no classes and `Features.y` is -1.
        restart: forget an interrupted extraction and compute a finished entry's rows anew.
        rehash: read and hash every file, whatever is remembered of it.
        image_timeout: seconds after which decoding one image is given up.
        on_plan: called with the plan of each layer before any work; what it raises stops the extraction there.
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
    reading = Reading(path_column, label_column, split_column, image_column, group_by, unlabelled)
    if not isinstance(source, str | PathLike):
        opened = dataset_source(source, name, reading)
    elif name is not None:
        raise UsageError("a name is for data sets given as objects", f"Drop name={name!r}.")
    else:
        root = Path(data_root) if data_root is not None else None
        opened = open_source(str(source), data_root=root, follow_symlinks=follow_symlinks, reading=reading)
    wishes = Wishes(batch_size, device, engine, workers, shard_rows, test_fraction, image_timeout)
    original = load_original(backbone, weights=weights, image_size=image_size, mean=mean, std=std)
    jobs: list[Job] = []
    for network in cut_original(original, list(dict.fromkeys([layer, *beside])), pool):
        job = prepare(
            opened,
            network,
            root=Path(cache_dir),
            wishes=wishes,
            store_dtype=store_dtype,
            limit=limit,
            restart=restart,
            rehash=rehash,
            beside=jobs[0] if jobs else None,
        )
        if find_judge is not None and store_dtype != "float32":
            job.judge = find_judge(job.space)
        jobs.append(job)
    said = command if command is not None else shlex.join(["pipeline", *sys.argv[1:]])
    try:
        results = _extract(jobs, on_bad_image == "skip", said, on_plan, on_progress, started)
    finally:
        for job in jobs:
            job.close()
    return replace(results[0], beside=tuple(results[1:]))


def _extract(
    jobs: list[Job],
    skip_bad: bool,
    command: str,
    on_plan: Callable[[Plan], None] | None,
    on_progress: OnProgress,
    started: float,
) -> list[ExtractResult]:
    """Find the finished entries of a pass and make the others. Return a result for each job."""
    finished = [None if job.restart else _found(job) for job in jobs]
    todo = [job for job, found in zip(jobs, finished, strict=True) if found is None]
    if len(todo) > 1:
        align(todo)
    plans = [plan_of(job, None if found is None else found[0]) for job, found in zip(jobs, finished, strict=True)]
    for plan in plans:
        if on_plan is not None:
            on_plan(plan)
    counts: dict[int, tuple[int, int]] = {}
    if todo:
        todo[0].backbone.check_image_size()
        check_disk(plans)
        for job in todo:
            job.begin()
        for group in share(todo):
            counts |= dict(zip(map(id, group), _make_shards(group, on_progress), strict=True))
    results = []
    for job, found in zip(jobs, finished, strict=True):
        if found is not None:
            results.append(_hit(job, *found, skip_bad, started))
            continue
        made, more = _publish(job, skip_bad, command, on_progress)
        mark_used(made)
        computed = counts[id(job)][0] + more
        results.append(_result(job, made, (computed, max(0, made.rows - computed)), started))
    return results


def _found(job: Job) -> tuple[Entry, list[tuple[str, str]]] | None:
    """Return the finished entry and its unusable images, (id, reason) each, read while it was there."""
    for left in reversed(range(ROUNDS)):
        entry = _finished(job)
        if entry is None:
            break
        try:
            return entry, [(item["id"], item["reason"]) for item in entry.skipped()]
        except CacheError:  # another process has removed or replaced it just now
            if not left:
                raise
    return None


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


def _hit(job: Job, entry: Entry, skipped: list[tuple[str, str]], skip_bad: bool, started: float) -> ExtractResult:
    check_images(skipped, int(entry.manifest["samples_listed"]), skip_bad=skip_bad)
    mark_used(entry)
    save_stat_index(job, job.work.records())  # a process killed after publishing leaves them, and the folder
    job.work.discard()
    return _result(job, entry, (0, entry.rows), started)


def _make_shards(jobs: list[Job], on_progress: OnProgress) -> list[tuple[int, int]]:
    """Make every shard that is missing of jobs that share a pass. Return (rows computed, rows reused) of each."""
    missing = [job.missing() for job in jobs]
    tallies = [
        {"computed": 0, "reused": _rows(job, set(range(job.shards)).difference(numbers)), "skipped": 0}
        for job, numbers in zip(jobs, missing, strict=True)
    ]

    def report(tally: dict[str, int], computed: int, reused: int, skipped: int) -> None:
        tally["computed"] += computed
        tally["reused"] += reused
        tally["skipped"] += skipped
        total = {key: sum(one[key] for one in tallies) for key in tally}
        seconds = {key: sum(job.seconds[key] for job in jobs) for key in jobs[0].seconds}
        on_progress(
            Progress(
                sum(total.values()),
                len(jobs[0].listing) * len(jobs),
                **total,
                bottleneck=max(seconds, key=seconds.__getitem__),
            )
        )

    report(tallies[0], 0, 0, 0)
    numbers = sorted({number for numbers in missing for number in numbers})
    waiting = [[place for place, those in enumerate(missing) if number in those] for number in numbers]
    for at, number in enumerate(numbers):
        lead = jobs[waiting[at][0]]
        if lead.shared is not None:
            lead.shared.begin([jobs[place] for place in waiting[at]])
        request_shard(lead, number)
        if at + 1 < len(numbers) and jobs[waiting[at + 1][0]] is lead:
            request_shard(lead, numbers[at + 1])  # so that the workers stay busy in between
        for place in waiting[at]:
            extract_shard(jobs[place], number, partial(report, tallies[place]))
    return [(tally["computed"], tally["reused"]) for tally in tallies]


def _rows(job: Job, numbers: Iterable[int]) -> int:
    return sum(job.span(number).stop - job.span(number).start for number in numbers)


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
        computed += _make_shards([job], on_progress)[0][0]
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
        layer=entry.space.layer,
        pool=entry.space.pool,
    )
