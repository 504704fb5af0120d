"""Names that people write in folders, tables and archives: splits, classes, image files, optional packages."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType

import numpy as np

from pipeline.errors import DataError, PipelineError, nearest
from pipeline.sources.source import TEST, TRAIN, VAL

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
"""Of image files."""
SPLIT_NAMES = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
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


def number_labels(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels as positions (n,) int64 in the class names, which are sorted: as numbers where all are."""
    names = set(labels)
    whole = all(name.isascii() and name.isdigit() for name in names)
    classes = tuple(sorted(names, key=lambda name: (int(name), name)) if whole else sorted(names))
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position[label] for label in labels], np.int64), classes


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
