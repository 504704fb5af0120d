"""A small finished entry with its images, cheap to copy; and what must hold of an entry made after a change."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from conftest import SPACE, make_image

import pipeline
from pipeline.backbones.backbone import Backbone, load_backbone
from pipeline.device import resolve_device
from pipeline.engines.engine import Engine
from pipeline.engines.registry import make_engine
from pipeline.launch.result import ExtractResult
from pipeline.loading.decode import decode
from pipeline.sources.folder import FolderSource
from pipeline.store.entry import Entry, open_entry
from pipeline.store.statindex import StatIndex, stat_rows
from pipeline.threads import cpu_threads

OPTIONS: dict[str, Any] = {
    **SPACE, "batch_size": 4, "shard_rows": 4, "workers": 1, "test_fraction": 0.5,
    "store_dtype": "float32", "on_bad_image": "skip"
}  # fmt: skip
CLASSES = ("apple", "beet", "corn")
IMAGES, SHARDS = 12, 3


def make_images(root: Path) -> Path:
    """Write 4 images a class as BMP files, which all have one size and no checksums."""
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(4):
            make_image(1000 * number + index).save(root / name / f"{index:02d}.bmp")
    return root


@dataclass
class World:
    """Images and a cache with an entry of them, of which `base` is the id."""

    photos: Path
    cache: Path
    base: str = ""
    plans: list[Any] = field(default_factory=list)
    """What each extraction said it was about to do."""

    def extract(self, **changes: Any) -> ExtractResult:
        """Extract as the entry was made, or with other options."""
        options = {"cache_dir": self.cache, "on_plan": self.plans.append, **OPTIONS, **changes}
        return pipeline.extract(str(options.pop("source", self.photos)), **options)

    @property
    def entry(self) -> Entry:
        """The entry that was there before."""
        return open_entry(self.cache / self.base)

    def image(self, name: str = "beet/01.bmp") -> Path:
        """Return the path of an image, one in the middle if none is named."""
        return self.photos / name

    def copy(self, folder: Path) -> "World":
        """Return a copy whose stat index knows the copied images, as if they had been extracted from there."""
        photos = shutil.copytree(self.photos, folder / "photos")
        cache = shutil.copytree(
            self.cache, folder / "cache", copy_function=os.link, ignore=shutil.ignore_patterns("index")
        )
        world = World(photos, cache, self.base)
        world.remember()
        return world

    def remember(self, digest_of: Callable[[Path], bytes] | None = None) -> None:
        """Write a stat index of the images as they are now, with their digests or others."""
        digest_of = digest_of or (lambda path: hashlib.sha256(path.read_bytes()).digest())
        listing = FolderSource(self.photos).listing()
        digests = np.array([list(digest_of(self.photos / name)) for name in listing.ids], np.uint8)
        assert listing.stats is not None
        rows = stat_rows(listing.stats[:], digests, np.full(len(listing), time.time_ns()))
        assert len(rows) == len(listing)
        StatIndex(rows).save(self.cache, str(self.photos.resolve()))


def edit(path: Path, byte: int = -1) -> None:
    """Change one pixel of an image in place; its size stays."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x40
    with path.open("r+b") as file:
        file.write(data)


def as_before(path: Path, facts: os.stat_result) -> None:
    """Give a file the modification time it had."""
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def replace_copy(path: Path, data: bytes) -> None:
    """Put bytes in the place of a file of the cache, whose other links stay as they are."""
    path.unlink()
    path.write_bytes(data)


def check_rows(result: ExtractResult, photos: Path, options: dict[str, Any]) -> None:
    """Hold every row of an entry against its image as it is now, computed here without any cache."""
    found = pipeline.open_cache(result.path)
    files = {name: (photos / name).read_bytes() for name in found.ids}
    assert [hashlib.sha256(files[name]).digest() for name in found.ids] == [row.tobytes() for row in found.digests]
    known = {**OPTIONS, **options}
    space = tuple(known.get(name) for name in ("backbone", "weights", "image_size", "mean", "std"))
    wanted = np.concatenate([features(space, files[name]) for name in found.ids])
    if (result.recipe["batch_size"], result.recipe["threads"]) == (OPTIONS["batch_size"], 1):
        assert np.array_equal(found.x.numpy(), wanted.astype(known["store_dtype"]))
    else:  # rows of another recipe may differ in their last bits
        assert np.allclose(found.x.numpy(), wanted, rtol=1e-4, atol=1e-5)


@cache
def engine(space: tuple[Any, ...]) -> tuple[Backbone, Engine]:
    """Return the network of a backbone, weights, image size, mean and std."""
    backbone, weights, size, mean, std = space
    network = load_backbone(backbone, weights=weights, image_size=size, mean=mean, std=std)
    return network, make_engine("eager", network.network, network.preprocess, resolve_device("cpu"))


@cache
def features(space: tuple[Any, ...], data: bytes) -> np.ndarray:
    """Return the row (1, d) of an image, computed in a batch that holds nothing else."""
    network, computing = engine(space)
    size = network.preprocess.crop
    pixels = np.zeros((OPTIONS["batch_size"], size, size, 3), np.uint8)
    pixels[0] = network.preprocess.pixels(decode(data))
    with cpu_threads(1):
        return computing.features(pixels)[:1]


def shared_shards(new: Entry, old: list[tuple[str, Path]]) -> tuple[int, int]:
    """Return how many shards of an entry are the very files of another, and how many equal them without being so."""
    files = dict(old)
    equal = [number for number, shard in enumerate(new.shards) if shard["sha256"] in files]
    same = [number for number in equal if new.shard_path(number).samefile(files[new.shards[number]["sha256"]])]
    return len(same), len(equal) - len(same)


def shard_files(entry: Entry, folder: Path) -> list[tuple[str, Path]]:
    """Link an entry's shards into a folder, where they stay; return (SHA-256, path) of each."""
    folder.mkdir()
    kept = []
    for number, shard in enumerate(entry.shards):
        os.link(entry.shard_path(number), folder / f"{number}.h5")
        kept.append((shard["sha256"], folder / f"{number}.h5"))
    return kept
