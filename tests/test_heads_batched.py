"""Heads trained together are the heads trained alone, up to rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.heads import batched
from pipeline.heads.batched import can_batch, group_sizes, train_batched
from pipeline.heads.group import Rates
from pipeline.heads.minibatch import train_minibatch
from pipeline.heads.settings import HeadSettings

N, D, C = 333, 24, 5
GRID = [Rates(lr, decay) for lr in (1e-3, 1e-2, 0.1) for decay in (0.0, 1e-2)]
RECIPES = {
    "adam": HeadSettings(epochs=3, batch_size=32),
    "adamw": HeadSettings(epochs=3, batch_size=32, optimizer="adamw", seed=3),
    "sgd": HeadSettings(epochs=3, batch_size=32, optimizer="sgd"),
    "momentum": HeadSettings(epochs=3, batch_size=50, optimizer="sgd", momentum=0.9, seed=1),
    "cosine": HeadSettings(epochs=3, batch_size=32, schedule="cosine", warmup_epochs=1),
    "dropout": HeadSettings(epochs=3, batch_size=32, dropout=0.3),
    "label smoothing": HeadSettings(epochs=3, batch_size=32, label_smoothing=0.1),
    "class weights": HeadSettings(epochs=3, batch_size=32, class_weight="balanced"),
    "both": HeadSettings(epochs=3, batch_size=32, label_smoothing=0.2, class_weight="balanced", optimizer="adamw"),
    "balanced": HeadSettings(epochs=2, batch_size=32, sampling="balanced"),
}


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, C, (N,), generator=generator)
    x = torch.randn(N, D, generator=generator) + torch.nn.functional.one_hot(y, D) * 1.5
    rows = np.flatnonzero((np.arange(N) % 7 > 0) & ((y.numpy() > 0) | (np.arange(N) % 3 == 0)))  # class 0 is rare
    return x, y, rows


def alone(data, recipe, rates):
    x, y, rows = data
    settings = replace(recipe, lr=rates.lr, weight_decay=rates.weight_decay)
    return train_minibatch(x, y, rows, rows[:0], C, settings)[:2]


def heads(data, recipe, rates):
    """(weight, bias) in the order of `rates`."""
    x, y, rows = data
    found = {}
    for group in train_batched(x, y, rows, C, recipe, rates):
        for place, *head in zip(group.places, group.weight, group.bias, strict=True):
            found[place] = head
    return [found[place] for place in range(len(rates))]


def gap(x, one, other):
    """The largest difference of logits, as a share of the largest logit."""
    (first, second) = (x @ weight.T + bias for weight, bias in (one, other))
    return float((first - second).abs().max() / first.abs().max())


@pytest.mark.parametrize("name", RECIPES)
def test_each_head_is_the_one_trained_alone(data, name):
    found = heads(data, RECIPES[name], GRID)
    for rates, head in zip(GRID, found, strict=True):
        assert gap(data[0], alone(data, RECIPES[name], rates), head) < 1e-5, rates
    assert gap(data[0], found[0], found[1]) > 1e-5  # weight decay is no rounding
    assert gap(data[0], found[0], found[2]) > 1e-2


def test_groups_change_nothing_but_rounding(data, monkeypatch):
    whole = heads(data, RECIPES["adam"], GRID)
    monkeypatch.setattr(batched, "GROUP_BYTES", 4 * 4 * (D + 1) * C * 2)
    assert group_sizes(6, D, C, 1) == [2, 2, 2]
    parts = heads(data, RECIPES["adam"], GRID)
    for one, other in zip(whole, parts, strict=True):
        assert gap(data[0], one, other) < 1e-5


def test_a_head_that_diverges_leaves_the_others_alone(data):
    recipe = RECIPES["sgd"]
    wild, tame = heads(data, recipe, [Rates(3e38, 0.0), Rates(1e-2, 0.0)])
    assert not torch.isfinite(wild[0]).all()
    assert gap(data[0], alone(data, recipe, Rates(1e-2, 0.0)), tame) < 1e-5


def test_half_precision_features_and_other_rows_play_their_part(data):
    x, y, rows = data
    recipe, rates = RECIPES["adam"], [Rates(1e-2, 0.0)]
    stored = (x.half(), y, rows)
    assert gap(x, alone(stored, recipe, rates[0]), heads(stored, recipe, rates)[0]) < 1e-5
    moved = x.clone()
    moved[np.setdiff1d(np.arange(N), rows)] = float("nan")
    assert torch.equal(heads((moved, y, rows), recipe, rates)[0][0], heads(data, recipe, rates)[0][0])


def test_heads_share_batches_unless_they_have_hidden_layers_or_stop_on_their_own():
    for change in ({"dropout": 0.5}, {"label_smoothing": 0.1}, {"class_weight": "balanced"}, {"schedule": "cosine"}):
        assert can_batch(HeadSettings(**change))
    for change in ({"hidden": 8}, {"early_stopping": 2}, {"solver": "ridge"}):
        assert not can_batch(HeadSettings(**change))


def test_groups_are_even_fill_the_caches_and_keep_all_threads_busy():
    assert group_sizes(1000, 1280, 10, 2) == [50] * 20
    assert group_sizes(20, 1280, 10, 2) == [10, 10]
    assert group_sizes(20, 1280, 10, 16) == [10, 10]  # of fewer heads products lose more than threads bring
    assert group_sizes(7, 1280, 10, 2) == [7]
    assert group_sizes(3, 2048, 21_000, 2) == [1, 1, 1]  # one head alone is more than a group may be
    for heads in range(1, 40):
        assert sum(group_sizes(heads, 1280, 100, 3)) == heads


def test_nothing_of_the_callers_threads_and_random_numbers_is_changed(data):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    heads(data, RECIPES["dropout"], [Rates(1e-2, 0.0)] * 20)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert float(torch.tensor(1e-40) * 0.5) > 0  # flushed in the threads that train, and nowhere else
