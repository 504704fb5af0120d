"""Rows computed once more are the rows in the cache, and whatever is other is told by its name."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE, make_image, make_photos
from entries import at, tamper

import pipeline
from pipeline.errors import DataError, PipelineError
from pipeline.extraction.recompute import Recomputed, check_rows, recompute_rows, remake_shard
from pipeline.origin import open_images, rebuild_backbone
from pipeline.store.commit import write_json
from pipeline.store.entry import Entry, open_entry
from pipeline.store.shard import shard_bytes

JOB = {**SPACE, "batch_size": 4, "shard_rows": 8, "workers": 1, "on_bad_image": "skip"}
BAD = 14
"""The row of an image that cannot be used."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished entry of 21 images in three shards, one image unusable, and its backbone."""
    root = tmp_path_factory.mktemp("recompute")
    photos = make_photos(root / "photos", per_class=7)
    (photos / "corn" / "00.jpg").write_bytes(b"")
    entry = open_entry(Path(pipeline.extract(str(photos), cache_dir=root / "cache", **JOB).path))
    return entry, rebuild_backbone(entry.manifest["space"], "none")


@pytest.fixture
def copy(made, tmp_path) -> Entry:
    """A copy of the entry that a test may change."""
    return open_entry(Path(shutil.copytree(made[0].path, tmp_path / "cache" / made[0].id)))


def features_of(entry: Entry) -> np.ndarray:
    return np.concatenate([rows.features for _, rows in entry.read_shards()])


def check(entry: Entry, backbone, count: int, source: Path | None = None) -> Recomputed:
    return check_rows(entry, open_images(entry, source and str(source)), backbone, count, workers=1)


def test_any_rows_in_any_order_come_out_as_the_same_bits(made):
    entry, backbone = made
    rows, said = np.array([20, 3, 3, 0, 13, 15, 8, 7, 1]), []
    found = recompute_rows(
        entry, entry.read_samples(), rows, open_images(entry), backbone, workers=1, on_progress=said.append
    )
    assert found.tobytes() == features_of(entry)[rows].tobytes()
    assert [(progress.done, progress.total) for progress in said] == [(4, 9), (8, 9), (9, 9)]


@pytest.mark.parametrize("count", [1, 5, 20, 1000])
def test_a_good_entry_agrees_in_every_row_asked_for(made, count):
    entry, backbone = made
    found = check(entry, backbone, count)
    assert (found.rows, found.equal, found.max_abs_difference) == (min(count, 20), min(count, 20), 0.0)
    assert found.holds
    assert json.loads(json.dumps(asdict(found)))["store_dtype"] == "float32"


def test_the_scale_is_the_largest_feature_compared(made):
    entry, backbone = made
    assert check(entry, backbone, 1000).scale == np.abs(features_of(entry)).max()


@pytest.mark.parametrize(
    ("to", "holds"),
    [
        (lambda row: row * np.float32(1 + 1e-6), True),
        (lambda row: row * np.float32(1.01), False),
        (lambda row: np.roll(row, 1), False),
        (lambda row: row * 0, False),
        (lambda row: -row, False),
        (lambda row: row + np.float32(1e9), False),
        (lambda row: np.full_like(row, np.nan), False),
        (lambda row: np.full_like(row, np.inf), False),
    ],
    ids=["rounding", "a little", "rolled", "zeros", "sign", "enormous", "nan", "infinity"],
)
def test_other_features_with_a_manifest_to_match_are_told_by_their_sample(made, copy, to, holds):
    entry, backbone = tamper(copy, at(9, to)), made[1]
    found = check(entry, backbone, 1000)
    assert (found.rows, found.equal, found.holds) == (20, 19, holds)
    assert found.worst == "beet/02.jpg"


def test_features_of_two_images_exchanged_are_told(made, copy):
    rows = features_of(copy)
    entry = tamper(copy, at(2, lambda _: rows[17]))
    entry = tamper(entry, at(17, lambda _: rows[2]))
    found = check(entry, made[1], 1000)
    assert (found.equal, found.holds, found.worst) == (18, False, "apple/02.jpg")


@pytest.mark.parametrize("row", [0, 20], ids=["first", "last"])
def test_few_rows_are_spread_over_the_whole_entry(made, copy, row):
    entry = tamper(copy, at(row, lambda features: -features))
    assert not check(entry, made[1], 2).holds


def test_rounding_is_told_by_the_stored_dtype_and_the_largest_feature():
    found = Recomputed(8, 0, 0.9e-4, 1.0, "float32", "a")
    assert found.holds
    assert not replace(found, max_abs_difference=1.1e-4).holds
    assert replace(found, max_abs_difference=1.1e-4, scale=2.0).holds
    assert replace(found, max_abs_difference=2.0**-10, store_dtype="float16").holds
    assert not replace(found, max_abs_difference=1.1 * 2.0**-10, store_dtype="float16").holds
    assert replace(found, max_abs_difference=0.0, scale=0.0).holds
    assert not replace(found, max_abs_difference=float("nan")).holds


def test_one_bit_of_a_tiny_float16_feature_is_rounding():
    assert Recomputed(8, 7, 2.0**-24, 2.0**-15, "float16", "a").holds


def test_images_are_found_where_they_are_now(made, tmp_path):
    entry, backbone = made
    moved = shutil.copytree(Path(entry.manifest["source"]["spec"]), tmp_path / "moved")
    assert check(entry, backbone, 8, moved).equal == 8
    with pytest.raises(DataError, match="no folder") as caught:
        check(entry, backbone, 8, tmp_path / "gone")
    assert "--source" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: make_image(4321).save(path), "has changed"),
        (Path.unlink, "cannot be used any more: it cannot be opened"),
        (lambda path: path.write_bytes(b""), "cannot be used any more: it is empty"),
    ],
    ids=["another", "gone", "empty"],
)
def test_an_image_that_changed_is_named(made, tmp_path, change, said):
    entry, backbone = made
    moved = shutil.copytree(Path(entry.manifest["source"]["spec"]), tmp_path / "moved")
    change(moved / "beet" / "03.jpg")
    with pytest.raises(DataError, match=rf"beet/03\.jpg {said}"):
        check(entry, backbone, 1000, moved)


def test_weights_that_changed_are_not_used(made):
    with pytest.raises(DataError, match="not those the features were made with"):
        rebuild_backbone({**made[0].manifest["space"], "weights": "0" * 64}, "none")


def test_a_device_that_is_not_here_is_said(made, copy):
    body = {name: value for name, value in copy.manifest.items() if name != "sha256"}
    body["recipe"] = {**body["recipe"], "device": "cuda:77"}
    write_json(copy.path / "entry.json", body, replace=True)
    with pytest.raises(PipelineError, match="cuda"):
        check(open_entry(copy.path), made[1], 4)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_shard_made_again_has_the_very_same_bytes(made, number):
    entry, backbone = made
    rows = remake_shard(entry, number, open_images(entry), backbone, workers=1)
    assert shard_bytes(entry.space, rows) == entry.shard_path(number).read_bytes()
    assert rows.status.tolist() == [int(number * 8 + row == BAD) for row in range(len(rows.status))]


def test_rows_of_arrays_are_computed_again_too(tmp_path):
    made = pipeline.extract("digits", cache_dir=tmp_path, limit=20, test_fraction=0, **JOB)
    entry = open_entry(Path(made.path))
    backbone = rebuild_backbone(entry.manifest["space"], "none")
    assert check(entry, backbone, 7).equal == 7
    rows = remake_shard(entry, 2, open_images(entry), backbone, workers=1)
    assert shard_bytes(entry.space, rows) == entry.shard_path(2).read_bytes()
