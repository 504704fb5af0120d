"""Small pictures of rows, as the network saw them: decoded once more, checked by digest, as JPEG."""

import base64
import io
from collections.abc import Mapping

import numpy as np

from pipeline.backbones.preprocess import Preprocess
from pipeline.extraction.reread import reread
from pipeline.progress import OnProgress
from pipeline.sources.source import Source

SIDE = 48
"""Pixels of the longer side."""
QUALITY = 75
BATCH_SIZE = 32


def thumbnails(
    source: Source,
    digests: Mapping[str, np.ndarray],
    preprocess: Preprocess,
    *,
    workers: int | None,
    on_progress: OnProgress,
) -> dict[str, str]:
    """Return JPEG files in base64 by sample id.

    Args:
        source: where the images are now.
        digests: the image digest (32,) uint8 of each that is wanted, by sample id.
        preprocess: what the network saw of them.
        workers: loading processes.
        on_progress: called after every batch.

    Raises:
        DataError: if an image is gone or is not the one that was measured, naming it.
    """
    found: dict[str, str] = {}
    ids = list(digests)
    for places, pixels in reread(
        source,
        ids,
        np.stack([digests[one] for one in ids]),
        preprocess,
        batch_size=BATCH_SIZE,
        workers=workers,
        on_progress=on_progress,
    ):
        for place, image in zip(places, pixels, strict=False):
            found[ids[place]] = _jpeg(image)
    return found


def _jpeg(pixels: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY)
    return base64.b64encode(data.getvalue()).decode()
