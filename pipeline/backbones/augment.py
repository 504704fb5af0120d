"""Augmentation as a value: what is done at random to an image, by name, and which of its random views is meant.

A view is seeded by the digest of the image, its number and the augmentation: it is the same in any order, batch,
process and run. torchvision's own transforms (v2) do the work, imported when a view is first made. The steps come in
the order of torchvision's training recipes: crop, flips, rotation, colour.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from pipeline.errors import UsageError, nearest

if TYPE_CHECKING:
    from PIL import Image

NUMBER = r"\d{1,3}(?:\.\d{1,6})?"
HALF = "0.5"
FORMS = "hflip[:p], vflip[:p], crop:from-to (share of the area), rotate:degrees, colour:strength, grey[:p]"
HUE_SHARE = 0.25
"""Of the strength that brightness, contrast and saturation have: Chen et al., "SimCLR" (ICML 2020), appendix A."""


@dataclass(frozen=True)
class Augment:
    """What happens at random; 0 leaves a step out."""

    crop: tuple[float, float] = (0.0, 0.0)
    """Share of the image's area that is cut out, from and to, with sides of 3:4 to 4:3, and resized to what the network
    sees, in place of the plain resize and centre crop (`RandomResizedCrop`)."""
    hflip: float = 0.0
    """Probability of mirroring left and right."""
    vflip: float = 0.0
    """Probability of turning upside down."""
    rotate: float = 0.0
    """Largest angle in degrees, either way; corners become black."""
    colour: float = 0.0
    """Strength of changes of brightness, contrast and saturation, and by a quarter of it of the hue (`ColorJitter`)."""
    grey: float = 0.0
    """Probability of taking the colours away."""

    def __post_init__(self) -> None:
        low, high = self.crop
        for message, fine in {
            "crop is from-to, shares of the area, 0 < from <= to <= 1": self.crop == (0, 0) or 0 < low <= high <= 1,
            "hflip, vflip and grey are probabilities, at most 1": max(self.hflip, self.vflip, self.grey) <= 1,
            "rotate is at most 180 degrees": self.rotate <= 180,
            "colour is at most 1": self.colour <= 1,
            "it needs a step": any([high, *(value for _, value in self._numbers())]),
        }.items():
            if not fine:
                raise UsageError(f"augment: {message}", f"Known: {FORMS}.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `hflip,crop:0.7-1,colour:0.2` says, in whatever order.

        Raises:
            UsageError: naming the step that is unknown, given twice, or without meaning.
        """
        names = [field.name for field in fields(cls)]
        found: dict[str, Any] = {}
        for part in re.split(r"\s*,\s*", text.strip()):
            name, _, value = part.partition(":")
            if name not in names:
                raise UsageError(f"augment: unknown step {name!r}.{nearest(name, names)}", f"Known: {FORMS}.")
            if name in found:
                raise UsageError(f"augment: {name} is there twice")
            found[name] = _value(name, value)
        return cls(**found)

    def __str__(self) -> str:
        """Return the same augmentation in one spelling; `parse` is the way back."""
        low, high = self.crop
        said = [f"crop:{_text(low)}-{_text(high)}"] if high else []
        return ",".join([*said, *(f"{name}:{_text(value)}" for name, value in self._numbers() if value)])

    def _numbers(self) -> list[tuple[str, float]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "crop"]


def _text(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _value(name: str, text: str) -> float | tuple[float, float]:
    if name == "crop":
        match = re.fullmatch(rf"({NUMBER})-({NUMBER})", text)
        if match:
            return float(match[1]), float(match[2])
    elif text or name in ("hflip", "vflip", "grey"):
        match = re.fullmatch(NUMBER, text or HALF)
        if match:
            return float(match[0])
    raise UsageError(f"augment: {name} with {text!r}", f"Known: {FORMS}.")


@dataclass(frozen=True)
class View:
    """The view `number`, from 1, of an augmentation; view 0 is the plain image and has no augmentation."""

    augment: Augment
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"view {self.number}: the first augmented one is 1")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {"steps": str(self.augment), "view": self.number}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build from `to_json`'s fields.

        Raises:
            ValueError: if they are not those of this version.
        """
        try:
            made = cls(Augment.parse(value["steps"]), value["view"])
        except (KeyError, TypeError, AttributeError, UsageError) as error:
            raise ValueError(f"augment {value!r} is none that this version knows") from error
        if made.to_json() != value:
            raise ValueError(f"augment {value!r} is none that this version knows")
        return made

    def seed(self, digest: bytes) -> int:
        """Return the seed of an image's view: 64 bits of the SHA-256 of image digest, view and augmentation."""
        said = digest + self.number.to_bytes(8, "little") + str(self.augment).encode()
        return int.from_bytes(hashlib.sha256(said).digest()[:8], "little")

    def prepare(self, size: int, filter_: str) -> None:
        """Import what makes views; the arguments are those of a call."""
        transforms_of(self.augment, size, filter_)

    def __call__(
        self,
        image: "Image.Image",
        digest: bytes,
        plain: "Callable[[Image.Image], Image.Image]",
        size: int,
        filter_: str,
    ) -> "Image.Image":
        """Return the view (size x size) of an RGB image with this digest.

        Args:
            image: decoded, in its own size.
            digest: of the image, 32 bytes.
            plain: what makes it size x size where there is no crop.
            size: pixels of a side.
            filter_: how a crop is resized, as torchvision's `InterpolationMode` calls it.
        """
        import torch

        crop, rest = transforms_of(self.augment, size, filter_)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed(digest))
            image = plain(image) if crop is None else crop(image)
            for step in rest:
                image = step(image)
        return image


Step = Callable[["Image.Image"], "Image.Image"]


@cache
def transforms_of(augment: Augment, size: int, filter_: str) -> tuple[Step | None, list[Step]]:
    """Return torchvision's transforms: the crop to size x size, if there is one, and what follows."""
    from torchvision.transforms import v2

    crop = None
    if augment.crop[1]:
        crop = v2.RandomResizedCrop(size, scale=augment.crop, interpolation=v2.InterpolationMode(filter_))
    x = augment.colour
    rest: list[Step | None] = [
        v2.RandomHorizontalFlip(augment.hflip) if augment.hflip else None,
        v2.RandomVerticalFlip(augment.vflip) if augment.vflip else None,
        v2.RandomRotation(augment.rotate, interpolation=v2.InterpolationMode.BILINEAR) if augment.rotate else None,
        v2.ColorJitter(x, x, x, x * HUE_SHARE) if x else None,
        v2.RandomGrayscale(augment.grey) if augment.grey else None,
    ]
    return crop, [step for step in rest if step is not None]
