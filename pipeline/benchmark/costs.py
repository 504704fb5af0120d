"""(s) Time and money of extractions of up to a billion images on machines like this one, and the model's own check."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.backbone import load_backbone
from pipeline.benchmark.decoding import decoders
from pipeline.benchmark.extraction import SUFFIXES, Case
from pipeline.benchmark.figures import BYTES_A_SECOND, IMAGES_A_SECOND, SECONDS, TIMES, Claim, Figure, Table
from pipeline.benchmark.phases import FEW, FLOAT_BYTES, MANY, NARROW, WIDE, Phases, constants_from, measure_phases
from pipeline.benchmark.photos import KINDS, make_images
from pipeline.benchmark.scaling import HOUR, Constants, Estimate, estimate, linear_up_to
from pipeline.benchmark.timing import OnStep, Spread, silent
from pipeline.benchmark.variants import EXACT
from pipeline.device import resolve_device
from pipeline.engines.registry import installed_engines, make_engine
from pipeline.threads import cpu_threads, default_threads

IMAGES = (1_000_000, 100_000_000, 1_000_000_000)
WORKERS = (1, 8, 64, 1_000)
UP_TO = tuple(2**power for power in range(15))
FILES = 256
"""Images that are made to be decoded again and again."""


def measure_costs(
    *,
    backbone: str = "resnet18",
    kind: str = "photos",
    folder: Path | None = None,
    image_size: int = 224,
    device: str = "auto",
    engines: Sequence[str] = (),
    batch_size: int = 64,
    seconds: float = 4.0,
    few: int = FEW,
    many: int = MANY,
    price: float = 0.0,
    on_step: OnStep = silent,
) -> Claim:
    """Measure this machine's constants; say what they come to.

    Args:
        backbone: of torchvision, with random weights.
        kind: what images are made, `photos` or `small`.
        folder: of images, instead.
        image_size: pixels of a side that the network sees.
        device: where the network computes.
        engines: to choose the fastest of; by default all that are installed.
        batch_size: of the network.
        seconds: that the network, and decoding, are each measured for.
        few: rows of the smaller extractions.
        many: rows of the larger one.
        price: of an hour of a worker, in any money; 0 shows no money.
        on_step: called before each measurement.

    Raises:
        UsageError: if a name is not known.
    """
    case = Case(backbone, folder or Path(), KINDS[kind].name, image_size=image_size, device=device)
    forward, engine, dim = _forward(case, engines, batch_size, seconds, on_step)
    decode = _decode(case, folder, kind, seconds, on_step)
    constants = constants_from(
        _phases(few, NARROW, on_step),
        _phases(many, NARROW, on_step),
        _phases(few, WIDE, on_step),
        forward=forward,
        decode=decode,
        row_bytes=FLOAT_BYTES * dim,
        shared_cores=resolve_device(device).type == "cpu",
    )
    conditions = {"backbone": backbone, "engine": engine, "images": kind, "few": few, "many": many}
    title = f"{backbone} by {engine} · {case.images} · {default_threads()} cores a worker"
    return costs_claim(constants, price=price, title=title, conditions=conditions)


def costs_claim(
    constants: Constants, *, price: float = 0.0, title: str = "", conditions: dict[str, Any] | None = None
) -> Claim:
    """Return what constants come to at so much an hour of a worker; no money where that is 0."""
    found = [estimate(constants, images, workers) for images in IMAGES for workers in WORKERS]
    linear = ", ".join(f"{linear_up_to(constants, images, UP_TO):,} for {_short(images)}" for images in IMAGES)
    return Claim(
        "s",
        f"time and money · {title}",
        _figures(constants),
        {**(conditions or {}), "price": price},
        ("the most workers whose hours are 0.8 as well spent as those of one alone:", f"  {linear} images"),
        (_table(found, price),),
    )


def check_model(
    *, few: int = FEW, many: int = MANY, rows: Sequence[int] = (100_000, 1_000_000), on_step: OnStep = silent
) -> Claim:
    """Measure the constants on few rows, and hold what they foretell against extractions of more.

    The network takes no time, so that all that is left is what the other terms are about.
    """
    constants = constants_from(
        narrow := _phases(few, NARROW, on_step),
        _phases(many, NARROW, on_step),
        _phases(few, WIDE, on_step),
        forward=0.0,
        decode=0.0,
        row_bytes=narrow.row_bytes,
        shared_cores=True,
    )
    figures: list[Figure] = []
    for size in (few, *rows):
        found, told = _phases(size, NARROW, on_step), estimate(constants, size, 1)
        figures += [
            Figure(f"{size:,} rows, foretold", SECONDS, Spread.of(told.seconds)),
            Figure(f"{size:,} rows, measured", SECONDS, Spread.of(found.seconds)),
            *(
                Figure(f"  measured/foretold{what}", TIMES, Spread.of(measured / foretold))
                for what, measured, foretold in _compared(found, told)
            ),
        ]
    return Claim("s", "the model against extractions", (*_figures(constants), *figures), {"rows": list(rows)})


def _compared(found: Phases, told: Estimate) -> list[tuple[str, float, float]]:
    making = told.terms["rows"] + told.terms["writing"]
    return [
        ("", found.seconds, told.seconds),
        (", start", found.start, told.terms["starting"] + told.terms["listing"]),
        (", shards", found.make, making),
        (", publishing", found.publish, told.terms["publishing"]),
    ]


def _phases(rows: int, dim: int, on_step: OnStep) -> Phases:
    on_step(f"{rows:,} rows of {dim:,} features, a network that takes no time")
    return measure_phases(rows, dim)


def _forward(case: Case, engines: Sequence[str], batch: int, seconds: float, on_step: OnStep) -> tuple[float, str, int]:
    """Return the seconds of an image in the fastest exact engine, its name, and the features a row."""
    network, device = load_backbone(case.backbone, **case.space), resolve_device(case.device)
    shape = (batch, case.image_size, case.image_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found: dict[str, float] = {}
    with cpu_threads(default_threads()):
        for name in engines or installed_engines(device.type, EXACT):
            on_step(f"forward, {name}")
            engine = make_engine(name, network.network, network.preprocess, device, dtype=EXACT)
            engine.features(pixels)
            began, batches = time.perf_counter(), 0
            while (spent := time.perf_counter() - began) < seconds or not batches:
                engine.features(pixels)
                batches += 1
            found[name] = spent / (batches * batch)
    best = min(found, key=found.__getitem__)
    return found[best], best, int(np.prod(network.row_shape))


def _decode(case: Case, folder: Path | None, kind: str, seconds: float, on_step: OnStep) -> float:
    """Return the seconds of an image decoded by all cores."""
    preprocess = load_backbone(case.backbone, **case.space).preprocess
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as temporary:
        place = folder or make_images(Path(temporary) / kind, KINDS[kind], FILES)
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        on_step("decoding alone")
        with decoders(files, preprocess, default_threads(), seconds) as measure:
            return 1 / measure()


def _figures(constants: Constants) -> tuple[Figure, ...]:
    rates = (
        ("forward F", IMAGES_A_SECOND, constants.forward),
        ("decode D, all cores", IMAGES_A_SECOND, constants.decode),
        ("features written, durable", BYTES_A_SECOND, constants.written),
        ("features read back to publish", BYTES_A_SECOND, constants.read),
    )
    return (
        Figure("start, to the first batch", SECONDS, Spread.of(constants.start)),
        Figure("an image listed", SECONDS, Spread.of(constants.listed)),
        Figure("a row made, without its network", SECONDS, Spread.of(constants.row)),
        Figure("a row published", SECONDS, Spread.of(constants.published)),
        *(Figure(name, unit, Spread.of(1 / cost)) for name, unit, cost in rates if cost),
    )


def _table(found: Sequence[Estimate], price: float) -> Table:
    columns = ("images", "workers", "hours", "worker-hours", *(("money",) if price else ()), "longest")
    rows = tuple(
        (
            one.images,
            one.workers,
            one.seconds / HOUR,
            one.worker_hours,
            *((one.money(price),) if price else ()),
            one.longest,
        )
        for one in found
    )
    return Table(columns, rows)


def _short(images: int) -> str:
    return f"{images // 1_000_000:,} M" if images < IMAGES[-1] else f"{images // IMAGES[-1]:,} B"
