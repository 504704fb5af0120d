"""(m) An epoch of the reference recipe on cached features against the plain index-batch loop, bit for bit the same."""

from functools import partial

import numpy as np

from pipeline.benchmark.features import features_of
from pipeline.benchmark.figures import SECONDS, SHARE, Claim, Figure
from pipeline.benchmark.plain import plain_head
from pipeline.benchmark.timing import OnStep, interleaved, ratio, seconds_of, silent
from pipeline.errors import PipelineError
from pipeline.heads.minibatch import threads_for, train_minibatch
from pipeline.heads.settings import HeadSettings
from pipeline.threads import cpu_threads, default_threads

GOAL, ASKED = 0.5, (50_000, 1280, 10, 64)
"""What is asked, and of which sizes."""
EPOCHS = 2


def measure_minibatch(
    *,
    rows: int = 50_000,
    dim: int = 1280,
    classes: int = 10,
    batch_size: int = 64,
    repeats: int = 7,
    features: str = "",
    on_step: OnStep = silent,
) -> Claim:
    """Measure seconds of an epoch; the plain loop gets one thread and all of them, and its better choice counts.

    Raises:
        PipelineError: if the two heads are not equal, bit for bit.
    """
    x, y, what = features_of(rows, dim, classes, features)
    rows, dim, classes = len(x), x.shape[1], int(y.max()) + 1
    settings, everything = HeadSettings(epochs=EPOCHS, batch_size=batch_size), np.arange(rows)

    def plain(threads: int) -> tuple[object, ...]:
        with cpu_threads(threads):
            return plain_head(x, y, classes, epochs=EPOCHS, batch_size=batch_size)

    def ours() -> tuple[object, ...]:
        with cpu_threads(threads_for(batch_size, dim, classes)):
            return train_minibatch(x, y, everything, everything[:0], classes, settings)

    with cpu_threads(1):
        _check_equal(plain(1), ours())
    counts = sorted({1, default_threads()})
    work = {f"plain loop, threads: {count}": seconds_of(partial(plain, count)) for count in counts}
    found = interleaved({**work, "train-head": seconds_of(ours)}, repeats, on_step)
    epoch = {name: spread.map(lambda seconds: seconds / EPOCHS) for name, spread in found.items()}
    best = min((epoch[name] for name in work), key=lambda spread: spread.median)
    share = ratio(epoch["train-head"], best)
    figures = [Figure(name, SECONDS, spread) for name, spread in epoch.items()]
    goal = GOAL if (rows, dim, classes, batch_size) == ASKED else None
    figures.append(Figure("  of the better plain loop", SHARE, share, at_most=goal))
    conditions = {"rows": rows, "dim": dim, "classes": classes, "batch_size": batch_size, "repeats": repeats}
    title = f"an epoch of the head · {rows:,} x {dim:,} x {classes} · batch {batch_size} · {what}"
    return Claim("m", title, tuple(figures), conditions, ("weights and biases of both are equal, bit for bit",))


def _check_equal(plain: tuple[object, ...], ours: tuple[object, ...]) -> None:
    import torch

    for one, other in zip(plain[:2], ours[:2], strict=True):
        if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one, other)):
            raise PipelineError("the head of train-head is not the plain loop's, bit for bit", "Please report it.")
