"""The verb `benchmark`: claims measured one after another, in a temporary folder that is removed at the end."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.backbones.backbone import load_backbone
from pipeline.benchmark.claims import epoch_claim, extraction_claim, trained_claim
from pipeline.benchmark.costs import measure_costs
from pipeline.benchmark.exact import measure_exact
from pipeline.benchmark.extraction import Case, Effort, measure_rates, plain_name
from pipeline.benchmark.figures import Claim, Report
from pipeline.benchmark.growth import measure_growth
from pipeline.benchmark.heads import Trainings
from pipeline.benchmark.machine import describe_machine
from pipeline.benchmark.minibatch import measure_minibatch
from pipeline.benchmark.photos import KINDS, make_images
from pipeline.benchmark.reading import measure_reading
from pipeline.benchmark.sweeps import measure_sweep
from pipeline.benchmark.timing import OnStep, silent
from pipeline.benchmark.variants import check_engines
from pipeline.device import resolve_device
from pipeline.errors import UsageError, nearest

CLAIMS = {
    "a": "images/s of extract against the bare forward, decoding and the plain loop",
    "b": "an epoch from the cache against one end to end",
    "c": "time to a trained head, extraction included",
    "d": "logistic regression to its optimum against scikit-learn",
    "e": "many heads at once against the same one by one",
    "f": "a verified read against a raw one",
    "g": "growth of time and memory with rows",
    "m": "an epoch of the head against the plain loop over cached features",
    "s": "time and money of up to a billion images",
}
OF_RATES = ("a", "b", "c")
QUICK = Effort(repeats=2, batch_size=16, forward_seconds=0.3, loop_batches=2, extract_seconds=1.0, decode_seconds=0.3)
MORE_IMAGES = 2
"""How many times the images that the loops need are made, so that a fast engine does not run out of them."""


@dataclass(frozen=True)
class Wanted:
    """What is to be measured, and how much of it."""

    only: tuple[str, ...] = tuple(CLAIMS)
    backbones: tuple[str, ...] = ("resnet18",)
    weights: str = "none"
    kinds: tuple[str, ...] = ("small",)
    """Keys of `photos.KINDS`: what is made where there is no folder of images."""
    images: Path | None = None
    image_size: int = 224
    engines: tuple[str, ...] = ()
    device: str = "auto"
    effort: Effort = field(default_factory=Effort)
    rows: int = 50_000
    """Of an epoch."""
    read_rows: int = 20_000
    growth: tuple[int, ...] = (10_000, 100_000)
    price_per_hour: float = 0.0
    """Of a worker, in any money."""
    quick: bool = False

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in CLAIMS:
                raise UsageError(f"unknown claim {name!r}.{nearest(name, CLAIMS)}", f"Known: {', '.join(CLAIMS)}")
        if self.image_size < 1:
            raise UsageError(f"image-size must be at least 1, not {self.image_size}")
        if not 0 <= self.price_per_hour < math.inf:
            raise UsageError(f"price-per-hour must be 0 or more, not {self.price_per_hour:g}")

    def smaller(self) -> "Wanted":
        """Return the same with sizes that show in seconds that it works, and nothing else."""
        return replace(self, effort=QUICK, rows=2_000, read_rows=2_000, growth=(500, 1_000), quick=True)


def _reading(wanted: Wanted, on_step: OnStep) -> Claim:
    return measure_reading(rows=wanted.read_rows, on_step=on_step)


def _growth(wanted: Wanted, on_step: OnStep) -> Claim:
    return measure_growth(rows=wanted.growth, repeats=1 if wanted.quick else 3, on_step=on_step)


def _exact(wanted: Wanted, on_step: OnStep) -> Claim:
    sizes: dict[str, Any] = {"rows": 20_000, "dim": 512}
    small: dict[str, Any] = {"rows": 1_000, "dim": 32, "max_iterations": 50}
    return measure_exact(**(small if wanted.quick else sizes), repeats=1, on_step=on_step)


def _sweep(wanted: Wanted, on_step: OnStep) -> Claim:
    sizes: dict[str, Any] = {"heads": 200, "repeats": 2}
    small: dict[str, Any] = {"heads": 8, "epochs": 1, "rows": 1_000, "dim": 32, "sample": 1, "repeats": 1}
    return measure_sweep(**(small if wanted.quick else sizes), on_step=on_step)


def _minibatch(wanted: Wanted, on_step: OnStep) -> Claim:
    sizes: dict[str, Any] = {"repeats": 3}
    small: dict[str, Any] = {"rows": 1_000, "dim": 32, "repeats": 1}
    return measure_minibatch(**(small if wanted.quick else sizes), on_step=on_step)


def _costs(wanted: Wanted, on_step: OnStep) -> Claim:
    small: dict[str, Any] = {"batch_size": QUICK.batch_size, "seconds": 0.2, "few": 512, "many": 1_024}
    return measure_costs(
        backbone=wanted.backbones[0],
        kind=wanted.kinds[-1],
        folder=wanted.images,
        image_size=wanted.image_size,
        device=wanted.device,
        engines=wanted.engines,
        price=wanted.price_per_hour,
        **(small if wanted.quick else {}),
        on_step=on_step,
    )


ALONE: dict[str, Callable[[Wanted, OnStep], Claim]] = {
    "d": _exact,
    "e": _sweep,
    "f": _reading,
    "g": _growth,
    "m": _minibatch,
    "s": _costs,
}
"""Claims that share no measurement with others, in the order they are shown."""


def benchmark(wanted: Wanted, on_step: OnStep = silent) -> Report:
    """Measure.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    date, started = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    machine = describe_machine()
    claims: list[Claim] = []
    if set(wanted.only) & set(OF_RATES):
        claims += measure_extractions(wanted, on_step)
    claims += [measure(wanted, on_step) for key, measure in ALONE.items() if key in wanted.only]
    return Report(machine, tuple(claims), date, time.perf_counter() - started, wanted.quick)


