"""From what a user named to image files, one after the other: no list of all of them is made."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import DataError
from pipeline.sources.columns import TABLES, open_columns
from pipeline.sources.names import EXTENSIONS

NUL = "\0"


class Named(NamedTuple):
    """An image: what it is called, and the file it is in."""

    name: str
    path: str


def image_files(
    named: Iterable[str | Path], *, path_column: str | None = None, data_root: Path | None = None
) -> Iterator[Named]:
    """Yield images: files as they are named, those in and below folders, sorted within each, those that tables list.

    A file is taken whatever its name is, but for tables (.csv, .tsv, .parquet); in folders, what has an image's
    ending. Links to folders are not entered. Paths in a table are relative to `data_root`, by default its own folder.

    Raises:
        DataError: if a folder holds no image, or a table has no column of paths.
    """
    for item in named:
        path = os.fspath(item)
        if NUL in path:
            raise DataError(f"{path!r} is no path: it holds a NUL")
        if os.path.isdir(path):
            yield from _in_folder(path)
        elif path.lower().endswith(tuple(TABLES)) and os.path.isfile(path):
            yield from _in_table(Path(path), path_column, data_root)
        else:
            yield Named(path, path)


def _in_table(path: Path, path_column: str | None, data_root: Path | None) -> Iterator[Named]:
    table = open_columns(path)
    column = table.required(path_column, "path", "--path-column")
    root = data_root or path.parent
    for line, (value,) in table.rows([column]):
        if not isinstance(value, str) or not value or NUL in value:
            raise DataError(f"{table.where(line)}: {value!r} is no path")
        yield Named(value, os.path.join(root, value))


def _in_folder(path: str) -> Iterator[Named]:
    empty = True
    for found in _below(path):
        empty = False
        yield Named(found, found)
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
