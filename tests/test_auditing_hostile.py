"""An audit of data that is worse than usual: copies on both sides of a fold, features without a size, odd names."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from entries import at, make_entry, tamper

import pipeline
from pipeline.auditing.duplicates import Pair
from pipeline.auditing.judging import judge
from pipeline.auditing.leaks import find_leaks
from pipeline.errors import DataError
from pipeline.features import Features
from pipeline.selection import choose_folds

N = 120


def features_of(n=N, **fields):
    """Rows of three classes that nothing tells apart; one image each."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(n, 4)).astype(np.float32))
    digests = rng.integers(0, 256, (n, 32), np.uint8)
    made = Features(x, torch.arange(n) % 3, ("a", "b", "c"), [f"{row}.jpg" for row in range(n)], digests=digests)
    return replace(made, **fields)


def twice(n=N):
    """Digests in which row i + n/2 is the image of row i."""
    digests = np.random.default_rng(1).integers(0, 256, (n // 2, 32), np.uint8)
    return np.concatenate([digests, digests])


def test_an_image_in_two_groups_is_not_judged_by_a_head_that_saw_it():
    features = features_of(digests=twice(), groups=[f"patient {row % 60 + 60 * (row >= 60)}" for row in range(N)])
    folds = choose_folds(features, 5)
    assert sorted(np.concatenate([fold.val for fold in folds]).tolist()) == list(range(N))
    for fold in folds:
        assert not set(fold.train % 60) & set(fold.val % 60)
    assert len(folds[0].train) < N - len(folds[0].val)


def test_a_test_row_is_not_judged_by_a_head_that_saw_its_copy():
    """One test row of class a has a copy in train: what is said of it does not depend on the copy's label."""
    x = torch.randn(N, 4)
    split = np.array(["train"] * 100 + ["test"] * 20)
    digests = features_of().digests
    digests[110] = digests[5]
    said = []
    for label in (0, 1):
        y = torch.arange(N) % 3
        y[5] = label
        said.append(judge(features_of(x=x, y=y, split=split, digests=digests), folds=2)[1])
    assert np.array_equal(said[0].probabilities, said[1].probabilities)
    # Where train has nothing else nobody can judge.
    copied = judge(features_of(split=np.array(["train"] * 60 + ["test"] * 60), digests=twice()), folds=2)
    assert len(copied[0].rows) == 60
    assert len(copied[1].rows) == 0


def test_an_exact_copy_is_called_one_even_if_another_test_row_comes_first():
    features = features_of(4, split=np.array(["test", "test", "train", "test"]))
    pairs = [Pair(0, 1, "exact", 1.0, 0.0), Pair(0, 2, "exact", 1.0, 0.0), Pair(1, 3, "copy", 0.9, 0.01)]
    assert [(one.id, one.kind, one.of) for one in find_leaks(features, pairs)] == [
        ("0.jpg", "exact", "2.jpg"),
        ("1.jpg", "exact", "2.jpg"),
        ("3.jpg", "chain", "2.jpg"),
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_features_without_a_size_are_refused_and_named(tmp_path, value):
    """Also those of a test row, which no head would see."""
    tamper(make_entry(tmp_path / "cache"), at(4, lambda row: row * 0 + value))
    with pytest.raises(DataError, match=r"the features of 0004.jpg are not finite"):
        pipeline.audit(cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs", folds=2)
