"""The verb `extract`: who makes what, and the jobs of all layers."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.backbones.augment import Augment
from pipeline.errors import UsageError
from pipeline.extraction.precision import Judge
from pipeline.launch.crews import Alone, Crew, OnDevices, OnRay, Shared
from pipeline.launch.jobs import run_jobs
from pipeline.launch.local import parse_devices
from pipeline.launch.on_ray import driver_request
from pipeline.launch.plan import Plan
from pipeline.launch.request import Request, open_jobs
from pipeline.launch.result import ExtractResult, view_by_view
from pipeline.launch.share import WORKER, Share
from pipeline.progress import OnProgress, ignore
from pipeline.sources.reading import Reading
from pipeline.store.claims import PATIENCE_SECONDS
from pipeline.store.key import FeatureSpace


def extract(
    source: Any,  # noqa: ANN401 - a path or name, or any data set
    *,
    name: str | None = None,
    backbone: str,
    weights: str = "DEFAULT",
    layer: str | None = None,
    beside: Sequence[str] = (),
    pool: str | None = None,
    views: int = 1,
    augment: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    dtype: str = "float32",
    store_dtype: str = "float32",
    batch_size: int | None = None,
    device: str = "auto",
    engine: str = "auto",
    workers: int | None = None,
    resize: str = "workers",
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
    worker: str | None = None,
    worker_timeout: float = PATIENCE_SECONDS,
    devices: Sequence[str] | str | None = None,
    on: str = "here",
    ray_address: str | None = None,
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
        views: how many views of each image are kept, each as an entry of its own: the plain image, and beside it
            random ones, the same in every extraction. Of more views than there are only the new ones are computed.
        augment: what is random about them: `hflip`, `vflip`, `crop:from-to`, `rotate:degrees`, `colour:strength`,
            `grey`, several with commas (`pipeline.backbones.augment`).
        image_size: pixels of a side of what the network sees; default as the weights'.
        mean: of pixels in [0, 1], one value or three; default as the weights'.
        std: as `mean`.
        dtype: what the network computes in: `float32`, `bfloat16`, or on CUDA `tf32` or `float16`.
        store_dtype: `float32` or `float16`, how rows are stored.
        batch_size: images a forward pass, 64 unless an extraction was started with another.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        engine: `reference` (the plain module), `eager`, `compile`, `openvino`, or `auto`: the one that finishes this
            extraction soonest, start-up included.
        workers: loading processes, by default one a core.
        resize: `workers`, or `device`: the same pixels, made where the network runs.
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
        worker: `I/N`, this process's place among N that share the work, from 0; by default what a launcher says in
            the environment (RANK and WORLD_SIZE, a Slurm array, srun, mpirun). Every worker returns the whole entry.
        worker_timeout: seconds after which another worker that gives no sign of life is taken for lost, and what it
            was at is made by others; the same for all of them.
        devices: `cuda:0`, `cuda:1`, …: a process of its own for each, led and shown by this one.
        on: `here`, or `ray`: actors on a Ray cluster, led by this process.
        ray_address: of the cluster; by default RAY_ADDRESS, or else one that is started for this extraction.
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
    share = Share.of(worker)
    team = devices if isinstance(devices, str) else ",".join(devices or ())
    places = parse_devices(team) if team else ()
    if not worker_timeout > 0:
        raise UsageError(f"worker-timeout must be more than 0 seconds, not {worker_timeout:g}")
    _check_workers(share, places, device, restart, on)
    _check_ray(on, ray_address, device)
    reading = Reading(path_column, label_column, split_column, image_column, group_by, unlabelled)
    request = Request(
        source=source,
        name=name,
        backbone=backbone,
        weights=weights,
        layers=(layer, *beside),
        pool=pool,
        image_size=image_size,
        mean=mean,
        std=std,
        dtype=dtype,
        store_dtype=store_dtype,
        batch_size=batch_size,
        device=places[0] if places else device,
        engine=engine,
        workers=workers,
        resize=resize,
        cache_dir=str(cache_dir),
        shard_rows=shard_rows,
        test_fraction=test_fraction,
        limit=limit,
        data_root=str(data_root) if data_root is not None else None,
        follow_symlinks=follow_symlinks,
        reading=reading.to_json(),
        restart=restart,
        rehash=rehash,
        image_timeout=image_timeout,
        views=views,
        augment=None if augment is None else str(Augment.parse(augment)),
    )
    said = command if command is not None else shlex.join(["pipeline", *sys.argv[1:]])
    with ExitStack() as stack:
        crew: Crew = Alone()
        if on == "ray":
            ray = stack.enter_context(closing(OnRay(request, ray_address)))
            crew, request, share = ray, driver_request(request), Share()
        elif places:
            crew, share = OnDevices(request, places), Share(local_count=len(places))
        elif share.count > 1:
            crew = Shared(share, worker_timeout)
        if isinstance(crew, OnRay | OnDevices):
            request.to_json()  # what cannot be told to other processes is refused before any work
        jobs = open_jobs(request, share, find_judge=find_judge)
        for job in jobs:
            stack.callback(job.close)
        results = run_jobs(jobs, crew, on_bad_image == "skip", said, on_plan, on_progress, started)
    first, *others = view_by_view(results, len(set(request.layers)))
    return replace(first, beside=tuple(others))


def _check_ray(on: str, address: str | None, device: str) -> None:
    """Refuse what makes no sense with Ray, or without."""
    if on != "ray" and address is not None:
        raise UsageError(f"--ray-address {address} without --on ray", "Add --on ray, or drop it.")
    if on == "ray" and ":" in device:
        raise UsageError(f"--device {device} with --on ray", "Pass --device cuda: Ray gives each worker a GPU.")


def _check_workers(share: Share, places: tuple[str, ...], device: str, restart: bool, on: str) -> None:
    """Refuse what does not go together."""
    if on not in ("here", "ray"):
        raise UsageError(f"--on {on!r}", "It is here or ray.")
    if on == "ray" and (places or share.told_by == WORKER):
        raise UsageError(
            f"--on ray and {'--devices' if places else '--worker'}", "Pass one of them: Ray says who computes where."
        )
    if places and device != "auto":
        raise UsageError(f"--devices {','.join(places)} and --device {device}", "Pass one of them.")
    if share.told_by == WORKER and share.count > 1 and places:
        raise UsageError("--worker and --devices", "Pass one of them: a worker of several is one process.")
    if restart and share.count > 1 and not places and on == "here":
        raise UsageError(
            f"--restart with {share.count} workers (told by {share.told_by}): each would throw the others' work away",
            "Remove what is there first (pipeline cache rm CACHE), and start the workers without --restart.",
        )
