"""What happens to pixels before the network: one value, shared by everything that feeds images to a model.

Resize and crop are done on uint8 with Pillow (in workers, on arrays), scaling and normalising in float32 by
the engine on its device. Equal to torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` and to timm's
evaluation transforms (crop modes center, squash and border) on Pillow images, bit for bit.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from PIL import Image

from pipeline.backbones.augment import View

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
GREY = 3
SHORTEST, SQUASH, BORDER = "shortest", "squash", "border"
MODES = (SHORTEST, SQUASH, BORDER)
MAX_RESIZED_PIXELS = 100_000_000


@dataclass(frozen=True)
class Preprocess:
    """Resized to `resize`, the central `crop` x `crop`, scaled to [0, 1], minus `mean`, over `std`."""

    resize: int
    """Pixels after resizing of the side that `mode` names."""
    crop: int
    """Pixels of a side of the central square that the network sees; borders are added where it is larger."""
    interpolation: str
    """A key of INTERPOLATIONS; Pillow's filters always antialias."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Three values each, R G B, for pixels in [0, 1]."""
    mode: str = SHORTEST
    """`shortest`: the shorter side is resized, the other keeps the ratio, rounded down; borders are zeros.
    `squash`: both sides are, whatever the ratio. `border`: the longer side is, the other keeps the ratio, rounded;
    borders have the mean's colour, so that nothing of the image is lost."""
    view: View | None = None
    """Which augmented view of the image the network sees; None for the plain one."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r}, expected one of {', '.join(MODES)}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation {self.interpolation!r}, expected one of {sorted(INTERPOLATIONS)}")
        if self.resize < 1 or self.crop < 1:
            raise ValueError(f"resize {self.resize} and crop {self.crop} must be at least 1")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or not all(value > 0 for value in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} must have 3 values, finite, std above 0")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields, those that are not a choice included; `mode` only if it is not the usual one.

        The names of spaces that are older than `mode` and `augment` must not change.
        """
        value = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "view"}
        if self.mode == SHORTEST:
            del value["mode"]
        if self.view is not None:
            value["augment"] = self.view.to_json()
        return {**value, "mean": list(self.mean), "std": list(self.std), "colour": "RGB", "decoder": "pillow"}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build from `to_json`'s fields.

        Raises:
            ValueError: if they are not those of this version.
        """
        names = ("resize", "crop", "interpolation", "mean", "std", "colour", "decoder")
        if set(value) - {"mode", "augment"} != set(names):
            raise ValueError(f"preprocess with fields {sorted(value)}, expected {sorted(names)}")
        mean, std = tuple(value["mean"]), tuple(value["std"])
        view = View.from_json(value["augment"]) if "augment" in value else None
        mode = value.get("mode", SHORTEST)
        made = cls(value["resize"], value["crop"], value["interpolation"], mean, std, mode, view)
        if made.to_json() != value:
            raise ValueError(f"preprocess {value} is none that this version knows")
        return made

    def override(
        self, *, image_size: int | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
    ) -> Self:
        """Return a copy with what a user asked for; `image_size` sets both the resize and the crop."""
        changes: dict[str, Any] = {}
        if image_size is not None:
            changes |= {"resize": image_size, "crop": image_size}
        for name, value in (("mean", mean), ("std", std)):
            if value is not None:
                changes[name] = value * GREY if len(value) == 1 else value
        return replace(self, **changes)

    def pixels(self, image: Image.Image, digest: bytes = b"") -> np.ndarray:
        """Return what the network sees of an RGB image: uint8 (crop, crop, 3). A view depends on the image's digest.

        Raises:
            ValueError: if the image is so thin that resizing its shorter side makes it enormous.
        """
        size = self.resized_size(*image.size)
        if size != image.size and size[0] * size[1] > MAX_RESIZED_PIXELS:
            said = f"{image.width} x {image.height} pixels would become {size[0]} x {size[1]}"
            raise ValueError(f"{said}: too long and thin")
        if self.view is None:
            return self._plain(image)
        return np.asarray(self.view(image, digest, self._plain_image, self.crop, self.interpolation))

    def prepare(self) -> None:
        """Import what views need, which `pixels` would otherwise do when it makes the first."""
        if self.view is not None:
            self.view.prepare(self.crop, self.interpolation)

    def _plain_image(self, image: Image.Image) -> Image.Image:
        return Image.fromarray(self._plain(image))

    def _plain(self, image: Image.Image) -> np.ndarray:
        size = self.resized_size(*image.size)
        if size != image.size:
            image = image.resize(size, INTERPOLATIONS[self.interpolation])
        return self._central(np.asarray(image))

    def may_wait(self, width: int, height: int, side: int) -> bool:
        """Tell whether an image may be resized later: it is to be, and fits `side` x `side` before and after.

        What is smaller than the crop even then gets borders, and is left to `pixels`; so is a view.
        """
        wide, high = self.resized_size(width, height)
        return (
            self.view is None
            and (wide, high) != (width, height)
            and max(width, height) <= side
            and min(wide, high) >= self.crop
            and wide * high <= side * side
        )

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after resizing, as torchvision's and timm's transforms round them."""
        short, long = min(width, height), max(width, height)
        if self.mode == SQUASH:
            return self.resize, self.resize
        if self.mode == BORDER:
            ratio = long / self.resize
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        longer = max(1, int(self.resize * long / short))
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def _central(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        if height < self.crop or width < self.crop:
            # torchvision's and timm's center crop: the smaller half of the padding goes left and on top.
            top, left = max(0, self.crop - height) // 2, max(0, self.crop - width) // 2
            canvas = np.empty((max(height, self.crop), max(width, self.crop), 3), np.uint8)
            canvas[:] = [round(255 * value) for value in self.mean] if self.mode == BORDER else 0
            canvas[top : top + height, left : left + width] = pixels
            pixels = canvas
            height, width = pixels.shape[:2]
        top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
        return pixels[top : top + self.crop, left : left + self.crop]
