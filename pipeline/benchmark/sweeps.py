"""(e) Many heads at once against the same heads one by one in the plain loop."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from pipeline.benchmark.features import features_of
from pipeline.benchmark.figures import SECONDS, TIMES, Claim, Figure
from pipeline.benchmark.plain import plain_head
from pipeline.benchmark.timing import OnStep, combined, interleaved, ratio, seconds_of, silent
from pipeline.device import resolve_device
from pipeline.heads.batched import train_batched
from pipeline.heads.group import Rates
from pipeline.heads.settings import HeadSettings
from pipeline.threads import cpu_threads, default_threads

GOALS, ASKED = {"cpu": 10.0, "cuda": 200.0}, (50_000, 1280, 10)
"""What is asked, by device, and of which sizes."""


def measure_sweep(
    *,
    heads: int = 1_000,
    epochs: int = 5,
    rows: int = 50_000,
    dim: int = 1280,
    classes: int = 10,
    batch_size: int = 64,
    sample: int = 2,
    repeats: int = 3,
    device: str = "cpu",
    features: str = "",
    on_step: OnStep = silent,
) -> Claim:
    """Measure all heads together, and `sample` of them one by one, with one thread and with all; the better counts.

    Half of the heads have weight decay, and of the sample. The sample's learning rates are spread evenly over those
    of all heads.
    """
    where = resolve_device(device)
    x, y, what = features_of(rows, dim, classes, features)
    rows, dim, classes = len(x), x.shape[1], int(y.max()) + 1
    x, y = x.to(where), y.to(where)
    rates = _rates(heads)
    # Middles of equal parts; places are even and odd in turns, and with them heads are without decay and with it.
    middles = [int((part + 0.5) * heads / sample) for part in range(sample)]
    sampled = [rates[min(heads - 1, middle // 2 * 2 + part % 2)] for part, middle in enumerate(middles)]
    recipe = HeadSettings(epochs=epochs, batch_size=batch_size)

    def together() -> None:
        for _ in train_batched(x, y, np.arange(rows), classes, recipe, rates):
            pass

    def one_by_one(threads: int) -> None:
        with cpu_threads(threads):
            for one in sampled:
                plain_head(
                    x, y, classes, epochs=epochs, lr=one.lr, weight_decay=one.weight_decay, batch_size=batch_size
                )

    counts = sorted({1, default_threads()})
    work = {f"alone, threads: {count}": seconds_of(partial(one_by_one, count)) for count in counts}
    found = interleaved({**work, "together": seconds_of(together)}, repeats, on_step)
    a_head = {name: spread.map(lambda seconds: seconds / sample / epochs) for name, spread in found.items()}
    a_head["together"] = found["together"].map(lambda seconds: seconds / heads / epochs)
    best = min((a_head[name] for name in work), key=lambda spread: spread.median)
    goal = GOALS.get(where.type) if (rows, dim, classes) == ASKED else None
    figures = [
        *(Figure(f"head-epoch {name}", SECONDS, spread) for name, spread in a_head.items()),
        Figure(f"{heads:,} heads, {epochs} epochs, together", SECONDS, found["together"]),
        Figure("  one by one", SECONDS, combined(lambda seconds: seconds * heads * epochs, best)),
        Figure("  how many times sooner", TIMES, ratio(best, a_head["together"]), goal),
    ]
    conditions = {
        **{"heads": heads, "epochs": epochs, "rows": rows, "dim": dim, "classes": classes},
        **{"batch_size": batch_size, "sample": sample, "repeats": repeats, "device": where.type},
    }
    rates_said = ", ".join(f"{one.lr:.1g}" for one in sampled)
    note = f"one by one: extrapolated from {sample} heads a round, of learning rates {rates_said}"
    title = f"{heads:,} heads at once · {rows:,} x {dim:,} x {classes} · batch {batch_size} · {what} · {where.type}"
    return Claim("e", title, tuple(figures), conditions, (note,))


def _rates(heads: int) -> Sequence[Rates]:
    """Return learning rates from 1e-5 to 1e-1, every other with a weight decay of 1e-4."""
    return [Rates(float(lr), 1e-4 * (place % 2)) for place, lr in enumerate(np.geomspace(1e-5, 1e-1, heads))]
