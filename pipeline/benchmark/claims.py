"""(a), (b) and (c): what rates of images and epochs of a head come to."""

from pipeline.benchmark.extraction import Rates
from pipeline.benchmark.figures import EPOCHS, IMAGES_A_SECOND, SECONDS, SHARE, TIMES, Claim, Figure
from pipeline.benchmark.heads import Trainings
from pipeline.benchmark.timing import combined, ratio
from pipeline.benchmark.variants import Variant

OF_BOUND = 0.92
OVER_LOOP = {("openvino", "float32"): 2.8, ("openvino", "bfloat16"): 5.0}
PER_EPOCH = 10_000.0
FIVE_EPOCHS = 12.0
TRAINED_EPOCHS = (1, 5, 100)


def extraction_claim(rates: Rates, *, asked: bool) -> Claim:
    """Return (a): extraction against the bare forward, decoding, the bound of both, and the loops.

    The bound is 1 / (1/F + 1/D): every core is busy with one or the other all the time, and with nothing else.
    `asked` says whether the sizes are those that goals hold for.
    """
    workers, loop = rates.best_loop
    figures = [Figure(f"bare forward F, {variant}", IMAGES_A_SECOND, rate) for variant, rate in rates.forward.items()]
    figures.append(Figure(f"decode alone D, {rates.cores} cores", IMAGES_A_SECOND, rates.decode))
    figures += [Figure(f"loop, {count} workers", IMAGES_A_SECOND, rate) for count, rate in rates.loops.items()]
    on_cpu = asked and rates.device == "cpu"
    for variant, found in rates.extracted.items():
        bound = combined(lambda f, d: 1 / (1 / f + 1 / d), rates.forward[variant], rates.decode)
        goal = _over_loop(rates, variant) if on_cpu else None
        figures += [
            Figure(f"extract, {variant}", IMAGES_A_SECOND, found.steady),
            Figure("  of its bound 1/(1/F + 1/D)", SHARE, ratio(found.steady, bound), OF_BOUND if on_cpu else None),
            Figure(f"  over the loop, {workers} workers", TIMES, ratio(found.steady, loop), goal),
            Figure("    the most its bound allows", TIMES, ratio(bound, loop)),
            Figure("  seconds to the first batch", SECONDS, found.startup),
            Figure(f"  whole call, {found.images:,} images", IMAGES_A_SECOND, found.whole),
        ]
    return Claim(
        "a",
        f"extract · {rates.case.backbone} · {rates.case.image_size} px · {rates.case.images} · {rates.device}",
        tuple(figures),
        _conditions(rates),
        (
            f"loops: {_loop_batches(rates)} batches of {rates.effort.batch_size} measured, after warm-up",
            "extract: from the first batch to the finished entry, what was decoded before charged at rate D",
            *rates.notes,
        ),
    )


def _over_loop(rates: Rates, variant: Variant) -> float | None:
    """Return what is asked of extraction over the loop: of resnet18 on CIFAR-like files."""
    if not rates.case.backbone.endswith("resnet18") or not rates.case.images.startswith("32 px"):
        return None
    return OVER_LOOP.get((variant.engine, variant.dtype))


def epoch_claim(rates: Rates, trained: Trainings, *, asked: bool) -> Claim:
    """Return (b): an epoch from the cache against one end to end."""
    workers, loop = rates.best_loop
    end_to_end = loop.map(lambda images: trained.rows / images)
    times = ratio(end_to_end, trained.epoch)
    goal = PER_EPOCH if asked and rates.device == "cpu" and rates.case.backbone.endswith("resnet18") else None
    figures = (
        Figure("epoch end to end", SECONDS, end_to_end),
        Figure("epoch from the cache", SECONDS, trained.epoch),
        Figure("  how many times sooner", TIMES, times, goal),
    )
    title = f"an epoch · {rates.case.backbone} · {trained.rows:,} images · {trained.dim} features · 10 classes"
    return Claim("b", title, figures, _conditions(rates, trained), (_extrapolated(rates, workers),))


def trained_claim(rates: Rates, trained: Trainings, *, asked: bool) -> Claim:
    """Return (c): time to a trained head, extraction included, against the loop; and the epoch they are level at."""
    workers, loop = rates.best_loop
    found = rates.extracted[rates.best_exact]
    rows = trained.rows
    extraction = combined(lambda start, rate: start + rows / rate, found.startup, found.steady)
    figures = [Figure(f"extract {rows:,} images, {rates.best_exact}", SECONDS, extraction)]
    for epochs in TRAINED_EPOCHS:
        head = combined(lambda rest, epoch, count=epochs: rest + count * epoch, trained.rest, trained.epoch)
        ours = combined(lambda a, b: a + b, extraction, head)
        theirs = loop.map(lambda images, count=epochs: count * rows / images)  # type: ignore[misc]
        goal = FIVE_EPOCHS if asked and rates.device == "cpu" and epochs == 5 else None
        figures += [
            Figure(f"{epochs} epochs, cached" if epochs > 1 else "1 epoch, cached", SECONDS, ours),
            Figure("  end to end", SECONDS, theirs),
            Figure("  how many times sooner", TIMES, ratio(theirs, ours), goal),
        ]
    level = combined(
        lambda extract, rest, epoch, images: (extract + rest) / (rows / images - epoch),
        extraction,
        trained.rest,
        trained.epoch,
        loop,
    )
    figures.append(Figure("level after epochs of the loop", EPOCHS, level))
    title = f"to a trained head, extraction included · {rates.case.backbone} · {rows:,} images"
    notes = (
        _extrapolated(rates, workers),
        f"extraction: start-up, and {rows:,} images at the rate measured on {found.images:,}",
    )
    return Claim("c", title, tuple(figures), _conditions(rates, trained), notes)


def _loop_batches(rates: Rates) -> int:
    return rates.effort.loop_batches * rates.effort.repeats


def _extrapolated(rates: Rates, workers: int) -> str:
    return (
        f"end to end: extrapolated from {_loop_batches(rates)} measured batches of {rates.effort.batch_size}, "
        f"{workers} loader workers, the faster choice"
    )


def _conditions(rates: Rates, trained: Trainings | None = None) -> dict[str, object]:
    case, effort = rates.case, rates.effort
    return {
        "backbone": case.backbone,
        "weights": case.weights,
        "images": case.images,
        "image_size": case.image_size,
        "device": rates.device,
        "batch_size": effort.batch_size,
        "repeats": effort.repeats,
        "loop_batches": _loop_batches(rates),
        **({"rows": trained.rows, "dim": trained.dim} if trained is not None else {}),
    }
