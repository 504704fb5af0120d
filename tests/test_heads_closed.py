"""Ridge, centroids and neighbours against scikit-learn; and the number that makes probabilities of scores."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch.nn import functional

from pipeline.errors import DataError, UsageError
from pipeline.heads.calibration import best_scale
from pipeline.heads.centroid import fit_centroids
from pipeline.heads.modules import FLOOR
from pipeline.heads.neighbours import NeighboursHead, fit_neighbours
from pipeline.heads.ridge import ridge_path

NAMES = ("a", "b", "c", "d")
BOUND = {"classes": NAMES, "space": {}, "space_sha256": "5" * 64}


def features(n: int = 200, d: int = 9, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=generator).square() * 4).long()
    return torch.randn(n, d, generator=generator) + functional.one_hot(y, d) + 2, y


@pytest.mark.parametrize("alpha", [0.1, 10.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_ridge_is_that_of_scikit_learn(alpha, balanced):
    from pipeline.heads.balance import balanced_weights

    x, y = features()
    oracle = RidgeClassifier(alpha=alpha, class_weight="balanced" if balanced else None).fit(x.double(), y)
    path = ridge_path(x, y, 4, balanced_weights(y, 4).double()[y] if balanced else None)
    weight, bias = path.solve(alpha / len(y))
    assert np.allclose(weight, oracle.coef_, atol=1e-6)
    assert np.allclose(bias, oracle.intercept_, atol=1e-6)


def test_a_path_costs_one_decomposition_and_gives_what_each_solution_gives(monkeypatch):
    x, y = features()
    other, labels = features(seed=3)
    path = ridge_path(x, y, 4)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    tried = path.default_l2()
    assert tried[-1] / tried[0] == pytest.approx(1e9)
    accuracies = path.accuracies(other, labels, tried)
    for l2, accuracy in zip(tried, accuracies, strict=True):
        weight, bias = path.solve(l2)
        assert accuracy == float(((other.double() @ weight.T + bias).argmax(1) == labels).double().mean())


def test_ridge_of_more_features_than_rows():
    x, y = features(n=30, d=50)
    oracle = RidgeClassifier(alpha=3.0).fit(x.double(), y)
    assert np.allclose(ridge_path(x, y, 4).solve(3.0 / 30)[0], oracle.coef_, atol=1e-8)


def test_the_largest_score_is_the_nearest_centroid():
    x, y = features()
    weight, bias = fit_centroids(x, y, NAMES)
    oracle = NearestCentroid().fit(x.double(), y)
    assert np.allclose(weight, oracle.centroids_)
    assert np.array_equal((x.double() @ weight.T + bias).argmax(1), oracle.predict(x.double()))
    with pytest.raises(DataError, match="1 classes have no train rows and so no centroid: e"):
        fit_centroids(x, y, (*NAMES, "e"))


@pytest.mark.parametrize("k", [1, 20])
def test_neighbours_vote_as_in_scikit_learn(k):
    x, y = features()
    queries, _ = features(n=70, seed=4)
    bank, labels = fit_neighbours(x, y, k=k)
    head = NeighboursHead(bank, labels, k, 0.07, **BOUND)
    oracle = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = oracle.fit(x.double(), y).predict_proba(queries.double())
    found = head.logits(queries).double().softmax(1).numpy()
    assert np.allclose(found, (1 - FLOOR) * expected + FLOOR / 4, atol=1e-4)
    assert np.allclose(head.logits(queries).exp().sum(1), 1, atol=1e-5)


def test_neighbours_of_any_number_of_rows_and_of_tiny_temperatures(monkeypatch):
    x, y = features()
    head = NeighboursHead(*fit_neighbours(x, y, k=5), 5, 1e-4, **BOUND)
    whole = head.logits(x)
    assert torch.isfinite(whole).all()
    assert torch.equal(whole.argmax(1), y)  # each row is its own nearest
    monkeypatch.setattr("pipeline.heads.neighbours.CHUNK_SIMILARITIES", 3 * len(x))
    assert torch.allclose(head.logits(x), whole, atol=1e-4)
    assert head.logits(x[:0]).shape == (0, 4)
    with pytest.raises(UsageError, match="--k 300 neighbours are asked for, there are 200 train rows"):
        fit_neighbours(x, y, k=300)


def test_the_scale_has_the_lowest_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (300,), generator=generator)
    scores = 40 * (torch.randn(300, 4, generator=generator) + functional.one_hot(y, 4))

    def loss(log_scale):
        return float(functional.cross_entropy(np.exp(log_scale) * scores.double(), y))

    assert best_scale(scores, y) == pytest.approx(np.exp(minimize_scalar(loss, bounds=(-9, 2)).x), rel=1e-3)


@pytest.mark.parametrize("sign", [1, -1], ids=["all right", "all wrong"])
def test_the_scale_stays_finite_where_no_one_is_best(sign):
    y = torch.arange(8) % 4
    scale = best_scale(sign * functional.one_hot(y, 4), y)
    assert 0 < scale < 1e6
    assert best_scale(torch.zeros(8, 4), y) > 0
