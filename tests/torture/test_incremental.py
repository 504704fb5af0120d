"""Sixty thousand images: what is added costs itself, and what only moves costs nothing."""

import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE
from harness import in_child, trials
from PIL import Image

import pipeline
from pipeline.store.entry import open_entry

COUNT = trials(200, 60_000)
CLASSES = 10
NEW = max(1, COUNT // 600)
"""Images that are added: 100 to 60,000."""
LIMIT = 3600.0


def make_folder(root: Path, count: int) -> Path:
    """Write `count` small images over CLASSES classes, no two the same."""
    for number in range(count):
        folder = root / f"class-{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number)).save(folder / f"{number:06d}.bmp")
    return root


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)


def add(photos: Path) -> None:
    """At the end of a class, as photographs of later days are."""
    for number in range(COUNT, COUNT + NEW):
        Image.fromarray(pixels(number)).save(photos / "class-9" / f"{number:06d}.bmp")


def remove(photos: Path) -> None:
    for path in chosen(photos):
        path.unlink()


def rename(photos: Path) -> None:
    """Into another order."""
    for path in chosen(photos):
        path.rename(path.with_name(f"a-{path.name}"))


def relabel(photos: Path) -> None:
    for path in chosen(photos):
        path.rename(photos / "class-0" / path.name)


def split(photos: Path) -> None:
    """Classes into split folders, some images of each into the test split."""
    for path in chosen(photos):
        goal = photos / "test" / path.parent.name / path.name
        goal.parent.mkdir(parents=True, exist_ok=True)
        path.rename(goal)
    (photos / "train").mkdir()
    for folder in photos.glob("class-*"):
        folder.rename(photos / "train" / folder.name)


def duplicate(photos: Path) -> None:
    for path in chosen(photos):
        shutil.copy(path, path.with_name(f"z-{path.name}"))


def chosen(photos: Path) -> list[Path]:
    return random.Random(0).sample(sorted(photos.rglob("*.bmp")), NEW)


CHANGES = {"nothing": (lambda _: None, 0), "added": (add, NEW), "duplicated": (duplicate, 0), "renamed": (rename, 0)}
CHANGES |= {"relabelled": (relabel, 0), "removed": (remove, 0), "moved to other splits": (split, 0)}


def extract(photos: Path, cache: Path, **options) -> pipeline.ExtractResult:
    return pipeline.extract(str(photos), cache_dir=cache, **SPACE, **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with the images, the cache of them, and when that was made: files so old are remembered."""
    root = tmp_path_factory.mktemp("incremental")
    make_folder(root / "photos", COUNT)
    outcome = in_child(lambda: extract(root / "photos", root / "cache").to_json(), LIMIT)
    assert outcome.code == 0, outcome.error
    assert (outcome.result["computed"], outcome.result["rows"]) == (COUNT, COUNT)
    return root


def test_changes_one_after_the_other_compute_only_what_is_new(base, tally):
    def work() -> dict[str, list[float]]:
        photos, cache = base / "photos", base / "cache"
        found = {}
        for name, (change, new) in CHANGES.items():
            change(photos)
            started = time.perf_counter()
            made = extract(photos, cache)
            spent = time.perf_counter() - started
            assert made.computed == new, f"{name}: computed {made.computed:,}"
            assert made.rows == sum(1 for _ in photos.rglob("*.bmp"))
            entry = open_entry(Path(made.path))
            links = [os.stat(entry.shard_path(number)).st_nlink for number in range(len(entry.shards))]
            found[name] = [spent, sum(count > 1 for count in links), len(links)]
        return found

    outcome = in_child(work, LIMIT)
    assert outcome.code == 0, outcome.error
    for name, (spent, shared, shards) in outcome.result.items():
        said = f"{CHANGES[name][1]:,} computed in {spent:.1f} s, {shared} of {shards} shards shared with another entry"
        tally(f"images, {NEW:,} {name}" if name != "nothing" else "images as they were", COUNT, said)
