"""An epoch of fine-tuning from a cached cut-point against one from images, with the same layers frozen."""

import io
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.memory import keep_memory
from pipeline.benchmark.figures import EPOCHS, SECONDS, TIMES, Claim, Figure
from pipeline.benchmark.photos import Kind, make_images
from pipeline.benchmark.timing import OnStep, Spread, combined, interleaved, ratio, seconds_of, silent
from pipeline.errors import DataError
from pipeline.finetuning.loop import Training
from pipeline.finetuning.network import Tuned
from pipeline.finetuning.settings import FinetuneSettings
from pipeline.threads import cpu_threads, default_threads

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FASTER = 6.0
"""Than an epoch from images in the same memory format, asked of MobileNetV2 cut behind features.15."""
QUALITY = 95
CLASSES, STEPS, FORMATS = 10, 2, {"reference": "NCHW", "auto": "NHWC"}


def measure_finetuning(
    *,
    backbone: str = "mobilenet_v2",
    layer: str = "features.15",
    weights: str = "none",
    images: str = "",
    image_size: int = 224,
    jpeg_size: int = 32,
    batch_size: int = 64,
    repeats: int = 5,
    ask: float = FASTER,
    on_step: OnStep = silent,
) -> Claim:
    """Measure steps of both loops in turns, in both memory formats; and what mirrored maps are worth.

    The loop from images decodes and resizes them in every epoch, on all cores; its files lie in memory. Rows lie in
    memory as float16. Both sides have the same optimiser.

    Args:
        backbone: a network of torchvision's.
        layer: the cut, which gives maps.
        weights: as `extract` takes them; they decide about mirrored maps, and not about speed.
        images: a folder with .jpg files in or below it; by default files are made.
        image_size: pixels that images are resized to.
        jpeg_size: pixels of the files.
        batch_size: images a step.
        repeats: rounds.
        ask: what is asked of the ratio in channels last, which is what `finetune` takes by itself.
        on_step: called before each measurement.
    """
    keep_memory()
    files = _files(images, jpeg_size, batch_size)
    work: dict[str, Callable[[], float]] = {}
    with cpu_threads(default_threads()):
        for engine, name in FORMATS.items():
            work |= {f"{what}, {name}": one for what, one in _steps(backbone, layer, files, image_size, engine)}
        found = interleaved(work, repeats, on_step)
    each = {name: spread.map(lambda seconds: seconds / (STEPS * batch_size)) for name, spread in found.items()}
    figures = [Figure(f"{name}, an image", SECONDS, spread) for name, spread in each.items()]
    for name in FORMATS.values():
        whole, cached, front = (each[f"{what}, {name}"] for what in ("from images", "from the cut", "frozen part"))
        asked = ask if name == FORMATS["auto"] else None
        figures.append(Figure(f"times faster, {name}", TIMES, ratio(whole, cached), at_least=asked))
        paid = combined(lambda f, i, c: f / (i - c), front, whole, cached)
        figures.append(Figure(f"extraction paid back after, {name}", EPOCHS, paid))
    apart = _mirroring(backbone, weights, layer, decoded(files, image_size))
    note = "to the maps of mirrored images, relative, in Euclidean norm"
    figures.append(Figure("mirrored maps, difference", TIMES, Spread.of(apart), note=note))
    conditions = {
        **{"backbone": backbone, "layer": layer, "weights": weights, "images": images, "image_size": image_size},
        **{"jpeg_size": jpeg_size, "batch_size": batch_size, "repeats": repeats, "steps": STEPS},
    }
    title = f"fine-tuning · {backbone} behind {layer} · {image_size} px · batch {batch_size}"
    return Claim("finetune", title, tuple(figures), conditions)


