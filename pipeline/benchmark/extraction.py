"""Rates of an extraction and of all it is compared with, taken in turns; claims (a), (b) and (c) are made of them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.registry import TORCHVISION
from pipeline.benchmark.child import Child
from pipeline.benchmark.decoding import decoders
from pipeline.benchmark.loop import WARM_BATCHES
from pipeline.benchmark.sockets import check_room_for_sockets
from pipeline.benchmark.timing import OnStep, Spread, combined, interleaved, silent
from pipeline.benchmark.variants import EXACT, Variant, fastest, start_engines
from pipeline.device import resolve_device
from pipeline.engines.engine import Engine
from pipeline.errors import UsageError
from pipeline.launch.extract import extract
from pipeline.loading.loader import auto_workers
from pipeline.progress import Progress
from pipeline.threads import cpu_threads, default_threads

LOOP_WORKERS = (0, 2)
LOOP_QUEUE = 4
"""Batches that a DataLoader with 2 workers decodes ahead."""
SPARE_SLOTS = 2
"""Batches that the loader has room for beside one a worker."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


@dataclass(frozen=True)
class Case:
    """Images and a backbone."""

    backbone: str
    folder: Path
    """Of class folders."""
    images: str
    """What they are, for people."""
    weights: str = "none"
    image_size: int = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    device: str = "auto"
    engines: tuple[str, ...] = ()
    """Those to measure, by default every one that is installed."""

    @property
    def space(self) -> dict[str, Any]:
        """What `extract` and `load_backbone` are told of the backbone and its input."""
        return {"weights": self.weights, "image_size": self.image_size, "mean": self.mean, "std": self.std}


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    repeats: int = 3
    batch_size: int = 64
    forward_seconds: float = 4.0
    """Of each engine in a round; at least one batch."""
    loop_batches: int = 10
    """Of each loop in a round; three rounds make the 30 that an epoch is extrapolated from."""
    extract_seconds: float = 10.0
    """About how long an extraction is to take: it gets so many images."""
    decode_seconds: float = 2.0

    @property
    def images(self) -> int:
        """How many images the loops need."""
        return (WARM_BATCHES + self.loop_batches + LOOP_QUEUE) * self.batch_size


@dataclass(frozen=True)
class Extracted:
    """An engine's extractions, one a round."""

    images: int
    steady: Spread
    """Images a second from the first batch on, to the finished entry. Decoding what may have been decoded before is
    charged at the rate of decoding alone."""
    startup: Spread
    """Seconds until the first batch was through."""
    whole: Spread
    """Images a second of the whole call."""


@dataclass(frozen=True)
class Rates:
    """Images a second, all taken in turns."""

    case: Case
    effort: Effort
    device: str
    cores: int
    dim: int
    forward: Mapping[Variant, Spread]
    decode: Spread
    extracted: Mapping[Variant, Extracted]
    loops: Mapping[int, Spread]
    """By the DataLoader's workers."""
    notes: tuple[str, ...]

    @property
    def best_loop(self) -> tuple[int, Spread]:
        """The faster loop: what everything is compared with."""
        return max(self.loops.items(), key=lambda item: item[1].median)

    @property
    def best_exact(self) -> Variant:
        """The fastest extraction in float32."""
        return max(
            (variant for variant in self.extracted if variant.dtype == EXACT),
            key=lambda variant: self.extracted[variant].steady.median,
        )


