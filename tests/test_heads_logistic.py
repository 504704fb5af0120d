"""Logistic regression arrives at the optimum that scikit-learn and the formula know."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from pipeline.errors import DataError
from pipeline.heads import logistic
from pipeline.heads.balance import balanced_weights
from pipeline.heads.curvature import feature_curvature
from pipeline.heads.logistic import TOLERANCE, NotReached, solve_logistic, solve_logistic_path
from pipeline.heads.objective import Problem


def features(n: int = 400, d: int = 12, c: int = 4, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    y = (torch.rand(n, generator=generator).square() * c).long()  # classes of different size
    x = torch.randn(n, d, generator=generator) + functional.one_hot(y, d) * 1.5 + 3
    return x * torch.logspace(0, spread, d), y


def objective(x, y, weight, bias, l2, rows=None):
    loss = functional.cross_entropy(x.double() @ weight.T + bias, y, reduction="none")
    return (loss * (1 if rows is None else rows)).mean() + l2 / 2 * weight.square().sum()


def gradient_ratio(x, y, found, l2, rows=None):
    """The certificate, by autograd in float64, at the weights as they are saved."""
    norms = []
    for weight, bias in ((found.weight, found.bias), (found.weight * 0, found.bias * 0)):
        at = [tensor.double().requires_grad_(True) for tensor in (weight, bias)]
        parts = torch.autograd.grad(objective(x, y, *at, l2, rows), at)
        norms.append(float(torch.cat([part.flatten() for part in parts]).norm()))
    return norms[0] / norms[1]


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_optimum_is_that_of_scikit_learn(l2, balanced):
    x, y = features()
    rows = balanced_weights(y, 4)[y] if balanced else None
    found = solve_logistic(x, y, 4, l2, rows)
    oracle = LogisticRegression(
        C=1 / (l2 * len(y)), solver="newton-cg", tol=1e-8, class_weight="balanced" if balanced else None
    ).fit(x.double().numpy(), y.numpy())
    weight, bias = torch.from_numpy(oracle.coef_), torch.from_numpy(oracle.intercept_)
    best = float(objective(x, y, weight, bias, l2, rows))
    assert found.objective == pytest.approx(
        float(objective(x, y, found.weight.double(), found.bias.double(), l2, rows))
    )
    assert found.objective <= best + 1e-9
    assert torch.allclose(found.weight.double(), weight, atol=1e-4)
    assert torch.allclose(found.bias.double() - found.bias.mean(), bias - bias.mean(), atol=2e-3)


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_certificate_is_what_autograd_says(spread):
    x, y = features(spread=spread)
    found = solve_logistic(x, y, 4, 1e-2)
    assert found.gradient_norm_ratio <= TOLERANCE
    assert gradient_ratio(x, y, found, 1e-2) < 30 * TOLERANCE  # weights are rounded to float32
    assert 1 <= found.iterations < 20
    assert found.products >= found.iterations


def test_half_precision_two_classes_and_a_class_without_rows():
    x, y = features(c=2)
    half = solve_logistic(x.half(), y, 2, 1e-2)
    assert torch.allclose(half.weight, solve_logistic(x.half().float(), y, 2, 1e-2).weight, atol=1e-6)
    wide = solve_logistic(x, y, 3, 1e-2)
    assert wide.weight.shape == (3, 12)
    assert not (x @ wide.weight.T + wide.bias).argmax(1).eq(2).any()


def test_derivatives_are_those_of_autograd_in_chunks_of_any_size(monkeypatch):
    monkeypatch.setattr("pipeline.heads.objective.CHUNK_ELEMENTS", 64 * 12)
    x, y = features()
    share = balanced_weights(y, 4)[y].double()[:, None] / len(y)
    problem = Problem(x, y, share, 4, 1e-2, x.double().mean(0), precise=True)
    generator = torch.Generator().manual_seed(1)
    theta, direction = torch.randn(2, 4, 13, generator=generator, dtype=torch.float64)
    direction -= direction.mean(0)

    def value(at):
        return objective(x, y, at[:, :-1], at[:, -1] - at[:, :-1] @ problem.mean, 1e-2, share[:, 0] * len(y))

    point = problem.point(theta)
    expected, product = torch.autograd.functional.vhp(value, theta, direction)
    gradient = torch.autograd.functional.jacobian(value, theta)
    assert point.objective == pytest.approx(float(expected), rel=1e-12)
    # The part that all classes share is regularised and no more; it is 0 on the way from zero weights.
    assert torch.allclose(point.gradient, gradient, atol=1e-9)
    assert torch.allclose(problem.hessian(point, direction), product, atol=1e-9)


def test_features_without_an_optimum_are_refused(monkeypatch):
    x, y = features()
    with pytest.raises(DataError, match="not finite"):
        solve_logistic(torch.where(x > 5, torch.nan, x), y, 4, 1e-2)
    monkeypatch.setattr(logistic, "MAX_STEPS", 2)
    with pytest.raises(DataError, match="stopped 2 steps on") as caught:
        solve_logistic(x, y, 4, 1e-6)
    assert "--standardize" in caught.value.hint


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    y = torch.tensor([0] * 7 + [2] * 2 + [3])
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=y.numpy())
    assert balanced_weights(y, 5)[[0, 2, 3]].tolist() == pytest.approx(expected.tolist())
    assert float(balanced_weights(y, 5)[y].sum()) == pytest.approx(len(y))


def test_a_path_ends_in_the_optimum_of_each_regularisation():
    x, y = features(spread=1.0)
    l2s = [1e-3, 1e-1, 1e-2, 1e-3]
    path = list(solve_logistic_path(x, y, 4, l2s))
    assert [l2 for l2, _ in path] == [1e-1, 1e-2, 1e-3]
    for l2, found in path:
        one = solve_logistic(x, y, 4, l2)
        assert found.gradient_norm_ratio <= TOLERANCE
        assert found.objective == pytest.approx(one.objective, rel=1e-9)
        assert torch.allclose(found.weight, one.weight, atol=1e-4)


def test_a_path_starts_where_the_one_before_ended():
    x, y = features(spread=1.0)
    _, (_, late) = solve_logistic_path(x, y, 4, [1e-2, 0.9e-2])
    assert late.products < solve_logistic(x, y, 4, 0.9e-2).products


def test_each_optimum_of_a_path_is_handed_on_before_the_next_is_sought():
    x, y = features()
    path = solve_logistic_path(x, y, 4, [1e-2, 1e-1])
    assert next(path)[0] == 1e-1
    x.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        next(path)


def test_a_path_goes_on_past_a_regularisation_whose_optimum_is_not_reached():
    x, y = features()
    (_, early), (_, late), (_, never) = solve_logistic_path(x, y, 4, [1e-3, 1e-300, 1e-1])
    assert isinstance(never, NotReached)
    assert "gradient of" in never.message
    assert torch.equal(late.weight, list(solve_logistic_path(x, y, 4, [1e-3, 1e-1]))[1][1].weight)
    assert max(late.gradient_norm_ratio, early.gradient_norm_ratio) <= TOLERANCE
    with pytest.raises(NotReached):
        solve_logistic(x, y, 4, 1e-300)


@pytest.mark.parametrize("l2", [1e-1, 1e-30])
def test_features_that_say_nothing_leave_zero_weights(l2):
    found = solve_logistic(torch.ones(60, 8), torch.arange(60) % 3, 3, l2)
    assert (float(found.weight.abs().max()), found.gradient_norm_ratio) == (0.0, 0.0)


def test_where_only_rounding_is_left_the_optimum_counts_as_reached():
    y = torch.cat([torch.arange(60) % 3, torch.zeros(7, dtype=torch.long)])
    found = solve_logistic(torch.ones(67, 8), y, 3, 1e-2, balanced_weights(y, 3)[y])
    assert float(found.weight.abs().max()) < 1e-6


def test_a_preconditioner_that_underflows_is_no_crash():
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    [(_, found)] = solve_logistic_path(x, torch.arange(60) % 3, 3, [1e-30])
    assert isinstance(found, NotReached) or found.gradient_norm_ratio <= TOLERANCE


def test_few_rows_of_many_features_have_a_curvature():
    random = np.random.default_rng(0)
    rows = random.standard_normal((3, 256)) * (np.random.default_rng(99).random(256) > 0.5)
    spread = rows.std(axis=0)
    x = torch.from_numpy(np.where(spread > 0, (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1), 0)).float()
    curvature, mean = feature_curvature(x)  # some builds of LAPACK's float32 routine give up on it
    assert torch.isfinite(curvature.vectors).all()
    assert float(curvature.values[-1]) > 1
    assert float(mean.abs().max()) < 1e-6
