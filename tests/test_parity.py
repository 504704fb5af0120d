"""The head from the cache is the head of the plain loop over images, bit for bit."""

import numpy as np
import pytest
import reference_loop
import torch
from conftest import make_photos
from PIL import Image
from torchvision import models
from torchvision.datasets import ImageFolder

import pipeline
from pipeline.heads.minibatch import train_minibatch
from pipeline.heads.settings import HeadSettings
from pipeline.threads import cpu_threads

EPOCHS, BATCH, SIZE = 3, 8, 64


@pytest.fixture(scope="module", params=["resnet18", "mobilenet_v2"])
def both(request, tmp_path_factory):
    """Features read back from a real extract, and the head a plain loop over ImageFolder arrives at."""
    root = make_photos(tmp_path_factory.mktemp("photos") / "train", per_class=9)
    made = pipeline.extract(
        str(root.parent), backbone=request.param, weights="none", image_size=SIZE, mean=(0.5,), std=(0.5,),
        batch_size=BATCH, engine="reference", cache_dir=root.parent / "cache", test_fraction=0, workers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    network = models.get_model(request.param)
    layer = "fc" if request.param == "resnet18" else "classifier.1"
    folder = ImageFolder(str(root))
    loop = reference_loop.train(
        reference_loop.without_last_layer(network, layer),
        [Image.open(path).convert("RGB") for path, _ in folder.samples],
        folder.targets,
        reference_loop.image_transform(SIZE, [0.5] * 3, [0.5] * 3),
        n_classes=3,
        epochs=EPOCHS,
        batch_size=BATCH,
    )
    return pipeline.open_cache(made.path), loop


def cached_head(x, y):
    settings = HeadSettings(epochs=EPOCHS, batch_size=BATCH)
    with cpu_threads(1):
        weight, bias, _ = train_minibatch(x, y, np.arange(len(y)), np.empty(0, np.int64), 3, settings)
    return weight, bias


def is_the_same_model(x, y, loop) -> bool:
    """The proof: every feature and the head, bit for bit."""
    weight, bias = cached_head(x, y)
    return torch.equal(x, loop.features) and torch.equal(weight, loop.head.weight) and torch.equal(bias, loop.head.bias)


def test_features_and_head_are_equal_bit_for_bit(both):
    features, loop = both
    assert is_the_same_model(features.x, features.y, loop)


def test_one_unit_in_the_last_place_of_one_feature_is_noticed(both):
    features, loop = both
    x = features.x.clone()
    row, column = divmod(int(x.abs().argmax()), x.shape[1])
    x[row, column] = torch.nextafter(x[row, column], torch.tensor(torch.inf))
    assert not is_the_same_model(x, features.y, loop)


def test_the_head_alone_notices_a_small_change(both):
    features, loop = both
    x = features.x.clone()
    x[:, 0] += 1e-3
    weight, _ = cached_head(x, features.y)
    assert not torch.equal(weight, loop.head.weight)


def test_train_mode_is_another_function():
    """What tutorials do by calling model.train(): BatchNorm then depends on the batch and drifts."""
    torch.manual_seed(0)
    network = models.resnet18()
    network.fc = torch.nn.Identity()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        frozen = network.eval()(images)
        tutorial = network.train()(images)
        assert not torch.allclose(frozen, tutorial, atol=1e-2)
        assert not torch.equal(network.eval()(images), frozen)
