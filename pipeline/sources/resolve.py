"""From what a user typed to a Source."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError, UsageError, nearest
from pipeline.sources.arrays import digits_source
from pipeline.sources.braces import expand
from pipeline.sources.columns import TABLES
from pipeline.sources.folder import FolderSource
from pipeline.sources.hugging import TAKES as HUGGING
from pipeline.sources.hugging import hugging_source, saved_by_datasets
from pipeline.sources.reading import Reading
from pipeline.sources.shards import ShardsSource
from pipeline.sources.source import Source
from pipeline.sources.table import TableSource
from pipeline.sources.vision import NAMES, vision_source

DATA_ROOT = Path("data")
"""Where torchvision's data sets lie unless a user says otherwise."""

TAKES: dict[str, tuple[str, frozenset[str]]] = {
    "folder": ("a folder", frozenset({"group_by", "unlabelled"})),
    "table": (
        "a table",
        frozenset({"path_column", "label_column", "split_column", "group_by", "unlabelled"}),
    ),
    "tar": ("tar shards", frozenset({"label_column", "group_by", "unlabelled"})),
    "hf": ("a Hugging Face data set", HUGGING),
    "torchvision": ("a torchvision data set", frozenset()),
    "digits": ("the bundled digits", frozenset()),
}
"""Kinds of sources: how they are called, and which fields of `Reading` they have a use for."""
PREFIXES = ("folder", "table", "tar", "hf", "torchvision", "python")


@dataclass(frozen=True)
class _Meant:
    """What a user typed, understood: a key of TAKES and what is left without the prefix."""

    kind: str
    rest: str


def open_source(
    spec: str,
    *,
    data_root: Path | None = None,
    follow_symlinks: bool = False,
    reading: Reading | None = None,
    lenient: bool = False,
) -> Source:
    """Open a source: a prefix forces the kind, else an existing path, else a data-set name.

    Args:
        spec: what a user typed, or a source's own `spec`.
        data_root: where torchvision's data sets lie or are downloaded to; what a table's paths are relative to.
        follow_symlinks: accept links that lead out of a folder.
        reading: columns, groups, no labels.
        lenient: pass over what `reading` says that means nothing for this kind, which is an error otherwise.

    Raises:
        DataError: if it does not exist or is not what its kind needs.
        UsageError: if the name is not known, or is a folder and a data set at once.
    """
    reading = reading or Reading()
    meant = _meant(spec)
    called, takes = TAKES[meant.kind]
    if not lenient:
        reading.check(takes, called)
    reading = reading.only(takes)
    root = data_root.expanduser() if data_root is not None else None
    openers: dict[str, Callable[[str], Source]] = {
        "folder": lambda path: FolderSource(_existing_folder(path), follow_symlinks, reading),
        "table": lambda path: TableSource(_existing_table(path), root, follow_symlinks, reading),
        "tar": lambda text: _shards(text, reading),
        "hf": lambda text: hugging_source(text, reading),
        "torchvision": lambda name: vision_source(name, root or DATA_ROOT),
        "digits": lambda _: digits_source(),
    }
    return openers[meant.kind](meant.rest)


def _meant(spec: str) -> _Meant:
    prefix, colon, rest = spec.partition(":")
    if colon and rest and prefix in PREFIXES:
        if prefix == "python":
            raise DataError(
                f"{rest} was a data set in a Python program, which nothing here can make again",
                "Pass that data set itself: source=… of the same function in Python.",
            )
        return _Meant(prefix, rest)
    if not spec or (colon and not rest and prefix in PREFIXES):
        raise UsageError(
            f"{spec!r} names no source" if spec else "an empty string names no source",
            "Give a folder, a table, tar shards, or a data set's name: digits, cifar10, …",
        )
    named = "digits" if spec.lower() == "digits" else "torchvision" if spec.lower() in NAMES else None
    if _exists(spec):
        if named is not None:
            raise UsageError(
                f"{spec!r} is a folder here and also the name of a data set", f"Say which: ./{spec} or {_full(spec)}"
            )
        return _Meant(_kind_of(Path(spec).expanduser()), spec)
    if named is not None:
        return _Meant(named, spec)
    if any(mark in spec for mark in "{*?"):
        return _Meant("tar", spec)
    if "/" in spec or "\\" in spec or spec.startswith(".") or spec.lower().endswith((*TABLES, ".tar")):
        raise DataError(f"no {_word_for(spec)} {spec}", "Check the path; data sets go by name: digits, cifar10, …")
    known = ["digits", *(name.lower() for name in NAMES)]
    raise DataError(
        f"{spec!r} is neither a folder here nor a data set.{nearest(spec, known)}",
        f"Data sets: {', '.join(known)}, hf:NAME of Hugging Face; or a folder with one folder a class.",
    )


def _kind_of(path: Path) -> str:
    """Return which kind an existing path is."""
    if path.suffix.lower() in TABLES and not path.is_dir():
        return "table"
    if path.is_dir():
        if saved_by_datasets(path):
            return "hf"
        return "tar" if _holds_shards(path) else "folder"
    return "tar" if ".tar" in path.suffixes or path.suffix.lower() in (".tgz", ".tar") else "folder"


def _holds_shards(folder: Path) -> bool:
    """Tell whether a folder holds tar files, and no folders that could be classes."""
    try:
        with os.scandir(folder) as entries:
            names = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError:  # told by whoever opens it
        return False
    return any(name.lower().endswith(".tar") for name, _ in names) and not any(inside for _, inside in names)


def _shards(text: str, reading: Reading) -> ShardsSource:
    given = os.path.abspath(os.path.expanduser(text))
    if os.path.isdir(given):
        with os.scandir(given) as entries:
            paths = sorted(entry.path for entry in entries if entry.name.lower().endswith(".tar"))
        if not paths:
            raise DataError(f"{text} holds no .tar files", "Check the path.")
    else:
        paths = [given] if os.path.exists(given) else expand(given)
    return ShardsSource(given, tuple(Path(path) for path in paths), reading)


def _full(spec: str) -> str:
    return f"torchvision:{NAMES[spec.lower()]}" if spec.lower() in NAMES else "rename the folder"


def _word_for(spec: str) -> str:
    return "file" if spec.lower().endswith((*TABLES, ".tar")) else "folder"


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long for a path, no home folder, a NUL
        return False


def _existing_folder(path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"no folder {folder}", "Check the path.")
    if not folder.is_dir():
        raise DataError(
            f"{folder} is a file, not a folder",
            f"Give the folder that holds one folder a class, or a table ({' '.join(TABLES)}).",
        )
    return folder


def _existing_table(path: str) -> Path:
    table = Path(path).expanduser()
    if not table.exists():
        raise DataError(f"no file {table}", "Check the path.")
    if not table.is_file():
        raise DataError(f"{table} is not a regular file", "Give a table: path,label.")
    return table
