"""Training sets of a learning curve: the sizes that are asked for, nested in each draw, every class in each."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.subsets import draw_subsets, training_sizes


@pytest.mark.parametrize("per_class", [(640, 640), (128, 700, 41), (3, 5), (40, 0, 90)])
def test_default_sizes_are_nested_and_end_with_all(per_class):
    sizes = training_sizes(per_class)
    y = np.repeat(np.arange(len(per_class)), per_class)
    rows = np.arange(len(y))[::-1]
    subsets = draw_subsets(y, rows, sizes, seed=3)
    assert [len(subset) for subset in subsets] == [size.rows for size in sizes]
    assert sizes[0].counts == tuple(min(1, count) for count in per_class)
    assert subsets[-1].tolist() == sorted(rows.tolist())
    for smaller, larger in pairwise(subsets):
        assert set(smaller) < set(larger)
    for subset, size in zip(subsets, sizes, strict=True):
        assert np.bincount(y[subset], minlength=len(per_class)).tolist() == list(size.counts)


def test_sizes_that_are_asked_for_come_smallest_first_and_once():
    sizes = training_sizes((10, 30), shots=(10, 2), fractions=(0.5, 1.0, 0.5))
    assert [size.counts for size in sizes] == [(2, 2), (10, 10), (5, 15), (10, 30)]
    assert [(size.shots, size.fraction) for size in sizes] == [(2, None), (10, None), (None, 0.5), (None, 1.0)]


def test_draws_depend_on_their_seed_alone():
    y = np.arange(60) % 3
    sizes = training_sizes((20, 20, 20), shots=(4,))
    one, same, other = (draw_subsets(y, np.arange(60), sizes, seed)[0].tolist() for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"shots": (4,)}, "the smallest class has 3 train images"),
        ({"shots": (0,)}, "0 images a class"),
        ({"fractions": (1.5,)}, "at most 1, not 1.5"),
        ({"fractions": (0.0,)}, "above 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(asked, said):
    with pytest.raises(UsageError, match=said):
        training_sizes((3, 5), **asked)
