"""Real images and real weights: CIFAR-10 as JPEG files through an ImageNet MobileNetV2, where they are to be had.

`make parity` runs this with 2,000 images and the reference recipe's 5 epochs.
"""

import os
import tarfile
from pathlib import Path

import pytest
import reference_loop
import torch
from conftest import shared_folder
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.models import mobilenet_v2

import pipeline

IMAGES = int(os.environ.get("PIPELINE_PARITY_IMAGES", "200"))
EPOCHS = int(os.environ.get("PIPELINE_PARITY_EPOCHS", "2"))
SHARED = shared_folder()

pytestmark = pytest.mark.skipif(SHARED is None, reason="needs the CIFAR-10 JPEG files and MobileNetV2 weights")


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    """The first images of each class of the train split, in class folders."""
    root = tmp_path_factory.mktemp("cifar")
    kept = {f"{number:04d}.jpg" for number in range(1, IMAGES // 10 + 1)}
    with tarfile.open(SHARED / "data" / "cifar10-jpeg.tar.gz") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if "train" in parts and parts[-1] in kept:
                archive.extract(member, root, filter="data")
    return next(path for path in root.rglob("train"))


def test_head_on_real_images_equals_the_plain_loop_bit_for_bit(cifar, tmp_path):
    weights = SHARED / "weights" / "mobilenet_v2-imagenet-tf.pth"
    made = pipeline.extract(
        f"folder:{cifar}",
        backbone="mobilenet_v2",
        weights=str(weights),
        image_size=224,
        mean=(0.5,),
        std=(0.5,),
        engine="reference",
        test_fraction=0,
        cache_dir=tmp_path / "cache",
    )
    features = pipeline.open_cache(made.path)
    run = pipeline.train_head(made.path, val_fraction=0, epochs=EPOCHS, device="cpu", runs_dir=tmp_path / "runs")

    model = mobilenet_v2()
    model.load_state_dict(torch.load(weights, weights_only=True))
    folder = ImageFolder(str(cifar))
    loop = reference_loop.train(
        reference_loop.without_last_layer(model, "classifier.1"),
        [Image.open(path).convert("RGB") for path, _ in folder.samples],
        folder.targets,
        reference_loop.image_transform(224, [0.5] * 3, [0.5] * 3),
        n_classes=10,
        epochs=EPOCHS,
    )
    assert len(features) == len(folder) >= IMAGES - 10
    assert torch.equal(features.x, loop.features)
    assert torch.equal(run.head.weight, loop.head.weight)
    assert torch.equal(run.head.bias, loop.head.bias)
    assert run.epochs[-1].train_accuracy > 0.2
