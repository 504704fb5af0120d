"""The minibatch recipe is a plain PyTorch loop, bit for bit."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.errors import DataError, UsageError
from pipeline.heads.balance import BalancedRows
from pipeline.heads.minibatch import Epoch, measure, rate_factor, threads_for, train_minibatch, train_network
from pipeline.heads.settings import HeadSettings
from pipeline.threads import cpu_threads

NOBODY = np.empty(0, np.int64)


@pytest.fixture(autouse=True)
def one_thread():
    with cpu_threads(1):
        yield


def features(n: int = 150, d: int = 37, c: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    y = torch.randint(0, c, (n,), generator=generator)
    return torch.randn(n, d, generator=generator) + functional.one_hot(y, d) * 2.0, y


def plain_loop(x, y, make_optimizer, *, epochs=3, batch_size=16, seed=7, c=4):
    """Return weight, bias and each epoch's mean loss, summed in float64 as loops print it."""
    torch.manual_seed(seed)
    head = nn.Linear(x.shape[1], c)
    optimizer = make_optimizer(head.parameters())
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            loss = functional.cross_entropy(head(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += float(loss.detach() * len(rows))
        losses.append(total / len(x))
    return head.weight.detach(), head.bias.detach(), losses


OPTIMIZERS = {
    "adam": ({"optimizer": "adam", "lr": 3e-3}, lambda p: torch.optim.Adam(p, lr=3e-3)),
    "adam, decay": (
        {"optimizer": "adam", "lr": 3e-3, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, lr=3e-3, weight_decay=0.1),
    ),
    "adamw": (
        {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.2},
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.2),
    ),
    "adamw, no decay": (
        {"optimizer": "adamw", "lr": 1e-2},
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0),
    ),
    "sgd": ({"optimizer": "sgd", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd, momentum": (
        {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("which", OPTIMIZERS)
def test_a_head_equals_that_of_a_plain_loop_bit_for_bit(which):
    options, make_optimizer = OPTIMIZERS[which]
    x, y = features()
    settings = HeadSettings(epochs=3, batch_size=16, seed=7, **options)
    weight, bias, epochs = train_minibatch(x, y, np.arange(150), NOBODY, 4, settings)
    expected_weight, expected_bias, losses = plain_loop(x, y, make_optimizer)
    assert [epoch.train_loss for epoch in epochs] == losses
    assert torch.equal(weight, expected_weight)
    assert torch.equal(bias, expected_bias)
    assert (weight.dtype, weight.shape, bias.shape) == (torch.float32, (4, 37), (4,))


def test_defaults_are_the_reference_recipe():
    x, y = features()
    weight, bias, epochs = train_minibatch(x, y, np.arange(150), NOBODY, 4, HeadSettings())
    expected = plain_loop(x, y, lambda p: torch.optim.Adam(p, lr=1e-3), epochs=5, batch_size=64, seed=0)
    assert torch.equal(weight, expected[0])
    assert torch.equal(bias, expected[1])
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 0.1), ("adamw", 0.1), ("sgd", 2.0)])
def test_one_feature_moved_by_one_unit_in_the_last_place_changes_the_head(optimizer, lr):
    x, y = features()
    # At small rates most of what one unit changes is rounded away when it is added to a weight.
    settings = HeadSettings(optimizer=optimizer, lr=lr, epochs=10, batch_size=8)
    weight, _, _ = train_minibatch(x, y, np.arange(150), NOBODY, 4, settings)
    again, _, _ = train_minibatch(x, y, np.arange(150), NOBODY, 4, settings)
    assert torch.equal(again, weight)
    moved = x.clone()
    largest = moved.view(-1)[moved.abs().argmax()]  # a small one may be rounded away in the sum over a batch
    largest.copy_(torch.nextafter(largest, torch.tensor(0.0)))
    assert int((moved != x).sum()) == 1
    changed, _, _ = train_minibatch(moved, y, np.arange(150), NOBODY, 4, settings)
    assert not torch.equal(changed, weight)


def test_rows_that_are_not_trained_on_play_no_part():
    x, y = features()
    train, val = np.arange(0, 150, 2), np.arange(1, 150, 2)
    settings = HeadSettings(epochs=2, batch_size=16)
    weight, _, epochs = train_minibatch(x, y, train, val, 4, settings)
    x[1::2], y[1::2] = 1e6, 0
    other, _, others = train_minibatch(x, y, train, NOBODY, 4, settings)
    assert torch.equal(weight, other)
    alone, _, _ = train_minibatch(x[::2].contiguous(), y[::2].contiguous(), np.arange(75), NOBODY, 4, settings)
    assert torch.equal(weight, alone)
    assert [epoch.train_loss for epoch in epochs] == [epoch.train_loss for epoch in others]
    assert others[0].val_loss is None
    assert others[0].val_accuracy is None


def test_figures_of_an_epoch_are_those_of_its_batches_and_of_the_head_after_it():
    x, y = features()
    train, val = np.arange(100), np.arange(100, 150)
    seen: list[Epoch] = []
    settings = HeadSettings(epochs=1, batch_size=32, lr=0.01, seed=3)
    weight, bias, epochs = train_minibatch(x, y, train, val, 4, settings, seen.append)
    assert seen == epochs
    [epoch] = epochs
    logits = x[100:] @ weight.T + bias
    assert epoch.val_loss == pytest.approx(float(functional.cross_entropy(logits, y[100:])), rel=1e-5)
    assert epoch.val_accuracy == float((logits.argmax(1) == y[100:]).double().mean())
    torch.manual_seed(3)
    head = nn.Linear(37, 4)
    whole = HeadSettings(epochs=1, batch_size=100, seed=3)
    [first] = train_minibatch(x, y, train, NOBODY, 4, whole)[2]
    with torch.no_grad():
        before = head(x[:100])
    assert first.train_loss == pytest.approx(float(functional.cross_entropy(before, y[:100])), rel=1e-6)
    assert first.train_accuracy == float((before.argmax(1) == y[:100]).double().mean())
    assert first.seconds > 0
    assert first.to_json()["epoch"] == 1


def test_seeds_give_different_heads_and_the_global_generator_is_left_alone():
    x, y = features()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    heads = [
        train_minibatch(x, y, np.arange(150), NOBODY, 4, HeadSettings(epochs=1, seed=seed, dropout=0.1))[0]
        for seed in (0, 1, 0)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], heads[1])