def measure_extractions(wanted: Wanted, on_step: OnStep = silent) -> list[Claim]:
    """Measure (a), (b) and (c), those that are wanted, for each backbone on each kind of images.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    check_engines(wanted.engines, resolve_device(wanted.device).type)
    for backbone in wanted.backbones:
        plain_name(backbone)
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as temporary:
        root = Path(temporary)
        for images, folder in _folders(wanted, root, on_step):
            for backbone in wanted.backbones:
                case = Case(
                    backbone,
                    folder,
                    images,
                    weights=wanted.weights,
                    image_size=wanted.image_size,
                    device=wanted.device,
                    engines=wanted.engines,
                )
                with tempfile.TemporaryDirectory(dir=root) as place:
                    claims += _claims_of(case, wanted, Path(place), on_step)
    return claims


def _folders(wanted: Wanted, root: Path, on_step: OnStep) -> Sequence[tuple[str, Path]]:
    """Return what images there are and where: the user's, or made ones."""
    if wanted.images is not None:
        return [(f"images of {wanted.images.name}", wanted.images)]
    found = []
    for name in wanted.kinds:
        kind, count = KINDS[name], MORE_IMAGES * wanted.effort.images
        on_step(f"making {count:,} {kind.name}")
        found.append((kind.name, make_images(root / name, kind, count)))
    return found


def _claims_of(case: Case, wanted: Wanted, root: Path, on_step: OnStep) -> list[Claim]:
    asked = not wanted.quick
    trained: Trainings | None = None
    more: dict[str, Callable[[], float]] = {}
    if set(wanted.only) & {"b", "c"}:
        on_step(f"making {wanted.rows:,} rows of features to train on")
        dim = load_backbone(case.backbone, **case.space).row_shape[0]
        trained = Trainings(root / "heads", wanted.rows, dim)
        trained.prepare()
        more["train-head"] = trained.measure
    rates = measure_rates(case, wanted.effort, root, more, on_step)
    claims = [extraction_claim(rates, asked=asked)] if "a" in wanted.only else []
    if trained is not None:
        claims += [epoch_claim(rates, trained, asked=asked)] if "b" in wanted.only else []
        claims += [trained_claim(rates, trained, asked=asked)] if "c" in wanted.only else []
    return claims
