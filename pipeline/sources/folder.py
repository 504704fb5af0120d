"""Image folders: `train/ val/ test/` with class folders in each, or class folders alone.

Samples come in the order of torchvision's ImageFolder (classes sorted, then files by path), so that a loop
over ImageFolder and this source see the same images in the same order.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.facts import Stats
from pipeline.sources.groups import folder_groups
from pipeline.sources.names import EXTENSIONS, SHOWN, SPLIT_NAMES, Noted, some
from pipeline.sources.reading import PLAIN, Reading
from pipeline.sources.source import TRAIN, UNLABELLED, FilePayload, Listing
from pipeline.textcolumn import ColumnBuilder, TextColumn, text_bytes

CLASS_FOLDERS = "Put each class's images in a folder of its own: FOLDER/<class>/*.jpg"


@dataclass(frozen=True)
class FolderSource:
    """Images under `root`. Symbolic links that lead out of it are refused unless `follow_symlinks`.

    `reading` may say that there are no labels: then every image below the root is a sample of the train split.
    """

    root: Path
    follow_symlinks: bool = False
    reading: Reading = PLAIN

    @property
    def spec(self) -> str:
        """The folder's real path, so that it is found from any working directory."""
        return self.folder

    @property
    def folder(self) -> str:
        """The folder's real path."""
        return str(self.root.resolve())

    def describe(self) -> dict[str, Any]:
        """Name the source by its real path."""
        return {"kind": "folder", "location": self.folder, **self.reading.described()}

    def payload(self, sample_id: str) -> FilePayload:
        """Return the file; a link out of the folder becomes a path that cannot be opened."""
        return FilePayload(os.path.join(self.root, sample_id))

    def listing(self) -> Listing:
        """List the images.

        Raises:
            DataError: if the folder has no class folders, or they hold no images.
        """
        notes: list[str] = []
        column = ColumnBuilder()
        spans: list[tuple[str, int, int]] = []
        """(class, split, images) in order."""
        walk = _Walk(self.root, self.follow_symlinks)
        for where, class_name, split in self._parts(notes):
            before = len(column)
            for folder in walk.below(where):
                for file in folder.files.split(b"\0"):
                    column.append_bytes(folder.prefix + file)
            if len(column) == before and where:
                notes.append(f"class folder {where} holds no images")
            spans.append((class_name, split, len(column) - before))
        ids = TextColumn.built(column)
        notes += walk.notes()
        if not len(ids):
            raise DataError(
                f"{self.root} has {'' if self.reading.unlabelled else 'class folders but '}no images in "
                f"{'it' if self.reading.unlabelled else 'them'} (looked for {' '.join(EXTENSIONS)})",
                "" if self.reading.unlabelled else CLASS_FOLDERS,
            )
        if not self.follow_symlinks:
            self._refuse_links_out(walk)
        classes = tuple(sorted({name for name, _, count in spans if count and name}))
        number = {name: position for position, name in enumerate(classes)}
        counts = [count for _, _, count in spans]
        return Listing(
            ids,
            np.repeat(np.array([number.get(name, UNLABELLED) for name, _, _ in spans], np.int64), counts),
            np.repeat(np.array([split for _, split, _ in spans], np.int8), counts),
            classes,
            Stats.of_paths(ids, str(self.root)),
            tuple(notes),
            folder_groups(ids, self.reading.group_by),
        )

    def _parts(self, notes: list[str]) -> Iterator[tuple[str, str, int]]:
        """Yield (folder, class, split) in order; the root alone, of no class, where there are no labels."""
        if self.reading.unlabelled:
            yield "", "", TRAIN
            return
        for name, split in self._split_folders(notes):
            for class_name in self._class_folders(name):
                yield (f"{name}/{class_name}" if name else class_name), class_name, split

    def _split_folders(self, notes: list[str]) -> list[tuple[str, int]]:
        """Return (folder, split) pairs in the order train, val, test; one pair ("", TRAIN) without splits."""
        folders = _subfolders(self.root)
        named = [name for name in folders if name.lower() in SPLIT_NAMES]
        # A class may be called `train`: a split folder is one that has folders in it.
        named = [name for name in named if _subfolders(self.root / name)]
        if not named:
            return [("", TRAIN)]
        others = sorted(set(folders) - set(named))
        if others:
            notes.append(f"beside the split folders, left out: {', '.join(others[:SHOWN])}")
        pairs = [(name, SPLIT_NAMES[name.lower()]) for name in named]
        if len({split for _, split in pairs}) < len(pairs):
            twice = [name for name, split in pairs if sum(split == other for _, other in pairs) > 1]
            raise DataError(f"{self.root} has two folders for one split: {', '.join(twice)}", "Keep one of them.")
        return sorted(pairs, key=lambda pair: pair[1])

    def _class_folders(self, split_folder: str) -> list[str]:
        folder = self.root / split_folder
        names = _subfolders(folder)
        if not names:
            images = [name for name in os.listdir(folder) if name.lower().endswith(EXTENSIONS)]
            found = f"{len(images):,} images directly in it" if images else "nothing to classify"
            raise DataError(
                f"{folder} has no class folders: found {found}",
                f"{CLASS_FOLDERS}; or pass --unlabelled.",
            )
        return names

    def _refuse_links_out(self, walk: "_Walk") -> None:
        inside = self.folder + os.sep
        for relative in chain(walk.folders, TextColumn.built(walk.links)):
            path = os.path.join(self.root, relative)
            if not os.path.realpath(path).startswith(inside):
                raise DataError(
                    f"{path} leads out of {self.root} by a symbolic link, to {os.path.realpath(path)}",
                    "Pass --follow-symlinks if that is meant.",
                )


