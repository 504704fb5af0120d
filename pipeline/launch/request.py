"""What `extract` was asked for, as a value that other processes and machines can be given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Self

from pipeline.backbones.augment import Augment, View
from pipeline.backbones.backbone import Backbone, cut_original, load_original
from pipeline.device import local_device
from pipeline.errors import UsageError
from pipeline.extraction.job import Job
from pipeline.extraction.precision import Judge
from pipeline.extraction.prepare import prepare
from pipeline.extraction.recipe import Wishes
from pipeline.launch.share import Share
from pipeline.sources.dataset import dataset_source
from pipeline.sources.reading import Reading
from pipeline.sources.resolve import open_source
from pipeline.sources.source import Source
from pipeline.store.key import FeatureSpace


@dataclass(frozen=True)
class Request:
    """All that decides what an extraction makes; `launch.extract.extract` says what each field means."""

    source: Any
    name: str | None
    backbone: str
    weights: str
    layers: tuple[str | None, ...]
    pool: str | None
    image_size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    dtype: str
    store_dtype: str
    batch_size: int | None
    device: str
    engine: str
    workers: int | None
    resize: str
    cache_dir: str
    shard_rows: int | None
    test_fraction: float
    limit: int | None
    data_root: str | None
    follow_symlinks: bool
    reading: Mapping[str, Any]
    """Fields of a `Reading`."""
    restart: bool
    rehash: bool
    image_timeout: float
    views: int = 1
    """How many views of each image; the first is the plain image."""
    augment: str | None = None
    """What the others show, as `backbones.augment.Augment` spells it."""

    def __post_init__(self) -> None:
        if self.views < 1:
            raise UsageError(f"views must be at least 1, not {self.views}: the first is the plain image")
        if self.views > 1 and self.augment is None:
            raise UsageError(
                f"--views {self.views} needs an --augment: view 0 is the plain image, the others are random",
                "Such as --augment hflip,crop:0.8-1,colour:0.2",
            )
        if self.augment is not None and self.views == 1:
            raise UsageError("--augment needs --views 2 or more: view 0 is the plain image")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; `from_json` is the way back.

        Raises:
            UsageError: if the source is an object of this process.
        """
        if not isinstance(self.source, str | PathLike):
            raise UsageError(
                "a data set given as an object cannot be given to other processes",
                "Name its files: a folder, a table, tar shards, hf:NAME or a torchvision data set's name.",
            )
        return {**asdict(self), "source": fspath(self.source)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Build from `to_json`'s fields."""
        tuples = {name: tuple(value[name]) for name in ("layers", "mean", "std") if value[name] is not None}
        return cls(**{**value, **tuples})


def open_jobs(
    request: Request,
    share: Share,
    *,
    join: bool = False,
    find_judge: Callable[[FeatureSpace], Judge | None] | None = None,
) -> list[Job]:
    """Open source and backbone, and prepare a job for each layer of each view, view by view.

    `share` says how many workers use this machine's cores and devices; with `join` another process has begun the
    work; `find_judge` is as in `extract`.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    source = _open(request)
    wishes = Wishes(
        request.batch_size,
        local_device(request.device, share.local_index),
        request.engine,
        request.workers,
        request.shard_rows,
        request.test_fraction,
        request.image_timeout,
        request.dtype,
        request.resize,
        share.local_count,
    )
    original = load_original(
        request.backbone, weights=request.weights, image_size=request.image_size, mean=request.mean, std=request.std
    )
    cuts = cut_original(original, list(dict.fromkeys(request.layers)), request.pool)
    jobs: list[Job] = []
    for network, view in _seen(cuts, request):
        job = prepare(
            source,
            replace(network, preprocess=replace(network.preprocess, view=view)),
            root=Path(request.cache_dir),
            wishes=wishes,
            store_dtype=request.store_dtype,
            limit=request.limit,
            restart=request.restart,
            rehash=request.rehash,
            join=join,
            beside=jobs[0] if jobs else None,
        )
        if find_judge is not None and request.store_dtype != "float32":
            job.judge = find_judge(job.space)
        jobs.append(job)
    return jobs


def _seen(cuts: Sequence[Backbone], request: Request) -> Iterator[tuple[Backbone, View | None]]:
    """Yield each cut with each view, the plain one first."""
    for number in range(request.views):
        view = View(Augment.parse(request.augment), number) if request.augment is not None and number else None
        yield from ((network, view) for network in cuts)


def _open(request: Request) -> Source:
    reading = Reading.from_json(request.reading)
    if not isinstance(request.source, str | PathLike):
        return dataset_source(request.source, request.name, reading)
    if request.name is not None:
        raise UsageError("a name is for data sets given as objects", f"Drop name={request.name!r}.")
    root = Path(request.data_root) if request.data_root is not None else None
    return open_source(str(request.source), data_root=root, follow_symlinks=request.follow_symlinks, reading=reading)
