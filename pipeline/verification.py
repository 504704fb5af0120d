"""The verb `verify`: every byte of an entry against its manifest; on request made whole again, or rows recomputed."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError, PipelineError
from pipeline.extraction.recompute import Recomputed, check_rows, remake_shard
from pipeline.origin import open_images, rebuild_backbone
from pipeline.progress import OnProgress, ignore
from pipeline.store.catalog import list_entries
from pipeline.store.entry import MANIFEST, Entry, open_entry
from pipeline.store.shard import shard_bytes
from pipeline.store.verified import read_verified
from pipeline.store.verify import Damage, find_damage, put_back


@dataclass(frozen=True)
class Images:
    """Where an entry's images are now, as for `extract`."""

    source: str | None = None
    data_root: Path | None = None
    follow_symlinks: bool = False
    workers: int | None = None


@dataclass
class Verified:
    """What became of one entry."""

    cache: str
    path: str
    shards: int = 0
    rows: int = 0
    damaged: list[Damage] = field(default_factory=list)
    """What is still damaged."""
    repaired: dict[str, str] = field(default_factory=dict)
    """How each damaged file was made whole, by path."""
    recomputed: Recomputed | None = None
    hint: str = ""
    """What to do about what is left."""

    @property
    def holds(self) -> bool:
        """Whether nothing is damaged, and recomputed rows agree."""
        return not self.damaged and (self.recomputed is None or self.recomputed.holds)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        recomputed = None if self.recomputed is None else {**self.recomputed.__dict__, "holds": self.recomputed.holds}
        return {
            "cache": self.cache,
            "path": self.path,
            "shards": self.shards,
            "rows": self.rows,
            "damaged": [{"path": str(item.path), "reason": item.reason} for item in self.damaged],
            "repaired": self.repaired,
            "recomputed": recomputed,
        }


def verify(
    folder: Path,
    *,
    repair: bool = False,
    recompute: int = 0,
    images: Images | None = None,
    on_progress: OnProgress = ignore,
) -> Verified:
    """Check the entry in `folder`.

    Args:
        folder: the entry's folder; the one above it is the cache root.
        repair: make damaged shards whole: from a twin elsewhere in the cache, else from the images. A repaired
            shard has the very bytes that were committed, or it is not put there. What is damaged is set aside.
        recompute: so many rows, spread over the entry, are computed again from their images and compared.
        images: where these are.
        on_progress: called after every batch computed.

    Raises:
        DataError: if rows are to be computed and an image or the weights are gone or have changed.
    """
    images = images or Images()
    try:
        entry = open_entry(folder)
    except CacheError as error:
        damage = Damage(folder / MANIFEST, error.message)
        again = "Run the `pipeline extract` that made it again: it sets the folder aside and uses what it can."
        return Verified(folder.name, str(folder), damaged=[damage], hint=again)
    result = Verified(entry.id, str(entry.path), len(entry.shards), entry.rows)
    damaged = find_damage(entry)
    if damaged and repair:
        for item in damaged:
            _repair(entry, item, images, result, on_progress)
        damaged = find_damage(entry)
    result.damaged = damaged
    if damaged and not result.hint:
        result.hint = "`pipeline cache verify --repair` makes damaged shards whole where that can be done."
    if recompute and not damaged:
        backbone = rebuild_backbone(entry.manifest["space"], entry.manifest["backbone"]["weights"])
        opened = open_images(entry, images.source, data_root=images.data_root, follow_symlinks=images.follow_symlinks)
        result.recomputed = check_rows(
            entry, opened, backbone, recompute, workers=images.workers, on_progress=on_progress
        )
    return result


def _repair(entry: Entry, item: Damage, images: Images, result: Verified, on_progress: OnProgress) -> None:
    """Put a damaged file's committed bytes back, and note how or why not."""
    numbers = [number for number in range(len(entry.shards)) if entry.shard_path(number) == item.path]
    again = f"Run the command that made it again: {entry.manifest['command']}"
    if not numbers:
        result.hint = f"{item.path.name} is rebuilt by `extract`, without computing anything. {again}"
        return
    number = numbers[0]
    twin = _twin(entry, number)
    if twin is not None:
        put_back(entry.path.parent, item.path, twin)
        result.repaired[str(item.path)] = f"linked from {twin}"
        return
    try:
        backbone = rebuild_backbone(entry.manifest["space"], entry.manifest["backbone"]["weights"])
        opened = open_images(entry, images.source, data_root=images.data_root, follow_symlinks=images.follow_symlinks)
        rows = remake_shard(entry, number, opened, backbone, workers=images.workers, on_progress=on_progress)
    except PipelineError as error:
        result.hint = f"{error.message}. {error.hint}"
        return
    data = shard_bytes(entry.space, rows)
    if sha256_bytes(data) != entry.shards[number]["sha256"]:
        result.hint = f"{item.path.name} made again has other bytes, as other versions or hardware give. {again}"
        return
    put_back(entry.path.parent, item.path, data)
    result.repaired[str(item.path)] = f"computed again from {len(rows.status)} images"


def _twin(entry: Entry, number: int) -> Path | None:
    """Return another file in the cache that holds the bytes of a damaged shard."""
    wanted = entry.shards[number]
    for other in list_entries(entry.path.parent):
        for place, shard in enumerate(other.shards):
            path = other.shard_path(place)
            if shard["sha256"] == wanted["sha256"] and path != entry.shard_path(number):
                with contextlib.suppress(CacheError):
                    read_verified(path, wanted["sha256"], wanted["bytes"])
                    return path
    return None
