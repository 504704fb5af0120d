"""Which engine finishes an extraction soonest, start-up included; and the batch that fits the device's memory."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.engines.registry import REFERENCE, engine_version, installed_engines
from pipeline.errors import UsageError
from pipeline.extraction.deviation import CheckedEngine
from pipeline.extraction.job import Job
from pipeline.threads import cpu_threads

logger = logging.getLogger(__name__)

EAGER = "eager"
FEW_ROWS = 1024
"""Images that are done before it pays to measure."""
TRIAL_ROWS = 16


@dataclass(frozen=True)
class Expected:
    """What to expect of an engine before it is tried here: a guess, which decides only whether it is tried."""

    startup_seconds: float
    speedup: float
    """Against eager. Measured on 2 CPU cores: OpenVINO 1.1 (resnet18), 1.4 (mobilenet_v2), 1.0 (vit_b_16);
    torch.compile 1.0 to 1.1."""


EXPECTED = {"openvino": Expected(5.0, 1.3), "compile": Expected(40.0, 1.1)}


@dataclass(frozen=True)
class Tried:
    """An engine that was measured."""

    engine: CheckedEngine
    images_per_second: float


def choose_engine(jobs: Sequence[Job]) -> None:
    """Give jobs of one pass, none of them begun, the engine that finishes them soonest.

    Eager is timed on a few images, which costs about half a batch; another engine is started only if, by what is
    expected of it, it saves more time than starting it takes, and is taken only if it then proves faster. What came
    of it is in `engine_why` and `images_per_second` of each job.
    """
    first = jobs[0]
    device, dtype = first.recipe.device, first.space.dtype
    others = [name for name in installed_engines(device, dtype) if name not in (REFERENCE, EAGER)]
    rows = max(job.rows_to_compute() for job in jobs)
    if not others or rows < FEW_ROWS:
        why = "no other is installed" if not others else "so few images are done before another has started"
        _give(jobs, EAGER, why, None)
        return
    plain = first.make_engine(EAGER)
    best = Tried(plain, _rate(first, plain, TRIAL_ROWS))
    eager, said = best.images_per_second, [f"eager {best.images_per_second:,.0f} img/s"]
    for name in sorted(others, key=lambda name: EXPECTED[name].startup_seconds):
        expected = EXPECTED[name]
        if expected.startup_seconds + rows / (eager * expected.speedup) >= rows / best.images_per_second:
            said.append(f"{name} would not start in time")
            continue
        try:
            engine = first.make_engine(name)
            rate = _rate(first, engine, first.recipe.batch_size)
        except UsageError as error:
            logger.info("%s", error.message)
            said.append(f"{name} does not take this network")
            continue
        said.append(f"{name} {rate:,.0f} img/s")
        if rate > best.images_per_second:
            best = Tried(engine, rate)
    _give(jobs, best.engine.name, ", ".join(said), best)


def _give(jobs: Sequence[Job], name: str, why: str, tried: Tried | None) -> None:
    for job in jobs:
        if job.recipe.engine != name:
            job.recipe = replace(job.recipe, engine=name, engine_version=engine_version(name))
            job.look_again()  # rows of the same recipe come first
        job.engine_why = why
        job.images_per_second = tried.images_per_second if tried is not None else None
    started = tried.engine if tried is not None and len({job.graphs for job in jobs}) == 1 else None
    engines = jobs[0].engines
    for key in [key for key, engine in engines.items() if engine is not started]:
        del engines[key]


def _rate(job: Job, engine: CheckedEngine, rows: int) -> float:
    """Return images per second of an engine's bare forward pass, once started and warm."""
    size = job.backbone.preprocess.crop
    pixels = np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), np.uint8)
    with cpu_threads(job.recipe.threads):
        engine.engine.features(pixels)
        started = time.perf_counter()
        engine.engine.features(pixels)
    return rows / (time.perf_counter() - started)


def fit_batch(jobs: Sequence[Job]) -> None:
    """Halve the batch of jobs, none of them begun, until it fits the memory of a CUDA device.

    Tried out before the first shard, for the batch is pinned with it.

    Raises:
        UsageError: if not even one image fits.
    """
    import torch

    first = jobs[0]
    size = first.backbone.preprocess.crop

    def run(batch_size: int) -> None:
        for job in jobs:
            job.set_batch_size(batch_size)
        first.engine.engine.features(np.zeros((batch_size, size, size, 3), np.uint8))

    if first.recipe.device == "cuda":
        asked = first.recipe.batch_size
        fitting = largest_fitting(run, asked)
        if fitting != asked:
            torch.cuda.empty_cache()
            logger.warning("a batch of %d does not fit the device's memory: going on with %d", asked, fitting)


def largest_fitting(run: Callable[[int], None], batch_size: int) -> int:
    """Return the largest of `batch_size`, a half of it, a quarter and so on for which `run` finds memory.

    Raises:
        UsageError: if not even one image fits.
    """
    import torch

    while True:
        try:
            run(batch_size)
            return batch_size
        except torch.OutOfMemoryError as error:
            if batch_size == 1:
                raise UsageError(
                    "the device's memory does not hold the network and one image",
                    "Free it from other processes, or use --device cpu.",
                ) from error
        batch_size //= 2