def measure_rates(
    case: Case,
    effort: Effort,
    root: Path,
    more: Mapping[str, Callable[[], float]] | None = None,
    on_step: OnStep = silent,
) -> Rates:
    """Measure engines, decoding, extractions and loops in turns.

    Args:
        case: what is extracted.
        effort: how much of it.
        root: a folder for caches.
        more: other measurements to take in the same turns; what they return is theirs to keep.
        on_step: called before each measurement.

    Raises:
        UsageError: if there are too few images, or the loops could not run.
    """
    check_room_for_sockets()
    device = resolve_device(case.device)
    files = sorted(path for path in case.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(files) < effort.images:
        raise UsageError(
            f"{case.folder} has {len(files):,} images; the loops to compare with take {effort.images:,}",
            "Give more of them, or pass --quick.",
        )
    backbone = load_backbone(case.backbone, **case.space)
    pixels = np.random.default_rng(0).integers(0, 256, (effort.batch_size, case.image_size, case.image_size, 3))
    pixels = pixels.astype(np.uint8)
    with cpu_threads(default_threads()), ExitStack() as stack:
        engines, tried, notes = start_engines(case.engines, backbone, device, pixels, on_step)
        on_step("starting loops and decoding processes")
        alternatives: dict[str, Callable[[], float]] = stack.enter_context(_loops(case, effort, device.type))
        decode = decoders(files, backbone.preprocess, default_threads(), effort.decode_seconds)
        alternatives["decode alone"] = stack.enter_context(decode)
        runs = {}
        best = fastest(tried)
        for variant in sorted(engines, key=best.__contains__):
            alternatives[f"forward, {variant}"] = partial(_forward, engines[variant], pixels, effort.forward_seconds)
            if variant in best:  # right after its forward: the speed of a shared host drifts within a round
                images = min(len(files), max(4 * effort.batch_size, int(tried[variant] * effort.extract_seconds)))
                runs[variant] = _Run(case, effort, variant, images, root / str(variant).replace(" ", "-"))
                alternatives[f"extract, {variant}"] = runs[variant].measure
        found = interleaved({**alternatives, **(more or {})}, effort.repeats, on_step)
    return Rates(
        case,
        effort,
        device.type,
        default_threads(),
        backbone.row_shape[0],
        {variant: found[f"forward, {variant}"] for variant in engines},
        found["decode alone"],
        {variant: run.extracted(found[f"extract, {variant}"], found["decode alone"]) for variant, run in runs.items()},
        {workers: found[f"loop, {workers} workers"] for workers in LOOP_WORKERS},
        notes,
    )


def plain_name(backbone: str) -> str:
    """Return the name torchvision has a backbone under: the loops to compare with know no others.

    Raises:
        UsageError: if it has none.
    """
    return TORCHVISION.checked(backbone.removeprefix(TORCHVISION.prefix))


def _forward(engine: Engine, pixels: np.ndarray, seconds: float) -> float:
    """Return images a second of an engine that is given the same batch again and again for so many seconds."""
    started, batches, spent = time.perf_counter(), 0, 0.0
    while spent < seconds:
        engine.features(pixels)
        batches += 1
        spent = time.perf_counter() - started
    return batches * len(pixels) / spent


@contextmanager
def _loops(case: Case, effort: Effort, device: str) -> Iterator[dict[str, Callable[[], float]]]:
    """Start a process for each loop; yield what measures the images a second of each."""
    with ExitStack() as stack:
        children = {
            f"loop, {workers} workers": stack.enter_context(_loop(case, effort, device, workers))
            for workers in LOOP_WORKERS
        }
        for child in children.values():
            child.wait_ready()
        yield {name: partial(_asked, child) for name, child in children.items()}


def _loop(case: Case, effort: Effort, device: str, workers: int) -> Child:
    return Child(
        "pipeline.benchmark.loop",
        "plain_loop",
        folder=str(case.folder),
        backbone=plain_name(case.backbone),
        image_size=case.image_size,
        mean=case.mean,
        std=case.std,
        batch_size=effort.batch_size,
        workers=workers,
        batches=effort.loop_batches,
        device=device,
    )


def _asked(child: Child) -> float:
    child.ask()
    return float(child.answer()["images_per_second"])


@dataclass
class _Run:
    """Extractions with one engine, each from the first image on."""

    case: Case
    effort: Effort
    variant: Variant
    images: int
    root: Path
    after_first: int = 0
    """Images after the first batch."""
    startup: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def measure(self) -> float:
        """Extract, and return the seconds from the first batch to the finished entry."""
        first: list[tuple[float, int]] = []

        def note(progress: Progress) -> None:
            if progress.computed and not first:
                first.append((time.perf_counter(), progress.computed))

        started = time.perf_counter()
        made = extract(
            self.case.folder,
            backbone=self.case.backbone,
            **self.case.space,
            engine=self.variant.engine,
            dtype=self.variant.dtype,
            batch_size=self.effort.batch_size,
            device=self.case.device,
            limit=self.images,
            cache_dir=self.root,
            restart=True,
            test_fraction=0.0,
            on_progress=note,
            command="pipeline benchmark",
        )
        ended = time.perf_counter()
        at, rows = first[0]
        self.images, self.after_first = made.computed, made.computed - rows
        self.startup.append(at - started)
        self.whole.append(made.computed / (ended - started))
        return ended - at

    def extracted(self, seconds: Spread, decode: Spread) -> Extracted:
        """Return the rates; `decode` is the images a second of decoding alone."""
        ahead = min(self.after_first, (auto_workers() + SPARE_SLOTS) * self.effort.batch_size)
        steady = combined(lambda spent, rate: self.after_first / (spent + ahead / rate), seconds, decode)
        return Extracted(self.images, steady, Spread(tuple(self.startup)), Spread(tuple(self.whole)))