def test_dropout_changes_the_training_and_not_the_validation_of_a_given_head():
    x, y = features()
    plain = HeadSettings(epochs=1, batch_size=150, lr=1e-30)
    with_dropout = dataclasses.replace(plain, dropout=0.5)
    [epoch] = train_minibatch(x, y, np.arange(150), np.arange(150), 4, plain)[2]
    [dropped] = train_minibatch(x, y, np.arange(150), np.arange(150), 4, with_dropout)[2]
    assert dropped.train_loss != epoch.train_loss
    assert dropped.val_loss == epoch.val_loss


def test_half_precision_features_are_trained_on_as_float32():
    x, y = features()
    settings = HeadSettings(epochs=2)
    weight, _, _ = train_minibatch(x.half(), y, np.arange(150), NOBODY, 4, settings)
    expected, _, _ = train_minibatch(x.half().float(), y, np.arange(150), NOBODY, 4, settings)
    assert weight.dtype == torch.float32
    assert torch.equal(weight, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_an_error_that_says_when(bad):
    x, y = features()
    x[3, 3] = bad
    with pytest.raises(DataError, match="the loss is nan in epoch 1: training diverged") as caught:
        train_minibatch(x, y, np.arange(150), NOBODY, 4, HeadSettings(epochs=2))
    assert "--lr 0.001" in caught.value.hint


def test_training_that_diverges_is_an_error():
    x, y = features()
    settings = HeadSettings(optimizer="sgd", lr=1e37, epochs=3, weight_decay=0.5)
    with pytest.raises(DataError, match="diverged"):
        train_minibatch(x * 1e3, y, np.arange(150), NOBODY, 4, settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "lbfgs"}, "unknown optimizer 'lbfgs'"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch-size must be at least 1"),
        ({"weight_decay": -1.0}, "weight-decay must be at least 0"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "below 1"),
        ({"momentum": 0.9}, "momentum goes with --optimizer sgd"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"dropout": -0.1}, "dropout must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**63}, "seed must be"),
    ],
)
def test_settings_without_meaning_are_refused(change, said):
    with pytest.raises(UsageError, match=said):
        HeadSettings(**change)


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_infinite_settings_are_refused(name):
    with pytest.raises(UsageError, match="must be"):
        HeadSettings(**{name: float("inf")})


def test_settings_are_plain_json():
    assert HeadSettings(seed=2).to_json() == {
        **{"solver": "minibatch", "standardize": False, "l2_norm": False},
        **{"optimizer": "adam", "lr": 1e-3, "epochs": 5, "batch_size": 64},
        **{"weight_decay": 0.0, "momentum": 0.0, "dropout": 0.0, "seed": 2},
        **{"hidden": 0, "label_smoothing": 0.0, "class_weight": "none", "sampling": "shuffle"},
        **{"schedule": "constant", "warmup_epochs": 0, "early_stopping": 0},
    }


def test_small_steps_get_one_thread_and_large_ones_torchs_number():
    assert threads_for(64, 512, 10) == 1
    assert threads_for(64, 1280, 10) == 1
    assert threads_for(4096, 2048, 1000) == 0


