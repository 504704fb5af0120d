"""Pictures of pairs of rows, small, read again from their source, and how much they differ."""

from dataclasses import dataclass

import numpy as np

from pipeline.backbones.preprocess import SQUASH, Preprocess
from pipeline.extraction.reread import reread
from pipeline.features import Features
from pipeline.progress import OnProgress, ignore
from pipeline.sources.source import Source

SIDE = 16
"""Pixels a side of a thumbnail of the whole picture: too few for the marks of an encoder or a resize to show."""
THUMBNAIL = Preprocess(SIDE, SIDE, "bilinear", (0.5,) * 3, (0.5,) * 3, mode=SQUASH)
FLAT = 2.0
"""Contrast, in levels of 255, below which a picture is taken for a blank: noise is all it could be told by."""
CHUNK = 8192


@dataclass(frozen=True)
class Differences:
    """How much the pictures of m pairs differ, each in [0, 1]: 0 the same picture, about 0.5 another."""

    straight: np.ndarray
    """(m,) float32."""
    mirrored: np.ndarray
    """(m,) float32, one of the two flipped left to right."""


def read_thumbnails(
    source: Source,
    features: Features,
    rows: np.ndarray,
    *,
    workers: int | None = None,
    on_progress: OnProgress = ignore,
) -> np.ndarray:
    """Return the pictures (m, SIDE, SIDE, 3) uint8 of `rows` (m,).

    Raises:
        DataError: if an image is gone or has changed, naming it.
    """
    thumbnails = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    ids = [features.ids[row] for row in rows.tolist()]
    batches = reread(
        source, ids, features.digests[rows], THUMBNAIL, batch_size=64, workers=workers, on_progress=on_progress
    )
    for places, pixels in batches:
        thumbnails[places] = pixels[: len(places)]
    return thumbnails


def differences(thumbnails: np.ndarray, pairs: np.ndarray) -> Differences:
    """Compare pictures (n, h, w, 3) uint8 by pairs (m, 2) of places.

    The difference is (1 - r) / 2, r the correlation of all values after each channel's mean is taken off: a change
    of brightness or contrast is none.
    """
    straight, mirrored = np.empty(len(pairs), np.float32), np.empty(len(pairs), np.float32)
    for first in range(0, len(pairs), CHUNK):
        part = slice(first, first + CHUNK)
        one, other = (_normalised(thumbnails[pairs[part, side]]) for side in (0, 1))
        straight[part] = (1 - np.einsum("nhwc,nhwc->n", one, other)) / 2
        mirrored[part] = (1 - np.einsum("nhwc,nhwc->n", one, other[:, :, ::-1])) / 2
    return Differences(straight.clip(0, 1), mirrored.clip(0, 1))


def _normalised(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, h, w, 3) float32 of zero mean a channel and norm 1, blank ones all zeros."""
    values = pictures.astype(np.float32)
    values -= values.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((values**2).sum(axis=(1, 2, 3), keepdims=True))
    blank = norm < FLAT * np.sqrt(values[0].size)
    return np.where(blank, 0, values / np.where(blank, 1, norm)).astype(np.float32, copy=False)
