"""Images made on the spot: seeded, all different, with the spectrum of natural ones, so that JPEG has to work.

Amplitudes of natural images fall off about as one over the frequency (Field, "Relations between the statistics of
natural images and the response properties of cortical cells", 1987). Noise of that spectrum is made once, and images
are cut out of it at random places, with random colour and contrast.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
FIELD = 1024
"""Pixels of a side of the noise, a power of two for the transform."""


@dataclass(frozen=True)
class Kind:
    """A kind of image file."""

    name: str
    width: int
    height: int
    quality: int


SMALL = Kind("32 px JPEG files", 32, 32, 95)
"""As CIFAR-10's images are kept."""
PHOTOS = Kind("500 x 375 photos", 500, 375, 90)
"""As ImageNet's mostly are."""
KINDS = {"small": SMALL, "photos": PHOTOS}


def make_images(folder: Path, kind: Kind, count: int, seed: int = 0) -> Path:
    """Write `count` files `folder/<class>/NNNNN.jpg` of CLASSES classes; return the folder."""
    rng = np.random.default_rng(seed)
    field = _natural_noise(rng)
    for number in range(CLASSES):
        (folder / f"class {number}").mkdir(parents=True)
    for number in range(count):
        top, left = (int(rng.integers(FIELD - side + 1)) for side in (kind.height, kind.width))
        cut = field[top : top + kind.height, left : left + kind.width]
        pixels = (cut @ rng.normal(0, 0.6, (3, 3)) + rng.normal(0, 0.5, 3)) * 50 + 128
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"class {number % CLASSES}" / f"{number:05d}.jpg", quality=kind.quality)
    return folder


def _natural_noise(rng: np.random.Generator) -> np.ndarray:
    """Return float32 (FIELD, FIELD, 3) of mean 0 and deviation 1, whose amplitudes fall off as 1 / frequency."""
    vertical, horizontal = np.fft.fftfreq(FIELD)[:, None], np.fft.rfftfreq(FIELD)[None]
    frequency = np.hypot(vertical, horizontal)
    frequency[0, 0] = np.inf  # no mean
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(FIELD, FIELD))) / frequency) for _ in range(3)]
    field = np.stack([plane / plane.std() for plane in planes], axis=-1)
    return field.astype(np.float32)
