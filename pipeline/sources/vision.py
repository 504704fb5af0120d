"""torchvision's classification data sets by name.

They differ in how they name splits, so the table below says it for each. Data sets that keep files are asked
for paths and not for decoded images (their `loader` is replaced), so that files are hashed and decoded like
those of a folder.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError, nearest
from pipeline.sources.arrays import ArrayPart, ArraySource
from pipeline.sources.facts import Stats
from pipeline.sources.source import TEST, TRAIN, VAL, FilePayload, Listing, Source
from pipeline.textcolumn import TextColumn

_TRAIN_FLAG = ((TRAIN, {"train": True}), (TEST, {"train": False}))
_TRAIN_TEST = ((TRAIN, {"split": "train"}), (TEST, {"split": "test"}))
_TRAIN_VAL = ((TRAIN, {"split": "train"}), (VAL, {"split": "val"}))
_TRAIN_VAL_TEST = ((TRAIN, {"split": "train"}), (VAL, {"split": "val"}), (TEST, {"split": "test"}))
_ONE: tuple[tuple[int, dict[str, Any]], ...] = ((TRAIN, {}),)

ARRAYS: dict[str, tuple[tuple[int, dict[str, Any]], ...]] = {
    "CIFAR10": _TRAIN_FLAG,
    "CIFAR100": _TRAIN_FLAG,
    "MNIST": _TRAIN_FLAG,
    "FashionMNIST": _TRAIN_FLAG,
    "KMNIST": _TRAIN_FLAG,
    "QMNIST": _TRAIN_FLAG,
    "USPS": _TRAIN_FLAG,
    "SVHN": _TRAIN_TEST,
    "STL10": _TRAIN_TEST,
}
"""Data sets with all images in one array, and the arguments of each split."""

FILES: dict[str, tuple[tuple[int, dict[str, Any]], ...]] = {
    "DTD": _TRAIN_VAL_TEST,
    "EuroSAT": _ONE,
    "FGVCAircraft": _TRAIN_VAL_TEST,
    "Flowers102": _TRAIN_VAL_TEST,
    "Food101": _TRAIN_TEST,
    "Imagenette": _TRAIN_VAL,
    "OxfordIIITPet": ((TRAIN, {"split": "trainval"}), (TEST, {"split": "test"})),
    "StanfordCars": _TRAIN_TEST,
    "SUN397": _ONE,
}
"""Data sets that keep image files, and the arguments of each split."""

BY_HAND = {"StanfordCars"}
"""Data sets whose download torchvision has given up."""
WITHOUT_LOADER = {"OxfordIIITPet"}
"""Data sets whose image loader cannot be replaced; their lists of paths and labels are read instead."""

NAMES = {name.lower(): name for name in (*ARRAYS, *FILES)}


@dataclass(frozen=True)
class FilesSource:
    """A torchvision data set that keeps image files under `root`."""

    name: str
    root: Path
    parts: tuple[tuple[int, tuple[tuple[str, int], ...]], ...]
    """(split, ((path, label), …)) for each part."""
    classes: tuple[str, ...]

    @property
    def spec(self) -> str:
        """The prefixed name."""
        return f"torchvision:{self.name}"

    @property
    def folder(self) -> str:
        """The data folder's real path."""
        return str(self.root.resolve())

    def describe(self) -> dict[str, Any]:
        """Name the source; what is in it is said by the image digests."""
        return {"kind": "torchvision", "location": self.name}

    @cached_property
    def _relative(self) -> TextColumn:
        # Not resolved: a data set's folder may be a link to another disk.
        return TextColumn(Path(path).relative_to(self.root).as_posix() for _, part in self.parts for path, _ in part)

    def listing(self) -> Listing:
        """List the samples split by split."""
        return Listing(
            self._relative,
            np.array([label for _, part in self.parts for _, label in part], np.int64),
            np.concatenate([np.full(len(part), split, np.int8) for split, part in self.parts]),
            self.classes,
            Stats.of_paths(self._relative, str(self.root)),
        )

    def payload(self, sample_id: str) -> FilePayload:
        """Return the sample's file."""
        return FilePayload(str(self.root / sample_id))


def vision_source(name: str, root: Path) -> Source:
    """Open a torchvision data set by name, downloading it into `root` if it is not there.

    Raises:
        UsageError: if the name is not known.
        DataError: if it is not there and cannot be downloaded.
    """
    known = NAMES.get(name.lower())
    if known is None:
        names = ", ".join(NAMES.values())
        raise UsageError(f"unknown torchvision data set {name!r}.{nearest(name, NAMES.values())}", f"Known: {names}")
    if known in ARRAYS:
        return _arrays(known, root)
    return _files(known, root)


def _open(name: str, root: Path, arguments: dict[str, Any], **more: Any) -> Any:  # noqa: ANN401 - torchvision's classes
    from torchvision import datasets

    make = getattr(datasets, name)
    try:
        with _no_tty_bar():
            return make(str(root), download=name not in BY_HAND, **arguments, **more)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"torchvision's {name} is not whole under {root} and could not be downloaded: {error}",
            "Put its files there by hand, or name their folder with --data-root.",
        ) from error


@contextmanager
def _no_tty_bar() -> Iterator[None]:
    """Send what torchvision prints while it downloads to stderr: stdout is for results."""
    import contextlib
    import sys

    with contextlib.redirect_stdout(sys.stderr):
        yield


def _arrays(name: str, root: Path) -> ArraySource:
    parts: list[tuple[str, ArrayPart]] = []
    classes: tuple[str, ...] = ()
    for split, arguments in ARRAYS[name]:
        data = _open(name, root, arguments)
        images = np.asarray(data.data)
        if name in ("SVHN", "STL10"):
            images = images.transpose(0, 2, 3, 1)
        labels = np.asarray(data.targets if hasattr(data, "targets") else data.labels, np.int64)
        if labels.ndim == 2:  # QMNIST keeps eight columns, the class first
            labels = labels[:, 0]
        classes = tuple(getattr(data, "classes", ())) or tuple(str(c) for c in range(int(labels.max()) + 1))
        parts.append(("train" if split == TRAIN else "test", ArrayPart(split, np.ascontiguousarray(images), labels)))
    return ArraySource(name, "torchvision", tuple(parts), classes)


def _files(name: str, root: Path) -> FilesSource:
    parts: list[tuple[int, tuple[tuple[str, int], ...]]] = []
    classes: tuple[str, ...] = ()
    for split, arguments in FILES[name]:
        data = _open(name, root, arguments, **({} if name in WITHOUT_LOADER else {"loader": str}))
        if name in WITHOUT_LOADER:
            found: Iterable[tuple[Any, Any]] = zip(data._images, data._labels, strict=True)
        else:
            found = (data[row] for row in range(len(data)))
        pairs = tuple((str(path), int(label)) for path, label in found)
        names = getattr(data, "classes", None)
        classes = (
            tuple(_text(n) for n in names)
            if names
            else tuple(str(c) for c in range(1 + max(label for _, label in pairs)))
        )
        parts.append((split, pairs))
    return FilesSource(name, root, tuple(parts), classes)


def _text(name: str | tuple[str, ...]) -> str:
    return name if isinstance(name, str) else name[0]