def _steps(
    name: str, layer: str, files: list[bytes], image_size: int, engine: str
) -> list[tuple[str, Callable[[], float]]]:
    """Return what takes STEPS steps of each loop, and as many passes of the frozen part alone."""
    import torch

    from pipeline.backbones.tail import make_tail

    batch_size = len(files)
    settings = FinetuneSettings(engine="auto" if engine == "auto" else "reference", batch_size=batch_size)
    kind = torch.channels_last if engine == "auto" else torch.contiguous_format
    backbone = load_backbone(name, weights="none", layer=layer, pool="none", image_size=image_size)
    tail = make_tail(backbone)
    training = Training(Tuned(tail.module, tail.dim, CLASSES, settings, torch.device("cpu")), STEPS * batch_size)
    network = backbone.network.to(memory_format=kind)
    images = torch.randn(batch_size, 3, image_size, image_size).contiguous(memory_format=kind)
    labels = torch.arange(batch_size) % CLASSES
    with torch.inference_mode():
        rows = network(images).half()

    def frozen() -> None:
        with torch.inference_mode():
            for _ in range(STEPS):
                network(images)

    def cached() -> None:
        training.epoch((rows.float(), labels) for _ in range(STEPS))

    step = _whole_step(name, {one for one, _ in tail.module.named_parameters()}, settings, kind)

    def whole() -> None:
        for _ in range(STEPS):
            step(decoded(files, image_size).contiguous(memory_format=kind), labels)

    alternatives = {"from images": whole, "from the cut": cached, "frozen part": frozen}
    for warm in alternatives.values():
        warm()
    return [(what, seconds_of(one)) for what, one in alternatives.items()]


def _files(folder: str, size: int, count: int) -> list[bytes]:
    """Return so many image files of a folder, or where none is named JPEG files made on the spot."""
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as made:
        root = Path(folder) if folder else make_images(Path(made), Kind("", size, size, QUALITY), count)
        found = [path.read_bytes() for path in sorted(root.rglob("*.jpg"))[:count]]
    if len(found) < count:
        raise DataError(f"{folder} has {len(found)} .jpg files, a batch is {count}", "Pass a smaller --batch-size.")
    return found


def _mirroring(name: str, weights: str, layer: str, images: "Tensor") -> float:
    """Return how far mirrored maps are from the maps of mirrored images, as a share of their Euclidean norm."""
    import torch

    backbone = load_backbone(name, weights=weights, layer=layer, pool="none", image_size=images.shape[-1])
    with torch.inference_mode():
        maps, mirrored = backbone.network(images), backbone.network(images.flip(-1))
    return float((maps.flip(-1) - mirrored).norm() / mirrored.norm())


def decoded(files: list[bytes], size: int) -> "Tensor":
    """Return float32 images (b, 3, size, size) of JPEG files, as torchvision's transforms make them, on all cores."""
    import torch
    from torchvision import transforms

    steps = [transforms.Resize(size), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    transform = transforms.Compose(steps)
    with ThreadPoolExecutor(default_threads()) as pool:
        return torch.stack([*pool.map(lambda file: transform(Image.open(io.BytesIO(file)).convert("RGB")), files)])


def _whole_step(
    name: str, trained: set[str], settings: FinetuneSettings, kind: "torch.memory_format"
) -> "Callable[[Tensor, Tensor], None]":
    """Return a step of the plain loop: the whole network, frozen but for the parameters named and a new head."""
    import torch
    from torch import nn
    from torch.nn import functional
    from torchvision import models

    network = models.get_model(name).eval().requires_grad_(False)
    last = [part for part, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    head = nn.Linear(network.get_submodule(last).in_features, CLASSES)
    network.set_submodule(last, head)
    network.to(memory_format=kind)
    layers = [one.requires_grad_(True) for part, one in network.named_parameters() if part in trained]
    groups = [{"params": layers, "lr": settings.backbone_lr}, {"params": [*head.parameters()], "lr": settings.lr}]
    optimizer = torch.optim.Adam(groups, fused=True if settings.engine == "auto" else None)

    def step(images: "Tensor", labels: "Tensor") -> None:
        loss = functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step
