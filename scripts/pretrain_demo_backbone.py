"""Pretrain the backbone that ships with the package for `pipeline demo`.

    python scripts/pretrain_demo_backbone.py CIFAR10_FOLDER -o pipeline/data/shufflenet_v2_x0_5-cifar10.safetensors

CIFAR10_FOLDER holds `train/<class>/*.jpg` and `test/<class>/*.jpg` (50,000 and 10,000 images of 32 x 32).
A torchvision `shufflenet_v2_x0_5` is trained from scratch at 64 px for 30 epochs (about 25 minutes on two
CPU cores) and saved without its last layer, float32, with its own test accuracy in the file's metadata.

Not run by the package or its tests: it is here so that the shipped weights can be made again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import shufflenet_v2_x0_5

IMAGE_SIZE = 64
PAD = 4


def read_split(folder: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Return images (n, 3, 32, 32) uint8, labels (n,) int64 and the class names, in sorted order."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    images, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as image:
                images.append(np.asarray(image.convert("RGB")))
            labels.append(label)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels), classes


def prepare(images: Tensor) -> Tensor:
    """uint8 (b, 3, 32, 32) -> float32 (b, 3, 64, 64), mean 0.5 and std 0.5, as the demo's preprocess does."""
    x = functional.interpolate(images.float() / 255, size=IMAGE_SIZE, mode="bilinear", antialias=True)
    return ((x - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random 4-pixel shift and horizontal flip, one draw an image; (b, 3, h, w) uint8 in and out."""
    b, _, h, w = images.shape
    padded = functional.pad(images, (PAD, PAD, PAD, PAD))
    top = torch.randint(0, 2 * PAD + 1, (b, 1, 1), generator=generator)
    left = torch.randint(0, 2 * PAD + 1, (b, 1, 1), generator=generator)
    rows = top + torch.arange(h).view(1, h, 1)
    columns = left + torch.arange(w).view(1, 1, w)
    flip = torch.rand(b, 1, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(-1), columns)
    index = torch.arange(b).view(b, 1, 1)
    return padded.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2)


@torch.inference_mode()
def test_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right predictions on images (n, 3, 32, 32) uint8 in eval mode."""
    model.eval()
    right = sum(
        int((model(prepare(batch)).argmax(1) == target).sum())
        for batch, target in zip(images.split(256), labels.split(256), strict=True)
    )
    return right / len(labels)


def train(model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, batch_size: int, seed: int) -> None:
    """SGD with Nesterov momentum and a one-cycle schedule; changes `model` in place."""
    generator = torch.Generator().manual_seed(seed)
    steps = len(images) // batch_size
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps * epochs, pct_start=0.2)
    for epoch in range(epochs):
        model.train()
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images), generator=generator)[: steps * batch_size]
        for rows in order.split(batch_size):
            logits = model(prepare(augment(images[rows], generator)))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / steps:.4f}  {time.perf_counter() - started:.0f} s", flush=True
        )


def main() -> None:
    """Train, measure on the test split, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    images, labels, classes = read_split(args.data / "train")
    test_images, test_labels, test_classes = read_split(args.data / "test")
    if classes != test_classes:
        raise SystemExit(f"train classes {classes} differ from test classes {test_classes}")
    model = shufflenet_v2_x0_5(num_classes=len(classes)).to(memory_format=torch.channels_last)
    train(model, images, labels, epochs=args.epochs, batch_size=128, seed=args.seed)
    accuracy = test_accuracy(model, test_images, test_labels)
    print(f"CIFAR-10 test accuracy {accuracy:.4f}")

    weights = {k: v.contiguous() for k, v in model.state_dict().items() if not k.startswith("fc.")}
    metadata = {
        "architecture": "shufflenet_v2_x0_5",
        "trained_on": "CIFAR-10 train split, 50,000 images",
        "test_accuracy": f"{accuracy:.4f}",
        "image_size": str(IMAGE_SIZE),
        "mean": "0.5",
        "std": "0.5",
        "epochs": str(args.epochs),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.output, metadata)


if __name__ == "__main__":
    main()
