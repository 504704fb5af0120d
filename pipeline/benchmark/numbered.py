"""A source of any number of images that takes no memory, and a network that takes no time: what is left is ours."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.weights import state_digest
from pipeline.extraction.prepare import prepare
from pipeline.extraction.recipe import Wishes
from pipeline.launch.crews import Alone
from pipeline.launch.jobs import run_jobs
from pipeline.launch.result import ExtractResult
from pipeline.progress import OnProgress, ignore
from pipeline.sources.source import TRAIN, ArrayPayload, Listing
from pipeline.textcolumn import TextColumn

if TYPE_CHECKING:
    from torch import nn

SIDE, CLASSES, DIM = 4, 10, 128
BATCH_SIZE = 256


@dataclass(frozen=True)
class NumberedImages:
    """So many images, each made from its number when it is asked for."""

    count: int

    spec = "numbers"
    folder = None

    def describe(self) -> dict[str, Any]:
        """Return what names the source."""
        return {"kind": "bundled", "location": f"numbers up to {self.count}"}

    def listing(self) -> Listing:
        """List the numbers."""
        numbers = np.arange(self.count)
        classes = tuple(f"class {number}" for number in range(CLASSES))
        ids = TextColumn(map(str, range(self.count)))
        return Listing(ids, numbers % CLASSES, np.full(self.count, TRAIN, np.int8), classes)

    def payload(self, sample_id: str) -> ArrayPayload:
        """Make an image: the eight bytes of its number, again and again."""
        pixels = int(sample_id).to_bytes(8, "big") * (SIDE * SIDE * 3 // 8)
        return ArrayPayload(np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE, 3))


def null_backbone(dim: int = DIM) -> Backbone:
    """Return a backbone that mixes an image's pixels into `dim` features by one small product."""
    network = _mix(dim)
    preprocess = Preprocess(SIDE, SIDE, "bilinear", (0.5,) * 3, (0.5,) * 3)
    digest = state_digest(network)
    return Backbone("mix", "mix", "none", digest, "input:none", "none", preprocess, "benchmark", (dim,), network)


def extract_numbers(
    root: Path, rows: int, dim: int = DIM, *, workers: int = 1, on_progress: OnProgress = ignore
) -> ExtractResult:
    """Make an entry of so many rows under `root`, as `extract` does."""
    started = time.perf_counter()
    wishes = Wishes(batch_size=BATCH_SIZE, device="cpu", engine="reference", workers=workers, test_fraction=0.0)
    job = prepare(NumberedImages(rows), null_backbone(dim), root=root, wishes=wishes)
    try:
        return run_jobs([job], Alone(), False, "pipeline benchmark", None, on_progress, started)[0]
    finally:
        job.close()


def _mix(dim: int) -> "nn.Module":
    import torch
    from torch import Tensor, nn

    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pixels = SIDE * SIDE * 3
            self.mix = nn.Buffer(torch.cos(torch.arange(pixels * dim).reshape(pixels, dim).float()))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) @ self.mix

    return Mix().eval()
