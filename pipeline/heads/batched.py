"""Many linear heads at once: those that see the same batches are one product.

Heads of one seed start from the same weights and see the same rows in the same order; they differ in learning rate
and weight decay. k of them are k c columns of one matrix, so that each batch is read once for all, products are
large enough to run near the machine's peak, and one optimiser moves all weights in one pass. On a CPU every thread
has a group of heads to itself, as many as the caches hold well; rows are gathered once for the groups of all threads.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.heads.balance import balanced_weights
from pipeline.heads.epochs import epochs_over
from pipeline.heads.group import HeadGroup, Rates, Step
from pipeline.heads.minibatch import first_network, rate_factors
from pipeline.heads.rows import Rows, pick
from pipeline.heads.settings import HeadSettings
from pipeline.threads import cpu_threads, default_threads

if TYPE_CHECKING:
    from torch import Tensor

GROUP_BYTES = 10 << 20
"""Weights, gradient and Adam's two means of the heads of a group. Measured on 1,280 x 10 with two threads: 20, 16.3,
14.4, 13.6, 13.4 ms a head-epoch for 8, 16, 32, 48 (10 MB), 64 heads. Products gain from columns what the optimiser
loses where its state leaves a core's own cache; the state of all threads should still fit the one they share."""
FEWEST_HEADS = 8
"""Of a group, where heads are too few to fill a group for each thread: products with fewer columns lose more."""
COPIES = 4
"""Tensors of the weights' size that a step reads and writes."""


@dataclass(frozen=True)
class Group:
    """Heads that were trained at once."""

    places: tuple[int, ...]
    """Their positions in what was asked for."""
    weight: "Tensor"
    """(k, c, d) float32."""
    bias: "Tensor"
    """(k, c) float32."""
    seconds: float
    """A head's share of the time that the groups of all threads took."""


def can_batch(settings: HeadSettings) -> bool:
    """Tell whether heads of this recipe can share batches; others are trained one by one."""
    return settings.solver == "minibatch" and not settings.hidden and not settings.early_stopping


def train_batched(
    x: Rows,
    y: "Tensor",
    train_rows: np.ndarray,
    n_classes: int,
    recipe: HeadSettings,
    rates: Sequence[Rates],
    *,
    threads: int | None = None,
) -> Iterator[Group]:
    """Train a head for each of `rates` on rows of `x` (n, d) with labels `y` (n,); yield them group by group.

    All but lr and weight decay is as `recipe` says. Each head equals the one trained alone up to rounding.

    Args:
        x: features, float32 or float16, on any device, in memory or streamed: then each round of groups, one a
            thread, reads them once an epoch.
        y: positions of the classes.
        train_rows: positions (m,) int64.
        n_classes: c.
        recipe: of all heads; `can_batch` of it holds.
        rates: k of them.
        threads: of the CPU, by default all.

    Raises:
        UsageError: if balanced batches are to be drawn from a stream.
    """
    import torch

    on_cpu = x.device.type == "cpu"
    threads = (threads or default_threads()) if on_cpu else 1
    # A GPU has no caches to fit, and takes all heads at once.
    sizes = group_sizes(len(rates), x.shape[1], n_classes, threads) if on_cpu else [len(rates)]
    # Heads without decay come together, so that their groups have one pass less to make.
    order = sorted(range(len(rates)), key=lambda place: rates[place].weight_decay > 0)
    ends = np.cumsum(sizes).tolist()
    places = [tuple(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    for start in range(0, len(places), threads):
        some = places[start : start + threads]
        started = time.perf_counter()
        with cpu_threads(1), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            groups = _train(x, y, train_rows, n_classes, recipe, [[rates[place] for place in own] for own in some])
        seconds = (time.perf_counter() - started) / sum(map(len, some))
        yield from (Group(own, *group.weights(), seconds) for own, group in zip(some, groups, strict=True))


def group_sizes(heads: int, dim: int, n_classes: int, threads: int) -> list[int]:
    """Return how many heads each group has, on a CPU: as even as can be, in rounds that keep every thread busy."""
    most = max(1, GROUP_BYTES // (COPIES * 4 * (dim + 1) * n_classes))
    groups = max(1, -(-heads // most), min(threads, heads // FEWEST_HEADS))
    if groups > threads:
        groups = min(heads, -(-groups // threads) * threads)
    return [len(part) for part in np.array_split(np.arange(heads), groups)]


def _train(
    x: Rows, y: "Tensor", train: np.ndarray, n_classes: int, recipe: HeadSettings, rates: Sequence[Sequence[Rates]]
) -> list[HeadGroup]:
    """Train a group of heads in each of as many threads."""
    start = first_network(x.shape[1], n_classes, recipe).to(x.device).state_dict()
    most = min(recipe.batch_size, len(train))
    groups = [HeadGroup(start["weight"], start["bias"], own, recipe, most) for own in rates]
    with _pool(len(groups)) as pool:
        for steps in _blocks(x, y, train, n_classes, recipe):
            for _ in pool.map(lambda group, steps=steps: group.train(steps), groups):
                pass
    return groups


@contextmanager
def _pool(threads: int) -> Iterator[Executor]:
    """Give threads for groups.

    Of heads whose rates are too high, probabilities and their squares are so close to zero that CPUs take 25 times as
    long for them. These threads take them for zero; that is no setting of the threads of anybody else.
    """
    import torch

    pool = ThreadPoolExecutor(threads, initializer=torch.set_flush_denormal, initargs=(True,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _blocks(x: Rows, y: "Tensor", train: np.ndarray, n_classes: int, recipe: HeadSettings) -> Iterator[list[Step]]:
    """Yield the steps of all epochs, a block of batches at a time, in the order of `train_network`.

    Dropout draws what it draws there, where the network was initialised just before.
    """
    import torch

    generator = torch.Generator().manual_seed(recipe.seed)
    steps = _Steps(pick(y, train), n_classes, recipe)
    blocks = epochs_over(x, y, train, recipe)
    for _ in range(recipe.epochs):
        for features, labels in blocks(generator):
            yield steps.of(features, labels)


class _Steps:
    """Makes steps of batches.

    The loss of a batch is -sum_ij t_ij log p_ij / sum_i w_yi with t_ij = (1 - s) w_j [j = y_i] + s w_j / c, where w are
    the class weights and s is the label smoothing: torch.nn.CrossEntropyLoss.
    """

    def __init__(self, y: "Tensor", n_classes: int, recipe: HeadSettings) -> None:
        """Take the labels (m,) of the rows that train."""
        import torch

        self.batch_size, self.dropout, smoothing = recipe.batch_size, recipe.dropout, recipe.label_smoothing
        self.weights = torch.ones(n_classes, device=y.device)
        if recipe.class_weight == "balanced":
            self.weights = balanced_weights(y, n_classes)
        self.targets = (1 - smoothing) * torch.diag(self.weights) + smoothing * self.weights / n_classes
        self.factors = rate_factors(recipe, len(y))

    def of(self, x: "Tensor", y: "Tensor") -> list[Step]:
        """Return the steps of a block of rows (m, d) and labels (m,)."""
        from torch.nn import functional

        steps = []
        for features, labels in zip(x.split(self.batch_size), y.split(self.batch_size), strict=True):
            if self.dropout:
                features = functional.dropout(features, self.dropout)
            targets = self.targets[labels] / self.weights[labels].sum()
            steps.append(Step(features, targets[:, :, None], targets.sum(1)[:, None, None], next(self.factors)))
        return steps
