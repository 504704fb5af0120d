"""The head back home: the original network with the trained head where its classifier was."""

from pathlib import Path

import pytest
import torch
from conftest import make_photos
from torchvision import models

import pipeline
from pipeline.extraction.reread import reread
from pipeline.fusion import open_trained
from pipeline.model import Model
from pipeline.sources.folder import FolderSource

CLASSIFIERS = {
    "resnet18": "fc",
    "mobilenet_v3_small": "classifier.3",
    "squeezenet1_1": "classifier.2",
    "densenet121": "classifier",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("fusion") / "photos", per_class=4)


def trained(photos: Path, backbone: str) -> pipeline.TrainResult:
    root = photos.parent
    made = pipeline.extract(
        str(photos),
        backbone=backbone,
        weights="none",
        image_size=64,
        workers=1,
        test_fraction=0,
        cache_dir=root / "cache",
    )
    return pipeline.train_head(made.path, epochs=2, val_fraction=0, runs_dir=root / "runs")


def pixels_of(photos: Path, run: pipeline.TrainResult) -> torch.Tensor:
    """Normalised images as a user's own loop makes them, float32 (n, 3, h, w)."""
    opened = open_trained(run.path, Path())
    features = pipeline.open_cache(opened.run.body["cache"]["path"])
    process = opened.backbone.preprocess
    source = FolderSource(photos)
    batches = reread(source, features.ids, features.digests, process, batch_size=len(features), workers=1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (process.mean, process.std))
    [images] = [torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 255 for _, pixels in batches]
    return (images - mean) / std


@pytest.mark.parametrize("backbone", CLASSIFIERS)
def test_the_fused_network_gives_the_cached_logits(photos, backbone):
    run = trained(photos, backbone)
    network = pipeline.fuse(run.path)
    features = pipeline.open_cache(open_trained(run.path, Path()).run.body["cache"]["path"])
    with torch.inference_mode():
        logits = network(pixels_of(photos, run))
    wanted = run.head.logits(features.x)
    assert torch.equal(logits.argmax(1), wanted.argmax(1))
    assert (logits - wanted).abs().max() <= 1e-4
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(network.get_submodule(CLASSIFIERS[backbone]).weight, run.head.weight)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_its_state_dict_loads_into_the_librarys_own_model(photos, backbone):
    run = trained(photos, backbone)
    fused = pipeline.fuse(run.path)
    plain = models.get_model(backbone, num_classes=3)
    plain.load_state_dict(fused.state_dict())
    images = pixels_of(photos, run)
    with torch.inference_mode():
        assert torch.equal(plain.eval()(images), fused(images))


def test_it_can_be_trained_further(photos):
    network = pipeline.fuse(trained(photos, "resnet18").path)
    before = network.conv1.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(network(torch.ones(2, 3, 64, 64)), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert not torch.equal(before, network.conv1.weight)


def test_the_fused_network_is_the_model_that_evaluate_proves(photos):
    run = trained(photos, "resnet18")
    opened = open_trained(run.path, Path())
    model = Model(opened.backbone, opened.head, "cpu")
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    process = opened.backbone.preprocess
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (process.mean, process.std))
    wanted = torch.from_numpy(model.logits(pixels.numpy()))
    with torch.inference_mode():
        logits = pipeline.fuse(run.path)((pixels.permute(0, 3, 1, 2).contiguous() / 255 - mean) / std)
    assert torch.equal(logits, wanted)


def test_the_callers_random_numbers_stay_as_they_are(photos):
    run = trained(photos, "resnet18")
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    pipeline.fuse(run.path)
    assert torch.equal(torch.rand(2), wanted)