def _subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in `folder`, sorted, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


@dataclass(frozen=True)
class _Folder:
    """A folder's image files."""

    path: str
    """Relative to the source's root."""
    files: bytes
    """Their names, sorted, with NULs between: a folder's names alone are ever Python objects."""

    @property
    def prefix(self) -> bytes:
        """What stands before a file's name in its id."""
        return text_bytes(f"{self.path}/") if self.path else b""


class _Walk:
    """Finds image files, and remembers what it passed over on the way."""

    def __init__(self, root: Path, follow_symlinks: bool) -> None:
        self.root = root
        self.follow_symlinks = follow_symlinks
        self.entered: set[str] = set()
        """Real paths of linked folders, each entered once: links can go round in circles."""
        self.unentered: list[str] = []
        self.ignored = Noted[str]()
        self.folders: list[str] = []
        self.links = ColumnBuilder()

    def notes(self) -> list[str]:
        """Return what a user should know."""
        notes = []
        if self.ignored.count:
            count, few = self.ignored.count, some(self.ignored.first)
            files = "1 file is no image by its" if count == 1 else f"{count:,} files are no images by their"
            notes.append(f"{files} extension and left out: {few}")
        if self.unentered:
            notes.append(f"linked folders are not entered: {', '.join(self.unentered[:SHOWN])}")
        return notes

    def below(self, relative: str) -> list[_Folder]:
        """Return a folder and those below it that hold images, sorted by path, as sorting os.walk's answers does."""
        return sorted(self._found(relative), key=lambda folder: folder.path)

    def _found(self, relative: str) -> Iterator[_Folder]:
        names: list[str] = []
        prefix = f"{relative}/" if relative else ""
        with os.scandir(self.root / relative) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if _is_folder(entry):
                    if self._may_enter(entry, prefix + name):
                        yield from self._found(prefix + name)
                    continue
                if not name.lower().endswith(EXTENSIONS):
                    self.ignored.add(prefix + name)
                    continue
                if entry.is_symlink():
                    self.links.append(prefix + name)
                names.append(name)
        if names:
            if relative:
                self.folders.append(relative)
            yield _Folder(relative, b"\0".join(map(text_bytes, sorted(names))))

    def _may_enter(self, entry: "os.DirEntry[str]", relative: str) -> bool:
        if not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        if not self.follow_symlinks or real in self.entered:
            self.unentered.append(relative)
            return False
        self.entered.add(real)
        return True
