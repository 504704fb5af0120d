"""Features that no head can make anything of end in a head or in one line, not in a traceback or in NaN."""

import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from pipeline.heads.rows import logits_of
from pipeline.heads.settings import HeadSettings
from pipeline.heads.solvers import Problem, solve_head

Y = torch.arange(90) % 3


def base() -> torch.Tensor:
    return torch.randn(90, 16, generator=torch.Generator().manual_seed(0)) + torch.nn.functional.one_hot(Y, 16)


def solve(x: torch.Tensor, **recipe):
    problem = Problem(x, Y, np.arange(70), np.arange(70, 90), ("a", "b", "c"), {}, "")
    return logits_of(solve_head(problem, HeadSettings(**recipe)).head, x)


@pytest.mark.parametrize("solver", ["exact", "ridge", "centroid"])
@pytest.mark.parametrize("x", [torch.ones(90, 16), base() * 1e-20, base().half() * 1000], ids=["same", "small", "half"])
def test_a_head_of_poor_features_is_finite(x, solver):
    assert np.isfinite(solve(x, solver=solver)).all()


@pytest.mark.parametrize("solver", ["exact", "ridge", "knn", "centroid", "minibatch"])
@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(solver, spoilt):
    x = base()
    x[3] = spoilt
    with pytest.raises(DataError):
        solve(x, solver=solver)


def test_a_head_beyond_float32_is_refused():
    with pytest.raises(DataError, match="too large"):
        solve(base() * 1e30, solver="centroid")
