"""Finished entries made without images or a network, in milliseconds: for tests of what is done with entries."""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from conftest import make_manifest

from pipeline.backbones.preprocess import Preprocess
from pipeline.digest import sha256_bytes
from pipeline.store.catalog import list_entries
from pipeline.store.commit import publish_link, temporary_folder, write_json, write_new
from pipeline.store.entry import Entry, open_entry
from pipeline.store.key import FeatureSpace, Recipe, entry_id
from pipeline.store.publish import publish_entry
from pipeline.store.samples import SampleTable, skipped_csv
from pipeline.store.shard import ShardRows, shard_bytes

PREPROCESS = Preprocess(32, 32, "bilinear", (0.5,) * 3, (0.5,) * 3).to_json()
SPACE = FeatureSpace("torchvision/tiny", "0" * 64, "input:fc", "none", PREPROCESS, "float32", "float32", (4,))
RECIPE = Recipe("reference", "torch 2", "cpu", 2, 4, 8)
CLASSES = ("apple", "beet", "corn")
ROWS = 20


def make_rows(seeds: Sequence[int], bad: Collection[int] = (), space: FeatureSpace = SPACE) -> ShardRows:
    """One row an image seed: equal seeds are equal images with equal features. `bad` are places, not seeds.

    Views of an image have other features.
    """
    features = np.zeros((len(seeds), *space.row_shape), space.store_dtype)
    digests = np.zeros((len(seeds), 32), np.uint8)
    status = np.zeros(len(seeds), np.uint8)
    for place, seed in enumerate(seeds):
        digests[place] = np.frombuffer(hashlib.sha256(str(seed).encode()).digest(), np.uint8)
        if place in bad:
            status[place] = 1
        else:
            features[place] = np.random.default_rng(seed + 10**6 * space.view[1]).normal(size=space.row_shape)
    return ShardRows(features, digests, status)


def make_entry(
    root: Path,
    *,
    seeds: Sequence[int] = tuple(range(ROWS)),
    ids: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    splits: Sequence[int] | None = None,
    bad: Collection[int] = (),
    classes: Sequence[str] = CLASSES,
    space: FeatureSpace = SPACE,
    recipe: Recipe = RECIPE,
    **manifest,
) -> Entry:
    """Publish an entry of one row a seed; shards that lie under `root` already are shared, as `extract` does it."""
    n = len(seeds)
    rows = make_rows(seeds, bad, space)
    ids = [f"{seed:04d}.jpg" for seed in seeds] if ids is None else list(ids)
    labels = np.arange(n) % len(classes) if labels is None else np.array(labels)
    splits = (np.arange(n) % 5 == 4) * 2 if splits is None else np.array(splits)
    table = SampleTable(ids, rows.digests, labels.astype(np.int64), splits.astype(np.int8), rows.status)
    there = {
        shard["sha256"]: entry.shard_path(at) for entry in list_entries(root) for at, shard in enumerate(entry.shards)
    }
    # What is made for a test need not survive a power cut.
    with mock.patch.object(os, "fsync", return_value=None), temporary_folder(root) as folder:
        paths, shards = [], []
        for first in range(0, n, recipe.shard_rows):
            span = slice(first, first + recipe.shard_rows)
            part = ShardRows(rows.features[span], rows.digests[span], rows.status[span])
            data = shard_bytes(space, part)
            sha256 = sha256_bytes(data)
            paths.append(folder / f"{first}.h5")
            if sha256 in there:
                publish_link(there[sha256], paths[-1])
            else:
                write_new(paths[-1], data)
            facts = {"sha256": sha256, "bytes": len(data), "rows": len(part.status)}
            shards.append({**facts, "recipe": recipe.to_json(), "facts": {}})
        body = make_manifest(
            id=entry_id(space, classes, ids, table.digests, table.labels, table.splits),
            space=space.to_json(),
            space_sha256=space.sha256,
            classes=list(classes),
            recipe=recipe.to_json(),
            shards=shards,
        )
        ledger = skipped_csv(ids, {row: "cannot be decoded" for row in bad})
        return publish_entry(root, {**body, **manifest}, paths, table, ledger)


def everything(folder: Path) -> dict[str, bytes]:
    """The content of all files below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def overwrite(path: Path, data: bytes) -> None:
    """Replace a file, which may be read-only and have other names, by a new one."""
    path.unlink()
    path.write_bytes(data)


def flip(path: Path, place: int = 1000) -> None:
    """Damage one bit of a file, which may be read-only and have other names."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    overwrite(path, bytes(data))


def tamper(entry: Entry, change: Callable[[np.ndarray, range], None]) -> Entry:
    """Write other features with a manifest to match: every byte verifies."""
    body = {name: value for name, value in entry.manifest.items() if name != "sha256"}
    first = 0
    for number, shard in enumerate(entry.shards):
        rows = entry.read_shard(number)
        features = rows.features.copy()
        change(features, range(first, first + len(features)))
        data = shard_bytes(entry.space, ShardRows(features, rows.digests, rows.status))
        entry.shard_path(number).unlink()
        entry.shard_path(number).write_bytes(data)
        body["shards"][number] = {**shard, "sha256": sha256_bytes(data), "bytes": len(data)}
        first += len(features)
    write_json(entry.path / "entry.json", body, replace=True)
    return open_entry(entry.path)


def at(row: int, to: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, range], None]:
    """Change one row of an entry."""

    def change(features: np.ndarray, rows: range) -> None:
        if row in rows:
            features[row - rows.start] = to(features[row - rows.start])

    return change
