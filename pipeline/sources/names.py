"""Names that people write in folders, tables and archives: splits, classes, image files, optional packages."""

from array import array
from collections.abc import Collection, Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Generic, TypeVar

import numpy as np

from pipeline.errors import DataError, PipelineError, nearest
from pipeline.sources.source import TEST, TRAIN, VAL

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
"""Of image files."""
SPLIT_NAMES = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
T = TypeVar("T")

SPAN = 1 << 16
"""Rows that are turned from one form into another at a time."""
SHOWN = 5
"""How many of something a message names."""


def split_number(name: str, where: str) -> int:
    """Return the split that `name` means, in any case.

    Raises:
        DataError: naming `where` it was found.
    """
    number = SPLIT_NAMES.get(name.strip().lower())
    if number is None:
        raise DataError(
            f"{where}: unknown split {name!r}.{nearest(name, SPLIT_NAMES)}", f"Known: {', '.join(SPLIT_NAMES)}."
        )
    return number


class LabelNumbers:
    """Labels as they are read, four bytes each, until all names are known."""

    def __init__(self) -> None:
        self._met: dict[str, int] = {}
        self._numbers = array("i")

    def append(self, name: str) -> None:
        """Take the next sample's label."""
        self._numbers.append(self._met.setdefault(name, len(self._met)))

    def numbered(self, told: Sequence[str] | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return labels as positions (n,) int64 in the class names.

        These are as `told`, which holds all that were met, or else sorted: as numbers where all are.
        """
        whole = all(name.isascii() and name.isdigit() for name in self._met)
        order = sorted(self._met, key=lambda name: (int(name), name)) if whole else sorted(self._met)
        classes = tuple(order if told is None else told)
        position = {name: number for number, name in enumerate(classes)}
        place = np.array([position[name] for name in self._met], np.int64)
        numbers, labels = np.frombuffer(self._numbers, np.int32), np.empty(len(self._numbers), np.int64)
        for first in range(0, len(labels), SPAN):
            labels[first : first + SPAN] = place[numbers[first : first + SPAN]]
        return labels, classes

    @property
    def names(self) -> Collection[str]:
        """All names met so far."""
        return self._met.keys()


def number_labels(labels: Iterable[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels as positions (n,) int64 in the class names, which are sorted: as numbers where all are."""
    numbers = LabelNumbers()
    for label in labels:
        numbers.append(label)
    return numbers.numbered()


class Noted(Generic[T]):
    """How many of something there are, and the first few of them: what a message says of many."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[T] = []

    def add(self, item: T) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) <= SHOWN:  # one more than is shown: it says that there are more
            self.first.append(item)


def label_text(value: object) -> str | None:
    """Return a label as the name of its class; None for what cannot be one."""
    if isinstance(value, bool | int | np.integer):
        return str(int(value))
    return value if isinstance(value, str) and value and "\0" not in value else None


def some(items: Iterable[str], shown: int = SHOWN) -> str:
    """Return the first few items as text."""
    names = list(items)
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def load_extra(module: str, extra: str, what: str) -> ModuleType:
    """Import a package that only some sources need.

    Raises:
        PipelineError: naming the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise PipelineError(
            f"{what} needs the package {module.partition('.')[0]}, which cannot be imported: {error}",
            f"pip install 'feature-pipeline[{extra}]'",
        ) from error
