"""What is done to a cache, with what is promised before, meanwhile and afterwards.

Imports neither torch nor anything else that is slow to start.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from works import EXPORTED, FRUIT, PHOTOS, RECIPE, RELABELLED, SPACE, OnPromise, Promise, Work, commit, extract

from pipeline.errors import CacheError, UsageError
from pipeline.store.commit import make_folder, new_file, remove_folder, replace_file
from pipeline.store.entry import open_entry
from pipeline.store.single import export_single, import_single
from pipeline.store.verify import find_changed, put_back, set_aside
from pipeline.store.work import WorkFolder

CACHE = "cache"
"""The cache root on the disk."""
OLD = b"old bytes" * 150
DAMAGED = b"damaged" * 150


def damage(path: Path) -> None:
    """Turn one bit of a file, which keeps its inode and with it its other names."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@dataclass(frozen=True)
class Scene:
    """What a cache holds before, and what is done to it; done again after a crash it comes to the same."""

    name: str
    before: Callable[[Path], None]
    act: Callable[[Path, OnPromise], None]
    promised: tuple[Promise, ...] = ()
    """What is promised before anything is done."""
    whole: tuple[Work, ...] = (FRUIT,)
    """The entries that are there when all is done."""


def _fruit_there(root: Path) -> None:
    extract(root, FRUIT)


def _both_there(root: Path) -> None:
    extract(root, FRUIT)
    extract(root, RELABELLED)


def _damaged(root: Path) -> None:
    """An entry with a damaged shard, and work in progress with a damaged record and a damaged shard."""
    extract(root, FRUIT)
    damage(root / FRUIT.name / "shards" / "00001.h5")
    folder = WorkFolder(root, FRUIT.plan)
    folder.pin(SPACE, RECIPE, {"source": PHOTOS})
    records = [commit(folder, FRUIT, number, {}) for number in (0, 1)]
    damage(folder.path / "records" / "00000.json")
    damage(folder.shard_path(records[1]))


def _repair(root: Path, promise: OnPromise) -> None:
    """What `extract` does on finding an entry damaged."""
    with contextlib.suppress(CacheError):
        for item in find_changed(open_entry(root / FRUIT.name)):
            if item.path.exists():
                data = item.path.read_bytes()
                there = set_aside(root, item.path)
                promise(("hold", ("aside", str(item.path.relative_to(root)), str(there.relative_to(root))), data))
    extract(root, FRUIT, promise)


def _two_damaged(root: Path) -> None:
    """An entry with a damaged shard, whose bytes another entry has, and without its ledger."""
    _both_there(root)
    shard = root / FRUIT.name / "shards" / "00001.h5"
    shard.unlink()
    shard.write_bytes(DAMAGED)
    (root / FRUIT.name / "skipped.csv").unlink()


def _put_back(root: Path, promise: OnPromise) -> None:
    """What `cache verify --repair` does."""
    twin = root / RELABELLED.name / "shards" / "00000.h5"
    for item in find_changed(open_entry(root / FRUIT.name)):
        ledger = item.path.name == "skipped.csv"
        put_back(root, item.path, FRUIT.ledger if ledger else twin)
        content = FRUIT.ledger if ledger else FRUIT.bytes[1]
        promise(("hold", ("reads", str(item.path.relative_to(root.parent))), (content,)))


def _prune(root: Path, promise: OnPromise) -> None:
    promise(("release", ("entry", FRUIT.name), None))
    remove_folder(root / FRUIT.name)


@contextlib.contextmanager
def without_links() -> Iterator[None]:
    """A disk that has no hard links."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    link, os.link = os.link, refuse
    try:
        yield
    finally:
        os.link = link


def _copy(root: Path, promise: OnPromise) -> None:
    with without_links():
        extract(root, FRUIT, promise)


def _exported(root: Path) -> None:
    """An entry that lies beside the cache as one file."""
    extract(root, FRUIT)
    export_single(open_entry(root / FRUIT.name), root.parent / "fruit.h5")
    remove_folder(root / FRUIT.name)


def _import(root: Path, promise: OnPromise) -> None:
    import_single(root.parent / "fruit.h5", root)
    promise(("hold", ("entry", FRUIT.name), None))


def _export(root: Path, promise: OnPromise) -> None:
    """What exports do; these bytes do not go through HDF5, whose writing is not recorded."""
    path = root.parent / "exported"
    with contextlib.suppress(UsageError):  # it is there
        with new_file(path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY)
            os.write(descriptor, EXPORTED)
            os.close(descriptor)
        promise(("hold", ("reads", path.name), (EXPORTED,)))


def _note_there(root: Path) -> None:
    make_folder(root)
    replace_file(root / "note", OLD)


def _replace(root: Path, promise: OnPromise) -> None:
    replace_file(root / "note", EXPORTED)
    promise(("hold", ("reads", f"{CACHE}/note"), (EXPORTED,)))


HELD: tuple[Promise, ...] = (("hold", ("entry", FRUIT.name), None),)
BOTH: tuple[Promise, ...] = (*HELD, ("hold", ("entry", RELABELLED.name), None))
SCENES = (
    Scene("first extraction", lambda root: None, lambda root, p: extract(root, FRUIT, p)),
    Scene(
        "relabelled",
        _fruit_there,
        lambda root, p: extract(root, RELABELLED, p),
        HELD,
        (FRUIT, RELABELLED),
    ),
    Scene("restart", _fruit_there, lambda root, p: extract(root, FRUIT, p, restart=True), HELD),
    Scene("repair", _damaged, _repair, (("hold", ("damaged", FRUIT.name), None),)),
    Scene(
        "put back",
        _two_damaged,
        _put_back,
        (
            ("hold", ("damaged", FRUIT.name), None),
            ("hold", ("entry", RELABELLED.name), None),
            ("hold", ("reads", f"{CACHE}/{FRUIT.name}/shards/00001.h5"), (DAMAGED, None, FRUIT.bytes[1])),
            ("hold", ("reads", f"{CACHE}/{FRUIT.name}/skipped.csv"), (None, FRUIT.ledger)),
        ),
        (FRUIT, RELABELLED),
    ),
    Scene("prune", _both_there, _prune, BOTH, (RELABELLED,)),
    Scene("import", _exported, _import),
    Scene(
        "export",
        lambda root: None,
        _export,
        (("hold", ("reads", "exported"), (None, EXPORTED)),),
        (),
    ),
    Scene(
        "file replaced",
        _note_there,
        _replace,
        (("hold", ("reads", f"{CACHE}/note"), (OLD, EXPORTED)),),
        (),
    ),
    Scene("no hard links", lambda root: None, _copy),
)
