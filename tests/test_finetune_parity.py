"""Fine-tuning from a cached cut-point is fine-tuning end to end with the same layers frozen, bit for bit."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import reference_loop
import torch
from conftest import make_photos
from entries import at, tamper
from PIL import Image
from safetensors.torch import load_file
from torchvision import models
from torchvision.datasets import ImageFolder

import pipeline
from pipeline.store.entry import open_entry

ROWS, BATCH, EPOCHS = 16, 4, 5
"""20 steps."""


class Cut(NamedTuple):
    """A network, where it is cut, what lies behind the cut, and how large images are."""

    backbone: str
    layer: str
    behind: tuple[str, ...]
    classifier: str
    size: int


CUTS = [
    Cut("resnet18", "layer3", ("layer4",), "fc", 64),
    Cut("mobilenet_v2", "features.15", ("features.16", "features.17", "features.18"), "classifier.1", 64),
    Cut(
        *("vit_b_16", "encoder.layers.encoder_layer_10", ("encoder.layers.encoder_layer_11", "encoder.ln")),
        *("heads.head", 32),
    ),
]


@pytest.fixture(scope="module", params=CUTS, ids=[cut.backbone for cut in CUTS])
def both(request, tmp_path_factory):
    """A cut-point read back from a real extract, and the network a plain loop over images arrives at."""
    cut: Cut = request.param
    root = make_photos(tmp_path_factory.mktemp("parity") / "photos", per_class=ROWS // 2, classes=("apple", "beet"))
    made = pipeline.extract(
        str(root), backbone=cut.backbone, weights="none", image_size=cut.size, mean=(0.5,), std=(0.5,),
        layer=cut.layer, pool="none", batch_size=BATCH, engine="reference", cache_dir=root.parent / "cache",
        test_fraction=0, workers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    more = {"image_size": cut.size} if cut.backbone.startswith("vit") else {}
    network = models.get_model(cut.backbone, **more)
    folder = ImageFolder(str(root))
    reference_loop.finetune(
        network,
        cut.classifier,
        cut.behind,
        [Image.open(path).convert("RGB") for path, _ in folder.samples],
        folder.targets,
        reference_loop.image_transform(cut.size, [0.5] * 3, [0.5] * 3),
        n_classes=2,
        epochs=EPOCHS,
        batch_size=BATCH,
    )
    return Path(made.path), network, cut


def trained(path: Path, runs: Path) -> Path:
    """Fine-tune from an entry; return the run's folder."""
    made = pipeline.finetune(
        path, engine="reference", epochs=EPOCHS, batch_size=BATCH, val_fraction=0, device="cpu", runs_dir=runs
    )
    return Path(made.path)


def is_the_same_model(run: Path, network: torch.nn.Module, cut: Cut) -> bool:
    """The proof: every parameter behind the cut and of the head, bit for bit; none is left out."""
    state = network.state_dict()
    tail, head = load_file(run / "tail.safetensors"), load_file(run / "head.safetensors")
    assert set(tail) == {name for name in state if name.startswith(tuple(f"{part}." for part in cut.behind))}
    mine = tail | {f"{cut.classifier}.{name}": one for name, one in head.items()}
    return all(torch.equal(one, state[name]) for name, one in mine.items())


def test_every_parameter_is_equal_bit_for_bit(both, tmp_path):
    path, network, cut = both
    assert is_the_same_model(trained(path, tmp_path), network, cut)


def test_one_unit_in_the_last_place_of_one_activation_is_noticed(both, tmp_path):
    path, network, cut = both
    copy = tmp_path / "cache" / path.name
    shutil.copytree(path, copy)
    row, *place = np.unravel_index(
        np.abs(pipeline.open_cache(path).x.numpy()).argmax(), (ROWS, *open_entry(path).space.row_shape)
    )

    def by_one_unit(features: np.ndarray) -> np.ndarray:
        features[tuple(place)] = np.nextafter(features[tuple(place)], np.float32(np.inf))
        return features

    tamper(open_entry(copy), at(int(row), by_one_unit))
    assert not is_the_same_model(trained(copy, tmp_path), network, cut)
