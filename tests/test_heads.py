"""Every kind of head: held against scikit-learn, against its own module, and read back as it was written."""

import json
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from pipeline.digest import seal
from pipeline.errors import DataError, UsageError
from pipeline.features import Features
from pipeline.heads.closed import ridge_path
from pipeline.heads.files import read_head
from pipeline.heads.fit import Fitted, fit_head
from pipeline.heads.logistic import TOLERANCE
from pipeline.heads.settings import OF_ALL, OF_SOLVER, HeadSettings
from pipeline.heads.transform import fit_transform

CLASSES = ("a", "b", "c", "d")
NOBODY = np.empty(0, np.int64)
CPU = torch.device("cpu")


def make_features(n: int = 300, d: int = 24, seed: int = 0) -> Features:
    """Overlapping clusters, correlated features of very different scales."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(CLASSES), n)
    x = rng.normal(size=(len(CLASSES), d))[y] + rng.normal(size=(n, d)) * 1.5
    x = (x @ rng.normal(size=(d, d))) * np.logspace(-2, 1, d) + rng.normal(size=d)
    return Features(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y), CLASSES, space={"dtype": "float32"})


def fit(features: Features, val: np.ndarray = NOBODY, **changes) -> Fitted:
    return fit_head(features, np.arange(len(features)), val, HeadSettings(**changes), CPU)


FAST = {"lr": 0.03, "epochs": 10}
KINDS = {
    "linear": FAST,
    "linear, standardised": {"standardize": True, **FAST},
    "linear, of length 1": {"l2_norm": True, **FAST},
    "linear, both": {"l2_norm": True, "standardize": True, **FAST},
    "mlp": {"hidden": 16, "dropout": 0.1, **FAST},
    "mlp, both": {"hidden": 16, "l2_norm": True, "standardize": True, **FAST},
    "exact": {"solver": "exact"},
    "ridge": {"solver": "ridge", "standardize": True},
    "centroid": {"solver": "centroid", "l2_norm": True},
    "knn": {"solver": "knn", "standardize": True},
}


@pytest.fixture(params=KINDS)
def fitted(request) -> tuple[Features, Fitted]:
    features = make_features()
    return features, fit(features, **KINDS[request.param])


def test_logits_are_finite_and_do_not_depend_on_how_many_rows_there_are(fitted):
    features, found = fitted
    logits = found.head.logits(features.x)
    assert (logits.dtype, tuple(logits.shape)) == (torch.float32, (300, 4))
    assert logits.isfinite().all()
    assert not logits.requires_grad
    assert torch.allclose(found.head.logits(features.x[:7]), logits[:7], atol=1e-5)
    assert torch.allclose(found.head.logits(features.x.half()), found.head.logits(features.x.half().float()))


def test_better_than_guessing(fitted):
    features, found = fitted
    right = (found.head.logits(features.x).argmax(1) == features.y).double().mean()
    assert right > 0.4
    assert found.epochs[-1].train_loss > 0


def test_files_and_back_is_the_same_head(fitted, tmp_path):
    features, found = fitted
    for name, data in found.head.to_files().items():
        (tmp_path / name).write_bytes(data)
    again = read_head(tmp_path)
    assert (again.kind, again.classes, again.space) == (found.head.kind, CLASSES, features.space)
    assert torch.equal(again.logits(features.x), found.head.logits(features.x))
    assert again.to_files() == found.head.to_files()


def test_the_module_is_the_head(fitted):
    features, found = fitted
    if found.head.kind == "knn":
        with pytest.raises(UsageError, match="no layer"):
            found.head.module()
        return
    module = found.head.module()
    logits = found.head.logits(features.x)
    with torch.inference_mode():
        assert torch.allclose(module(features.x), logits, atol=2e-4 * float(logits.abs().max()))
        assert torch.equal(module(features.x).argmax(1), logits.argmax(1))
    assert not module.training


def test_a_plain_linear_head_is_one_linear_layer_whatever_found_it():
    features = make_features()
    for changes in ({}, {"standardize": True}, {"solver": "exact"}, {"solver": "ridge"}, {"solver": "centroid"}):
        assert type(fit(features, **changes).head.module()) is torch.nn.Linear


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("standardize", [True, False])
def test_the_exact_solver_reaches_scikit_learns_optimum(c, standardize):
    features = make_features()
    found = fit(features, solver="exact", c=c, standardize=standardize)
    assert found.report["gradient_norm_ratio"] <= TOLERANCE
    x = features.x.numpy().astype(np.float64)
    x = StandardScaler().fit_transform(x) if standardize else x
    y = features.y.numpy()
    oracle = LogisticRegression(C=c, tol=1e-10, solver="newton-cholesky").fit(x, y)
    ours = objective(x, y, found.head.weight.double().numpy(), found.head.bias.double().numpy(), c)
    theirs = objective(x, y, oracle.coef_, oracle.intercept_, c)
    assert ours <= theirs * (1 + 1e-6)
    assert ours == pytest.approx(found.report["objective"] * c * len(x), rel=1e-4)


def objective(x, y, weight, bias, c) -> float:
    logits = torch.from_numpy(x @ weight.T + bias)
    return c * float(functional.cross_entropy(logits, torch.from_numpy(y), reduction="sum")) + 0.5 * (weight**2).sum()


def test_the_exact_solver_weighs_classes_as_scikit_learn_does():
    features = make_features()
    rare = np.flatnonzero((features.y.numpy() != 0) | (np.arange(300) % 5 == 0))
    found = fit_head(features, rare, NOBODY, HeadSettings(solver="exact", class_weight="balanced"), CPU)
    x, y = features.x.numpy()[rare].astype(np.float64), features.y.numpy()[rare]
    oracle = LogisticRegression(class_weight="balanced", tol=1e-10, solver="newton-cholesky").fit(x, y)
    assert np.allclose(found.head.logits(features.x[rare]).softmax(1), oracle.predict_proba(x), atol=2e-3)


def test_a_class_without_rows_is_never_predicted():
    features = make_features()
    rows = np.flatnonzero(features.y.numpy() != 2)
    for solver in ("exact", "ridge", "centroid", "knn"):
        head = fit_head(features, rows, NOBODY, HeadSettings(solver=solver), CPU).head
        assert 2 not in head.logits(features.x[rows]).argmax(1), solver


def test_every_alpha_of_a_ridge_path_is_scikit_learns():
    features = make_features()
    x, y = features.x.numpy().astype(np.float64), features.y.numpy()
    alphas = (0.1, 10.0, 1e4)
    for alpha, found in zip(alphas, ridge_path(features.x, features.y, 4, alphas), strict=True):
        oracle = Ridge(alpha=alpha).fit(x, np.eye(4)[y])
        assert np.allclose(found.weight, oracle.coef_, rtol=1e-4, atol=1e-6)
        assert np.allclose(found.bias, oracle.intercept_, rtol=1e-4, atol=1e-5)


def test_ridge_takes_the_alpha_that_is_best_on_validation_rows():
    features = make_features(n=400)
    train, val = np.arange(100), np.arange(100, 400)
    found = fit_head(features, train, val, HeadSettings(solver="ridge"), CPU)
    tried = dict(map(tuple, found.report["tried"]))
    assert len(tried) > 5
    assert tried[found.report["alpha"]] == max(tried.values()) == found.epochs[0].val_accuracy
    alone = fit_head(features, train, val, HeadSettings(solver="ridge", alpha=found.report["alpha"]), CPU)
    assert torch.equal(alone.head.weight, found.head.weight)
    assert len(fit(features, solver="ridge").report["tried"]) == 1


def test_the_nearest_centroid_is_scikit_learns():
    features = make_features()
    head = fit(features, solver="centroid").head
    oracle = NearestCentroid().fit(features.x.numpy().astype(np.float64), features.y.numpy())
    assert (head.logits(features.x).argmax(1).numpy() == oracle.predict(features.x.numpy())).all()
    means = torch.stack([features.x[features.y == label].mean(0) for label in range(4)])
    wanted = (-(torch.cdist(features.x.double(), means.double()) ** 2) / 2).softmax(1)
    assert torch.allclose(head.logits(features.x).softmax(1).double(), wanted, atol=1e-4)


def test_k_nn_votes_are_those_of_its_formula():
    features = make_features()
    head = fit(features, solver="knn", k=5, temperature=0.5).head
    x = functional.normalize(features.x, dim=1).numpy()
    distances, places = NearestNeighbors(n_neighbors=5, metric="cosine").fit(x).kneighbors(x[:50])
    votes = np.zeros((50, 4))
    for row in range(50):
        for distance, place in zip(distances[row], places[row], strict=True):
            votes[row, features.y[place]] += math.exp((1 - distance) / 0.5)
    shares = head.logits(features.x[:50]).softmax(1).numpy()
    assert np.allclose(shares, votes / votes.sum(1, keepdims=True), atol=1e-4)
    assert fit(features, solver="knn", k=10_000).report == {"k": 300}


def test_a_transform_is_fitted_on_train_rows_alone():
    features = make_features()
    train = np.arange(0, 300, 2)
    transform = fit_transform(features.x, train, standardize=True, l2_norm=True)
    rows = functional.normalize(features.x[train], dim=1).numpy().astype(np.float64)
    oracle = StandardScaler().fit(rows)
    assert np.allclose(transform.mean, oracle.mean_, atol=1e-6)
    assert np.allclose(transform.scale, oracle.scale_, rtol=1e-5)
    constant = torch.ones(10, 3)
    assert torch.equal(fit_transform(constant, np.arange(10), standardize=True, l2_norm=False)(constant), constant * 0)


def test_early_stopping_keeps_the_best_epoch():
    features = make_features()
    train, val = np.arange(40), np.arange(40, 300)
    settings = {"lr": 0.05, "epochs": 60, "hidden": 32, "standardize": True}
    found = fit_head(features, train, val, HeadSettings(early_stopping=4, **settings), CPU)
    losses = [epoch.val_loss for epoch in found.epochs]
    best = found.report["best_epoch"]
    assert best == 1 + losses.index(min(losses))
    assert len(losses) == best + 4 < 60
    kept = functional.cross_entropy(found.head.logits(features.x[val]), features.y[val])
    assert float(kept) == pytest.approx(min(losses), rel=1e-5)
    with pytest.raises(UsageError, match="validation rows"):
        fit(features, early_stopping=3)


def test_balanced_sampling_and_balanced_weights_help_the_rare_class():
    features = make_features(n=2000)
    y = features.y.numpy()
    rows = np.flatnonzero((y != 0) | (np.arange(2000) % 25 == 0))
    rest = np.setdiff1d(np.arange(2000), rows)[:300]  # of class 0 alone
    recall = {}
    for name, changes in {
        "plain": {},
        "weights": {"class_weight": "balanced"},
        "sampling": {"sampling": "balanced"},
    }.items():
        head = fit_head(features, rows, NOBODY, HeadSettings(standardize=True, **changes), CPU).head
        recall[name] = float((head.logits(features.x[rest]).argmax(1) == 0).double().mean())
    assert recall["weights"] > recall["plain"] + 0.1
    assert recall["sampling"] > recall["plain"] + 0.1


def test_label_smoothing_and_schedule_are_those_of_a_plain_loop():
    features = make_features()
    found = fit(features, label_smoothing=0.1, schedule="cosine", epochs=3, batch_size=50, lr=0.01)
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * 6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for rows in torch.randperm(300, generator=generator).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(layer(features.x[rows]), features.y[rows], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    assert torch.equal(found.head.weight, layer.weight)


def test_the_same_seed_gives_the_same_head():
    features = make_features()
    for changes in ({"hidden": 8, "dropout": 0.5}, {"sampling": "balanced"}):
        first, again, other = (fit(features, seed=seed, **changes) for seed in (1, 1, 2))
        assert torch.equal(first.head.weight, again.head.weight)
        assert not torch.equal(first.head.weight, other.head.weight)


CHANGED = {
    **{"optimizer": "adamw", "lr": 0.5, "epochs": 3, "batch_size": 3, "weight_decay": 0.5, "dropout": 0.5, "hidden": 3},
    **{"class_weight": "balanced", "sampling": "balanced", "label_smoothing": 0.5, "schedule": "cosine"},
    **{"early_stopping": 3, "c": 0.5, "alpha": 0.5, "k": 3, "temperature": 0.5},
}


@pytest.mark.parametrize("solver", OF_SOLVER)
def test_what_plays_no_part_with_a_solver_is_refused(solver):
    assert set(CHANGED) | {"momentum"} | OF_ALL == {item.name for item in fields(HeadSettings)}
    for name, value in CHANGED.items():
        if name in OF_SOLVER[solver]:
            HeadSettings(**{"solver": solver, name: value})
            continue
        with pytest.raises(UsageError, match=f"with --solver {solver}"):
            HeadSettings(**{"solver": solver, name: value})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"solver": "svm"}, "unknown solver 'svm'"),
        ({"hidden": -1}, "hidden"),
        ({"label_smoothing": 1.0}, "label-smoothing"),
        ({"c": 0.0, "solver": "exact"}, "C must be"),
        ({"alpha": -1.0, "solver": "ridge"}, "alpha"),
        ({"k": 0, "solver": "knn"}, "k must be"),
        ({"temperature": 0.0, "solver": "knn"}, "temperature"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_out_of_range_are_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        HeadSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"hidden": 4}, "hidden"), ({"solver": "knn"}, "rows"), ({"solver": "knn"}, "k"), ({"solver": "knn"}, "dim")],
    ids=["mlp hidden", "knn rows", "knn k", "knn dim"],
)
@pytest.mark.parametrize("value", [None, "x", [1], {}], ids=str)
def test_a_description_that_does_not_fit_its_tensors_is_refused(tmp_path, changes, field, value):
    files = fit(make_features(n=50), **changes).head.to_files()
    body = json.loads(files["head.json"])
    changed = seal({**body, field: value})
    for name, data in {**files, "head.json": json.dumps(changed).encode()}.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError):
        read_head(tmp_path)


@pytest.mark.parametrize("kind", ["tree", None, ["linear"]], ids=str)
def test_a_head_of_another_kind_is_refused(tmp_path, kind):
    files = fit(make_features(n=50)).head.to_files()
    changed = seal({**json.loads(files["head.json"]), "kind": kind})
    for name, data in {**files, "head.json": json.dumps(changed).encode()}.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="linear, mlp, knn"):
        read_head(tmp_path)
