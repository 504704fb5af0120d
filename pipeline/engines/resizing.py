"""Pillow's resize on a device, bit for bit: integer arithmetic gives the same pixels on every kind of device.

That is why it is no part of the feature space. torch's own antialiased resize was tried and rejected: it differs from
Pillow in one level of 255 here and there, and between devices.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BITS = 22
"""Pillow's fixed-point weights of 8-bit images: 32 bits less 8 of the pixel and 2 to spare (`Resample.c`)."""
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Half-widths of the filters. Lanczos is left out: it needs sin, whose last bit is the C library's."""


@dataclass(frozen=True)
class Taps:
    """How one side is resized: output pixel i is the sum of `weights[i, j]` x pixel `places[i, j]`, over 2^22."""

    places: np.ndarray
    """(out, taps) int64; those past a filter's end repeat a pixel, with weight 0."""
    weights: np.ndarray
    """(out, taps) int32."""


@lru_cache(maxsize=256)
def taps_of(size: int, out: int, interpolation: str) -> Taps:
    """Return Pillow's weights for resizing a side of `size` pixels to `out`.

    Source: `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's src/libImaging/Resample.c, operation by
    operation in float64.
    """
    scale = size / out
    stretch = max(scale, 1.0)
    support = SUPPORT[interpolation] * stretch
    centres = (np.arange(out) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), size)
    taps = int((last - first).max())
    places = first[:, None] + np.arange(taps)
    inside = places < last[:, None]
    values = _filter(((places - centres[:, None]) + 0.5) * (1.0 / stretch), interpolation) * inside
    total = np.zeros(out)
    for tap in range(taps):  # in Pillow's order: floats do not sum alike in another
        total += values[:, tap]
    values *= (1.0 / total)[:, None]
    weights = np.trunc(np.copysign(0.5, values) + values * (1 << BITS)).astype(np.int32)
    return Taps(np.minimum(places, size - 1), np.where(inside, weights, 0).astype(np.int32))


def _filter(x: np.ndarray, interpolation: str) -> np.ndarray:
    x = np.abs(x)
    if interpolation == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


class DeviceResize:
    """Resizes and crops whole images on `device`, to the very pixels that `Preprocess.pixels` gives.

    Which side comes first is Pillow's choice, by rules that change between its versions, and seen in the last bit. So
    for each size of image both orders are held against Pillow on noise once; if neither fits, Pillow does that size.

    Raises:
        UsageError: if the preprocess uses a filter that has no integer twin here.
    """

    def __init__(self, preprocess: Preprocess, device: "torch.device") -> None:
        if preprocess.interpolation not in SUPPORT:
            raise UsageError(
                f"--resize device knows {' and '.join(SUPPORT)}, these weights want {preprocess.interpolation}",
                "Leave resizing to the loading processes: --resize workers.",
            )
        self.preprocess, self.device = preprocess, device
        self.rows_first: dict[tuple[int, int], bool | None] = {}
        """By (height, width): whether height is resized first; None where Pillow does it."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return uint8 (crop, crop, 3) of a whole uint8 image (h, w, 3) that is not smaller than its crop resized."""
        size = (image.shape[0], image.shape[1])
        if size not in self.rows_first:
            self.rows_first[size] = self._order(size)
        order = self.rows_first[size]
        if order is None:
            return self.preprocess.pixels(Image.fromarray(image))
        return self._resized(image, rows_first=order)

    def _order(self, size: tuple[int, int]) -> bool | None:
        noise = np.random.default_rng(0).integers(0, 2, (*size, 3), dtype=np.uint8) * 255
        wanted = self.preprocess.pixels(Image.fromarray(noise))
        orders = (order for order in (False, True) if np.array_equal(self._resized(noise, rows_first=order), wanted))
        return next(orders, None)

    def _resized(self, image: np.ndarray, *, rows_first: bool) -> np.ndarray:
        import torch

        height, width = image.shape[:2]
        wide, high = self.preprocess.resized_size(width, height)
        crop = self.preprocess.crop
        sides = [(height, high, round((high - crop) / 2)), (width, wide, round((wide - crop) / 2))]
        with torch.inference_mode():
            pixels = torch.from_numpy(image).to(self.device)
            for axis in (0, 1) if rows_first else (1, 0):
                # What the crop drops is not computed.
                pixels = self._along(pixels.transpose(0, axis), *sides[axis]).transpose(0, axis)
            result: np.ndarray = pixels.cpu().numpy()
        return result

    def _along(self, pixels: "Tensor", size: int, out: int, first: int) -> "Tensor":
        """Return uint8 (crop, m, 3): the first axis of uint8 (size, m, 3) resized to `out`, from `first` on."""
        import torch

        kept = slice(first, first + self.preprocess.crop)
        if size == out:
            return pixels[kept]
        taps = taps_of(size, out, self.preprocess.interpolation)
        places = torch.from_numpy(taps.places[kept]).to(self.device)
        weights = torch.from_numpy(taps.weights[kept]).to(self.device)
        total = (pixels[places].int() * weights[:, :, None, None]).sum(dim=1, dtype=torch.int32)
        return ((total + (1 << (BITS - 1))) >> BITS).clamp_(0, 255).to(torch.uint8)
