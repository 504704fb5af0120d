"""L2 norm and standardisation: fitted as scikit-learn does, folded into the layer behind them."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler, normalize
from torch import nn

from pipeline.heads.head import CHUNK_ROWS
from pipeline.heads.modules import L2Normalize
from pipeline.heads.transform import Transform, fit_transform


def features(n: int = 60, d: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, d, generator=generator) * torch.tensor([1.0, 30.0, 1e-3, 2.0, 5.0]) + 4


@pytest.mark.parametrize("rows", [60, CHUNK_ROWS + 7])
@pytest.mark.parametrize("l2_norm", [False, True])
def test_standardisation_is_that_of_scikit_learn_behind_the_l2_norm(rows, l2_norm):
    x = features(rows)
    transform = fit_transform(x, l2_norm=l2_norm, standardize=True)
    plain = normalize(x.double().numpy()) if l2_norm else x.double().numpy()
    expected = StandardScaler().fit_transform(plain)
    assert np.allclose(transform.apply(x).numpy(), expected, atol=2e-2 if l2_norm else 1e-3)
    assert (transform.mean.dtype, transform.scale.dtype) == (torch.float32, torch.float32)


def test_a_constant_feature_keeps_its_scale():
    x = features()
    x[:, 1] = 7.3
    transform = fit_transform(x, l2_norm=False, standardize=True)
    assert float(transform.scale[1]) == 1.0
    assert float(transform.apply(x)[:, 1].abs().max()) < 1e-5


def test_without_anything_to_do_features_are_the_same_object():
    x = features()
    transform = fit_transform(x, l2_norm=False, standardize=False)
    assert transform.nothing
    assert transform.apply(x) is x


def test_half_precision_rows_are_transformed_in_float32():
    x = features().half()
    transform = fit_transform(x, l2_norm=True, standardize=True)
    assert torch.equal(transform.apply(x), transform.apply(x.float()))


@pytest.mark.parametrize("l2_norm", [False, True])
def test_a_layer_takes_the_standardisation_in(l2_norm):
    x = features()
    transform = fit_transform(x, l2_norm=l2_norm, standardize=True)
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    steps = transform.before(layer.weight.detach(), layer.bias.detach())
    assert [type(step) for step in steps] == ([L2Normalize] if l2_norm else []) + [nn.Linear]
    with torch.no_grad():
        expected = layer.double()(transform.apply(x).double())
        # A spread of 1e-3 around 4 is known to 2e-4 in float32, less behind the L2 norm.
        assert torch.allclose(nn.Sequential(*steps)(x).double(), expected, atol=1e-2 if l2_norm else 1e-3)


def test_the_identity_changes_no_layer():
    weight, bias = torch.randn(3, 5), torch.randn(3)
    folded = Transform().folded(weight, bias)
    assert folded[0] is weight
    assert folded[1] is bias
