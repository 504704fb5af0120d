"""The loop to compare with: torch and torchvision alone, as tutorials write it, with a DataLoader.

`ImageFolder`, `DataLoader`, a frozen backbone in eval mode, a new linear head, Adam. It runs in a process of its own.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

WARM_BATCHES = 3


def plain_loop(
    folder: str,
    backbone: str,
    *,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    workers: int,
    batches: int,
    device: str,
) -> Callable[[], dict[str, Any]]:
    """Return what trains for so many batches and answers with images a second.

    The clock starts after WARM_BATCHES, and the loader's workers go on decoding until it has stopped, so that a
    queue that is filled beforehand is as full at the end. The folder must have more images than that takes.
    """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import models, transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.Resize(image_size),
            transforms.CenterCrop(image_size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    dataset = ImageFolder(folder, transform)
    torch.manual_seed(0)
    model = models.get_model(backbone)
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    width = model.get_submodule(last).in_features
    model.requires_grad_(False).eval()
    model.set_submodule(last, nn.Linear(width, len(dataset.classes)))
    model.to(device)
    optimizer = torch.optim.Adam(model.get_submodule(last).parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()

    def train() -> dict[str, Any]:
        loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=workers)
        started = 0.0
        for number, (images, labels) in enumerate(loader, start=1):
            loss = criterion(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if number == WARM_BATCHES:
                loss.item()  # waits for a GPU
                started = time.perf_counter()
            if number == WARM_BATCHES + batches:
                loss.item()
                break
        return {"images_per_second": batches * batch_size / (time.perf_counter() - started)}

    return train