def test_a_hidden_layer_is_a_plain_loop_too_bit_for_bit():
    x, y = features()
    settings = HeadSettings(hidden=9, dropout=0.3, epochs=2, batch_size=16, seed=7, lr=3e-3)
    trained = train_network(x, y, np.arange(150), NOBODY, 4, settings)
    torch.manual_seed(7)
    head = nn.Sequential(nn.Linear(37, 9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 4))
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(7)
    for _ in range(2):
        for rows in torch.randperm(150, generator=generator).split(16):
            optimizer.zero_grad()
            functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()
    for name, tensor in head.state_dict().items():
        assert torch.equal(trained.network.state_dict()[name], tensor), name
    assert not trained.network.training


def test_label_smoothing_class_weights_and_schedule_are_torchs_own():
    x, y = features()
    y = (y * (torch.arange(150) % 3 == 0)).contiguous()  # most rows are of class 0
    settings = HeadSettings(
        epochs=4, batch_size=16, seed=7, lr=0.1, optimizer="sgd", label_smoothing=0.1, class_weight="balanced",
        schedule="cosine", warmup_epochs=1,
    )  # fmt: skip
    weight, _, epochs = train_minibatch(x, y, np.arange(150), np.arange(150), 4, settings)
    weights = 150 / (4 * torch.bincount(y).float())
    torch.manual_seed(7)
    head = nn.Linear(37, 4)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30),
        ],
        [10],
    )
    generator = torch.Generator().manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SequentialLR's own way to step
        for _ in range(4):
            for rows in torch.randperm(150, generator=generator).split(16):
                optimizer.zero_grad()
                functional.cross_entropy(head(x[rows]), y[rows], weights, label_smoothing=0.1).backward()
                optimizer.step()
                schedule.step()
    assert torch.allclose(weight, head.weight, atol=1e-5)
    with torch.no_grad():  # validation is measured without weights and smoothing
        assert epochs[-1].val_loss == pytest.approx(float(functional.cross_entropy(head(x), y)), rel=1e-4)


def test_the_rate_rises_and_falls():
    factors = [rate_factor(step, 40, 10, cosine=True) for step in range(40)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[25] == pytest.approx(0.5)
    assert 0 < factors[39] < 0.01
    assert rate_factor(30, 40, 10, cosine=False) == 1.0


def test_early_stopping_keeps_the_best_epoch():
    x, y = features()
    noise = torch.randint(0, 4, (150,), generator=torch.Generator().manual_seed(1))
    y = torch.where(torch.arange(150) < 60, noise, y)  # train rows have wrong labels: it overfits
    train, val = np.arange(100), np.arange(100, 150)
    settings = HeadSettings(epochs=60, lr=0.03, batch_size=16, early_stopping=4)
    stopped = train_network(x, y, train, val, 4, settings)
    losses = [epoch.val_loss for epoch in stopped.epochs]
    assert stopped.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == stopped.best_epoch + 4 < 60
    assert measure(stopped.network, x, y, torch.from_numpy(val))[0] == losses[stopped.best_epoch - 1]
    short = dataclasses.replace(settings, epochs=stopped.best_epoch, early_stopping=0)
    weight, _, _ = train_minibatch(x, y, train, val, 4, short)
    assert torch.equal(stopped.network.weight, weight)
    with pytest.raises(UsageError, match="--early-stopping goes by validation rows"):
        train_network(x, y, train, NOBODY, 4, settings)


def test_balanced_batches_draw_every_class_as_often():
    rows, y = torch.arange(100, 200), (torch.arange(100) >= 90).long() * 2
    drawn = BalancedRows(rows, y)
    generator = torch.Generator().manual_seed(0)
    taken = torch.cat([drawn.draw(generator) for _ in range(50)])
    assert len(taken) == 5000
    assert set(taken.tolist()) == set(range(100, 200))
    assert 0.47 < float((taken >= 190).double().mean()) < 0.53
    assert torch.bincount(taken[taken >= 190] - 190).min() > 150


def test_balanced_batches_help_a_rare_class():
    x, y = features()
    rare = (y == 1) & (torch.arange(150) % 4 != 0)
    rows = np.flatnonzero(~rare.numpy())
    settings = HeadSettings(epochs=3, batch_size=16)
    plain, bias, _ = train_minibatch(x, y, rows, NOBODY, 4, settings)
    heads = [(plain, bias)]
    for change in ({"sampling": "balanced"}, {"class_weight": "balanced"}):
        heads.append(train_minibatch(x, y, rows, NOBODY, 4, dataclasses.replace(settings, **change))[:2])
    recall = [float(((x[rare] @ weight.T + bias).argmax(1) == 1).double().mean()) for weight, bias in heads]
    assert recall[1] > recall[0]
    assert recall[2] > recall[0]
