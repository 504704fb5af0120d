"""What lies under a cache root, and which entry a user means. Imports neither torch nor scikit-learn.

An entry's last use is its folder's modification time, and when it was extracted last its manifest's: nothing in a
finished entry ever changes, so nothing else moves them, and a cache that cannot be written simply has no later uses.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import CacheError, UsageError
from pipeline.store.entry import MANIFEST, Entry, open_entry

PLANS, INDEX, QUARANTINE, GRAPHS = "plans", "index", "quarantine", "graphs"


def entry_folders(root: Path) -> list[Path]:
    """Return the folders under `root` that have a manifest, sorted; half-made and half-removed ones are hidden."""
    return sorted(path.parent for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))


def list_entries(root: Path) -> Iterator[Entry]:
    """Yield the readable entries under `root`, that which `extract` made or found last at the end."""
    found = []
    for folder in entry_folders(root):
        try:
            found.append(((folder / MANIFEST).stat().st_mtime_ns, open_entry(folder)))
        except (CacheError, FileNotFoundError):
            continue
    yield from (entry for _, entry in sorted(found, key=lambda pair: (pair[0], pair[1].id)))


def mark_extracted(entry: Entry) -> None:
    """Note that `extract` made or found an entry just now: it is `latest`; only its owner may note that."""
    mark_used(entry)
    now = time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(entry.path / MANIFEST, ns=(now, now))


def mark_used(entry: Entry) -> None:
    """Note that an entry was used now; on a cache that cannot be written it is not noted."""
    with contextlib.suppress(OSError):
        os.utime(entry.path)


def last_used(entry: Entry) -> float:
    """Return when an entry was last used, in seconds since 1970."""
    try:
        return entry.path.stat().st_mtime
    except OSError:
        return 0.0


def entry_stamps(root: Path) -> frozenset[tuple[str, int]]:
    """Return names and times of all entries' folders: what changes when one is published, replaced or used."""
    found = set()
    for folder in entry_folders(root):
        with contextlib.suppress(OSError):
            found.add((folder.name, folder.stat().st_mtime_ns))
    return frozenset(found)


def find_entry(root: Path, name: str) -> Entry:
    """Return the entry a user means by a unique prefix of its id, a path, or `latest`.

    `latest` is what `extract` made or found last, of the views of an image the plain ones.

    Raises:
        CacheError: if none or several fit.
    """
    folders = entry_folders(root)
    if name == "latest":
        entries = list(list_entries(root))
        if entries:
            return _plain(root, entries[-1])
        raise CacheError(f"no cache entry under {root} yet", "Make one: pipeline extract SOURCE --backbone NAME")
    if not name:
        raise UsageError("an empty string names no cache entry")
    exact = [folder for folder in folders if folder.name == name.lower()]
    fitting = exact or [folder for folder in folders if folder.name.startswith(name.lower())]
    if len(fitting) == 1:
        return open_entry(fitting[0])
    if not fitting:  # ids before paths: a folder that happens to lie here must not take an entry's name
        with contextlib.suppress(OSError, ValueError):  # a name too long for a file, or with a NUL, is no path
            if (Path(name) / MANIFEST).is_file():
                return open_entry(Path(name))
    if fitting:
        names = ", ".join(folder.name for folder in fitting)
        raise CacheError(f"cache entry {name!r} is not unique under {root}: {names}", "Give more digits of its id.")
    there = ", ".join(folder.name for folder in folders[:5]) or "nothing"
    raise CacheError(f"no cache entry {name!r} under {root}; there is {there}", _what_else(name))


def _plain(root: Path, entry: Entry) -> Entry:
    """Return the entry of the plain images that an entry shows views of, if it is there; else that entry itself."""
    path = root / entry.id_in(entry.space.of_view("", 0))
    return open_entry(path) if path.exists() else entry


def _what_else(name: str) -> str:
    """Return what to do where no entry has a name: it may be a run's, or the images themselves."""
    if re.fullmatch(r"\d{4}(-.*)?", name):
        return f"If {name} is a run: `pipeline runs` names its cache entry; `pipeline cache ls` lists all."
    with contextlib.suppress(OSError, ValueError):
        if Path(name).exists():
            return f"If {name} holds images: pipeline extract {name} --backbone NAME; `pipeline cache ls` lists all."
    return "`pipeline cache ls` lists all."
