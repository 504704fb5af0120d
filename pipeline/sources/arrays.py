"""Sources whose images are arrays in memory: the bundled digits and array-backed torchvision data sets."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.numbered import NumberedIds
from pipeline.sources.source import TRAIN, ArrayPayload, Listing
from pipeline.textcolumn import TextColumn


@dataclass(frozen=True)
class ArrayPart:
    """One split's images: `images` uint8 (n, h, w) or (n, h, w, 3), `labels` (n,) int64."""

    split: int
    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ArraySource:
    """Arrays with a name. Ids are `<part>/<index>`, or `<index>` where there is one part."""

    name: str
    kind: str
    parts: tuple[tuple[str, ArrayPart], ...]
    classes: tuple[str, ...]

    @property
    def spec(self) -> str:
        """The source's name, with its kind where that is part of it."""
        return self.name if self.kind == "bundled" else f"{self.kind}:{self.name}"

    @property
    def folder(self) -> None:
        """Arrays have no folder."""
        return

    def describe(self) -> dict[str, Any]:
        """Name the source; what is in it is said by the image digests."""
        return {"kind": self.kind, "location": self.name}

    def listing(self) -> Listing:
        """List the samples part by part."""
        return Listing(
            TextColumn(self._ids),
            np.concatenate([part.labels.astype(np.int64) for _, part in self.parts]),
            np.concatenate([np.full(len(part.labels), part.split, np.int8) for _, part in self.parts]),
            self.classes,
        )

    @property
    def _ids(self) -> NumberedIds:
        return NumberedIds([name for name, _ in self.parts], [len(part.labels) for _, part in self.parts])

    def payload(self, sample_id: str) -> ArrayPayload:
        """Return the sample's pixels.

        Raises:
            DataError: if there is no such sample.
        """
        place = self._ids.place(sample_id)
        if place is None:
            raise DataError(f"{self.spec} has no sample {sample_id}", "Is this the data set that was extracted?")
        part, number = place
        return ArrayPayload(self.parts[part][1].images[number])


def digits_source() -> ArraySource:
    """Return scikit-learn's 1,797 real 8 x 8 handwritten digits, grey, 17 levels spread over 0 to 255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    part = ArrayPart(TRAIN, images, data.target)
    return ArraySource("digits", "bundled", (("digits", part),), tuple(str(name) for name in data.target_names))
