"""From what a user typed to a Source."""

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import DataError, UsageError, nearest
from pipeline.sources.arrays import digits_source
from pipeline.sources.folder import FolderSource
from pipeline.sources.source import Source
from pipeline.sources.vision import NAMES, vision_source

PREFIXES = ("folder", "torchvision")


def open_source(spec: str, *, data_root: Path = Path("data"), follow_symlinks: bool = False) -> Source:
    """Open a source: a prefix forces the kind, else an existing folder, else a data-set name.

    `data_root` is where torchvision's data sets lie or are downloaded to.

    Raises:
        DataError: if a folder does not exist or is not a folder.
        UsageError: if the name is not known, or is a folder and a data set at once.
    """
    data_root = data_root.expanduser()

    def folder(path: str) -> Source:
        return FolderSource(_existing_folder(path), follow_symlinks)

    def vision(name: str) -> Source:
        return vision_source(name, data_root)

    prefix, colon, rest = spec.partition(":")
    if colon and rest and prefix in PREFIXES:
        return folder(rest) if prefix == "folder" else vision(rest)
    named: Callable[[], Source] | None = None
    if spec.lower() == "digits":
        named = digits_source
    elif spec.lower() in NAMES:
        named = lambda: vision(spec)  # noqa: E731 - opened only if it is what was meant
    if not spec or spec == "folder:":
        raise UsageError("an empty string names no source", "Give a folder, or a data set's name: digits, cifar10, …")
    if _exists(spec):
        if named is not None:
            raise UsageError(
                f"{spec!r} is a folder here and also the name of a data set", f"Say which: ./{spec} or {_full(spec)}"
            )
        return folder(spec)
    if named is not None:
        return named()
    if "/" in spec or "\\" in spec or spec.startswith("."):
        raise DataError(f"no folder {spec}", "Check the path; data sets go by name: digits, cifar10, …")
    known = ["digits", *(name.lower() for name in NAMES)]
    raise DataError(
        f"{spec!r} is neither a folder here nor a data set.{nearest(spec, known)}",
        f"Data sets: {', '.join(known)}; or a folder with one folder a class.",
    )


def _full(spec: str) -> str:
    return f"torchvision:{NAMES[spec.lower()]}" if spec.lower() in NAMES else "rename the folder"


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path, or no home folder
        return False


def _existing_folder(path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"no folder {folder}", "Check the path.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, not a folder", "Give the folder that holds one folder a class.")
    return folder
