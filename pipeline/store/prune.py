"""What a cache root can do without: entries long unused, what killed processes left, what was set aside."""

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store.catalog import GRAPHS, INDEX, PLANS, QUARANTINE, last_used, list_entries
from pipeline.store.commit import leftovers, remove_folder, remove_leftovers
from pipeline.store.entry import SHARDS, Entry
from pipeline.store.verify import STAMP


@dataclass(frozen=True)
class Pruning:
    """What would go."""

    entries: list[Entry]
    unfinished: list[Path]
    """Folders of extractions that were not finished."""
    rubbish: list[Path]
    """Temporary files of killed processes, damaged files that were set aside, graphs long unused."""
    bytes: int
    """Disk space that becomes free: shards that entries share go with the last of them."""

    def carry_out(self) -> None:
        """Remove all of it.

        Raises:
            CacheError: if something may not be removed.
        """
        for folder in [entry.path for entry in self.entries] + self.unfinished:
            remove_folder(folder)
        remove_leftovers(self.rubbish)


def plan_pruning(
    root: Path, *, older_than: float | None = None, keep: int | None = None, max_size: int | None = None
) -> Pruning:
    """Choose what goes.

    Args:
        root: the cache root.
        older_than: entries not used for so many seconds go, and unfinished work not touched for as long.
        keep: the so many entries used last stay whatever else is said; if nothing else is, all others go.
        max_size: entries go, longest unused first, until the rest take at most so many bytes.
    """
    now = time.time()
    entries = sorted(reversed(list(list_entries(root))), key=last_used, reverse=True)  # of equal uses the newest first
    chosen: set[Path] = set()
    unfinished: list[Path] = []
    if older_than is not None:
        chosen |= {entry.path for entry in entries if now - last_used(entry) > older_than}
        unfinished = [path for path in plan_folders(root) if now - _last_change(path) > older_than]
    if max_size is not None:
        kept: dict[tuple[int, int], tuple[int, int, int]] = {}
        taken = 0
        for entry in entries:
            files = _files([entry.path])
            taken += sum(size for file, (size, _, _) in files.items() if file not in kept)
            kept |= files
            if taken > max_size:
                chosen.add(entry.path)
    if keep is not None:
        if older_than is None and max_size is None:
            chosen = {entry.path for entry in entries}
        chosen -= {entry.path for entry in entries[:keep]}
    going = [entry for entry in entries if entry.path in chosen]
    rubbish = find_rubbish(root, older_than or 0.0)
    if older_than is not None:
        rubbish += [path for path in sorted((root / GRAPHS).glob("[!.]*")) if now - _last_change(path) > older_than]
    return Pruning(going, unfinished, rubbish, _freed([entry.path for entry in going] + unfinished + rubbish))


def find_rubbish(root: Path, older_than: float = 0.0) -> list[Path]:
    """Return what killed processes left in all folders of the cache, and files set aside so many seconds ago."""
    inner = [folder for entry in list_entries(root) for folder in (entry.path, entry.path / SHARDS)]
    aside: list[Path] = []
    with contextlib.suppress(OSError):
        aside = sorted((root / QUARANTINE).iterdir())
    before = time.time() - older_than
    return work_leftovers(root) + leftovers(inner) + [path for path in aside if _set_aside_at(path) <= before]


def work_leftovers(root: Path) -> list[Path]:
    """Return what killed extractions left where extractions write."""
    inner = [folder for plan in plan_folders(root) for folder in (plan, plan / "records", plan / SHARDS)]
    return leftovers([root, root / PLANS, root / INDEX, root / GRAPHS, *inner])


def plan_folders(root: Path) -> list[Path]:
    """Return the folders of unfinished work, those whose plan cannot be read included."""
    return sorted(path for path in (root / PLANS).glob("[!.]*") if path.is_dir())


def _set_aside_at(path: Path) -> float:
    """Return when a file was set aside, as its name says; its own times are those of its bytes."""
    try:
        return datetime.strptime(path.name.partition("-")[0], STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return _last_change(path)


def disk_usage(entries: Iterable[Entry]) -> int:
    """Return the bytes that entries take together; a file that several share counts once."""
    return sum(size for size, _, _ in _files([entry.path for entry in entries]).values())


def _freed(paths: list[Path]) -> int:
    """Return the bytes of the files whose every name lies in `paths`."""
    return sum(size for size, links, found in _files(paths).values() if found >= links)


def _files(paths: Iterable[Path]) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Return (bytes on disk, links, names found) by (device, inode) of all files in or below `paths`."""
    seen: dict[tuple[int, int], tuple[int, int, int]] = {}
    for path in paths:
        for file in _tree(path):
            with contextlib.suppress(OSError):
                found = file.lstat()
                if not stat.S_ISDIR(found.st_mode):
                    key = (found.st_dev, found.st_ino)
                    size, links, names = seen.get(key, (found.st_size, found.st_nlink, 0))
                    seen[key] = (size, links, names + 1)
    return seen


def _last_change(path: Path) -> float:
    """Return when a file, or anything in a folder, was last changed; the end of time for what is gone."""
    times = []
    for file in _tree(path):
        with contextlib.suppress(OSError):
            times.append(file.lstat().st_mtime)
    return max(times, default=float("inf"))


def _tree(path: Path) -> Iterator[Path]:
    """Yield a path and all below it; what other processes remove meanwhile is left out, links are not followed."""
    yield path
    if not path.is_symlink():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, name) for name in folders + files)
