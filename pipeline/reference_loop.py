"""The plain PyTorch loops that everybody writes, to compare with: images through the network in every epoch.

`train` has a new linear head on a frozen backbone, `finetune` the last layers and a new head on a frozen rest.

They share no code with this package: torch and torchvision alone. `tests/reference_loop.py` is this file.
Two things are said out loud that tutorials often get wrong or leave open:

- The backbone is in eval mode. A loop that calls `model.train()` on a frozen network is another function, because
  its BatchNorm statistics drift with every batch and its dropout is on.
- A forward pass has one fixed batch shape: a smaller last batch is filled up with zeros and cut. Convolution
  kernels choose another algorithm for another shape, which moves the last bits of a feature.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import transforms


@dataclass(frozen=True)
class LoopResult:
    """What the loop arrives at, and what it saw on the way."""

    head: nn.Linear
    features: Tensor
    """(n, d), what the backbone gave for each image in the last epoch. A head alone is a coarse witness: Adam's
    steps round a difference of one unit in the last place of one feature away."""
    seconds: list[float]
    """Of each epoch."""


def image_transform(size: int, mean: Sequence[float], std: Sequence[float]) -> Any:  # noqa: ANN401 - a Compose
    """Return torchvision's transform from a Pillow image to float32 (3, size, size)."""
    return transforms.Compose(
        [
            transforms.Resize(size),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def without_last_layer(model: nn.Module, layer: str) -> nn.Module:
    """Replace the classifier called `layer` by the identity and freeze all the rest."""
    model.set_submodule(layer, nn.Identity())
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model.eval()


def train(
    backbone: nn.Module,
    images: Sequence[Any],
    labels: Sequence[int],
    transform: Any,  # noqa: ANN401 - any callable from image to Tensor
    *,
    n_classes: int,
    epochs: int = 5,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    head_threads: int = 1,
) -> LoopResult:
    """Train a head end to end.

    Args:
        backbone: frozen, without its last layer; maps (b, 3, h, w) to (b, d).
        images: Pillow images, decoded; `transform` is applied in every epoch.
        labels: one a image.
        transform: from an image to float32 (3, h, w).
        n_classes: c, the head is `nn.Linear(d, c)`.
        epochs: how often every image is seen.
        batch_size: images a step.
        lr: of Adam.
        seed: of the head's initialisation and of the batch order.
        head_threads: CPU threads of the head's products; sums over two threads differ in the last bits.
    """
    forward_threads = torch.get_num_threads()
    with torch.no_grad():
        dim = backbone(torch.stack([transform(images[0])])).shape[1]
    torch.manual_seed(seed)
    head = nn.Linear(dim, n_classes)
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    criterion = nn.CrossEntropyLoss()
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor(labels)
    seen = torch.empty(len(images), dim)
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            batch = torch.stack([transform(images[row]) for row in rows.tolist()])
            with torch.no_grad():
                features = backbone(_filled(batch, batch_size))[: len(rows)]
            seen[rows] = features
            torch.set_num_threads(head_threads)
            loss = criterion(head(features), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            torch.set_num_threads(forward_threads)
        seconds.append(time.perf_counter() - started)
    return LoopResult(head, seen, seconds)


def finetune(
    model: nn.Module,
    classifier: str,
    unfrozen: Sequence[str],
    images: Sequence[Any],
    labels: Sequence[int],
    transform: Any,  # noqa: ANN401 - any callable from image to Tensor
    *,
    n_classes: int,
    epochs: int = 5,
    batch_size: int = 64,
    lr: float = 1e-3,
    backbone_lr: float = 1e-4,
    seed: int = 0,
) -> list[float]:
    """Train the last layers of a network and a new head end to end, in place; return the seconds of each epoch.

    BatchNorm statistics stay as they are and dropout is off: the network is in eval mode. Its last batch is not
    filled up: for equal bits take a number of images that batches divide.

    Args:
        model: a whole network, which maps (b, 3, h, w) to logits.
        classifier: the name of its last layer, in whose place the head is put.
        unfrozen: names of the modules that are trained with it.
        images: as for `train`, and so is what is not named here.
        labels: one a image.
        transform: from an image to float32 (3, h, w).
        n_classes: of the head.
        epochs: how often every image is seen.
        batch_size: images a step.
        lr: of the head.
        backbone_lr: of the unfrozen layers.
        seed: of the head's initialisation and of the batch order.
    """
    model.eval().requires_grad_(False)
    width = model.get_submodule(classifier).in_features
    assert isinstance(width, int)
    layers = [model.get_submodule(name).requires_grad_(True) for name in unfrozen]
    torch.manual_seed(seed)
    head = nn.Linear(width, n_classes)
    model.set_submodule(classifier, head)
    optimizer = torch.optim.Adam(
        [
            {"params": [one for layer in layers for one in layer.parameters()], "lr": backbone_lr},
            {"params": head.parameters(), "lr": lr},
        ]
    )
    criterion = nn.CrossEntropyLoss()
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor(labels)
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            batch = torch.stack([transform(images[row]) for row in rows.tolist()])
            loss = criterion(model(batch), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds


def _filled(batch: Tensor, batch_size: int) -> Tensor:
    missing = batch_size - len(batch)
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
