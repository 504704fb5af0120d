"""(a), (b), (c): extract against the bare forward, decoding and the plain loop; epochs; time to a trained head."""

from common import script

from pipeline.benchmark.extraction import Effort
from pipeline.benchmark.figures import Claim
from pipeline.benchmark.run import OF_RATES, QUICK, Wanted, measure_extractions
from pipeline.benchmark.timing import OnStep


def measure(
    *,
    backbone: tuple[str, ...],
    kind: tuple[str, ...],
    engine: tuple[str, ...],
    device: str,
    image_size: int,
    rows: int,
    repeats: int,
    batch_size: int,
    forward_seconds: float,
    loop_batches: int,
    extract_seconds: float,
    on_step: OnStep,
) -> list[Claim]:
    """Measure each backbone on each kind of images, `small` or `photos`."""
    engines = () if engine == ("all",) else tuple(engine)
    wanted = Wanted(
        OF_RATES,
        tuple(backbone),
        kinds=tuple(kind),
        engines=engines,
        device=device,
        image_size=image_size,
        effort=Effort(repeats, batch_size, forward_seconds, loop_batches, extract_seconds),
        rows=rows,
    )
    return measure_extractions(wanted, on_step)


FULL = {
    "backbone": ("resnet18", "mobilenet_v2"),
    "kind": ("small", "photos"),
    "engine": ("all",),
    "device": "auto",
    "image_size": 224,
    "rows": 50_000,
    "repeats": 3,
    "batch_size": 64,
    "forward_seconds": 4.0,
    "loop_batches": 10,
    "extract_seconds": 10.0,
}
SMALL = {
    "rows": 2_000,
    "repeats": QUICK.repeats,
    "batch_size": QUICK.batch_size,
    "forward_seconds": QUICK.forward_seconds,
    "loop_batches": QUICK.loop_batches,
    "extract_seconds": QUICK.extract_seconds,
}

if __name__ == "__main__":
    script(measure, full=FULL, quick=SMALL)
