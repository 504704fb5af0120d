"""From what a user named to image files, one after the other: no list of all of them is made."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import DataError
from pipeline.sources.names import EXTENSIONS

NUL = "\0"


def image_files(named: Iterable[str | Path]) -> Iterator[str]:
    """Yield files as they are named, and the images in and below folders, sorted within each.

    A file is taken whatever its name is; in folders, what has an image's ending. Links to folders are not entered.

    Raises:
        DataError: if a name is neither a file nor a folder, or a folder holds no image.
    """
    for item in named:
        path = os.fspath(item)
        if NUL in path:
            raise DataError(f"{path!r} is no path: it holds a NUL")
        if not os.path.isdir(path):
            yield path
            continue
        empty = True
        for found in _below(path):
            empty = False
            yield found
        if empty:
            raise DataError(
                f"{path} holds no images (looked for {' '.join(EXTENSIONS)})",
                "Name a folder with images in or below it.",
            )


def _below(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    for name, is_folder in found:
        if name.startswith("."):
            continue
        path = os.path.join(folder, name)
        if is_folder:
            yield from _below(path)
        elif name.lower().endswith(EXTENSIONS):
            yield path
