"""Names by content: each thing that matters changes them, and nothing else does."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from pipeline.errors import CacheError
from pipeline.store.key import (
    MAX_SHARD_ROWS,
    MIN_SHARD_ROWS,
    FeatureSpace,
    Recipe,
    entry_id,
    plan_id,
    shard_rows_for,
)
from pipeline.textcolumn import bytes_text, text_bytes

SPACE = FeatureSpace(
    "torchvision/tiny", "0" * 64, "input:fc", "none", {"mean": [0.5], "crop": 32}, "float32", "float32", (4,)
)
OTHER = {
    "architecture": "torchvision/other",
    "weights": "1" * 64,
    "layer": "input:head",
    "pool": "mean",
    "preprocess": {"mean": [0.25], "crop": 32},
    "dtype": "bfloat16",
    "store_dtype": "float16",
    "row_shape": (2, 2),
}
SOURCE = {"kind": "folder", "path": "photos"}


def content() -> dict:
    rng = np.random.default_rng(0)
    return {
        "space": SPACE,
        "classes": ("apple", "beet"),
        "ids": ["a.jpg", "b.jpg", "c.jpg"],
        "digests": rng.integers(0, 256, (3, 32), np.uint8),
        "labels": np.array([0, 1, 1]),
        "splits": np.array([0, 0, 2], np.int8),
    }


def changed_digest() -> np.ndarray:
    digests = content()["digests"].copy()
    digests[2, 31] ^= 1
    return digests


def test_the_cases_below_name_every_field_of_a_space():
    assert set(OTHER) == {field.name for field in fields(FeatureSpace)}


@pytest.mark.parametrize("name", list(OTHER))
def test_each_field_of_a_space_changes_its_name(name):
    other = replace(SPACE, **{name: OTHER[name]})
    assert other.sha256 != SPACE.sha256
    assert entry_id(**{**content(), "space": other}) != entry_id(**content())
    assert plan_id(other, SOURCE, ["a"]) != plan_id(SPACE, SOURCE, ["a"])


def test_equal_spaces_have_one_name_also_after_a_trip_through_json():
    back = FeatureSpace.from_json(json.loads(json.dumps(SPACE.to_json())))
    assert back == SPACE
    assert back.sha256 == SPACE.sha256 == replace(SPACE, preprocess={"crop": 32, "mean": [0.5]}).sha256


def test_the_name_of_a_space_never_changes():
    # All caches made so far depend on it.
    assert SPACE.sha256 == "0f7649def90207a54ef930b7a79899f837a76d6f395309b475876673d420d230"


@pytest.mark.parametrize("change", [{"weights": None}, {"newer": 1}], ids=["missing", "unknown"])
def test_a_space_with_other_fields_is_refused(change):
    body = {key: value for key, value in {**SPACE.to_json(), **change}.items() if value is not None}
    with pytest.raises(CacheError, match="feature space with fields") as caught:
        FeatureSpace.from_json(body)
    assert "another version" in caught.value.hint


def test_a_space_with_an_unhashable_field_has_no_name():
    space = replace(SPACE, preprocess={"mean": np.float32(0.5)})
    with pytest.raises(TypeError, match="cannot take the digest"):
        _ = space.sha256


@pytest.mark.parametrize(
    ("shape", "dtype", "size"), [((4,), "float32", 16), ((4,), "float16", 8), ((2, 3), "float32", 24)]
)
def test_row_bytes(shape, dtype, size):
    assert replace(SPACE, row_shape=shape, store_dtype=dtype).row_bytes == size


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("apple", "beets")},
        {"classes": ("beet", "apple")},
        {"classes": ("apple", "beet", "corn")},
        {"ids": ["a.jpg", "b.jpg", "d.jpg"]},
        {"ids": ["b.jpg", "a.jpg", "c.jpg"]},
        {"digests": changed_digest()},
        {"digests": content()["digests"][[1, 0, 2]]},
        {"labels": np.array([0, 1, 0])},
        {"labels": np.array([1, 1, 0])},
        {"splits": np.array([0, 0, 1], np.int8)},
        {"splits": np.array([0, 2, 0], np.int8)},
        {"groups": ["a", "a", "b"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_part_of_the_content_changes_the_entry_id(change):
    assert entry_id(**{**content(), **change}) != entry_id(**content())


def test_groups_are_told_apart_and_an_entry_without_them_keeps_its_name():
    assert entry_id(**content(), groups=None) == entry_id(**content())
    several = (["a", "a", "b"], ["a", "b", "b"], ["ab", "", "b"], ["", "", ""])
    assert len({entry_id(**content(), groups=groups) for groups in several}) == len(several)


def test_how_the_content_is_held_does_not_change_the_entry_id():
    body = content()
    held = {
        **body,
        "classes": list(body["classes"]),
        "ids": tuple(body["ids"]),
        "digests": np.asfortranarray(body["digests"]),
        "labels": body["labels"].astype(np.int32),
        "splits": np.stack([body["splits"]] * 2, axis=1)[:, 0].astype(np.int64),
    }
    assert entry_id(**held) == entry_id(**body) == entry_id(**content())


@pytest.mark.parametrize(
    ("one", "other"), [([""], []), (["ab", "c"], ["a", "bc"]), (["a", "b"], ["a b"]), (["", "a"], ["a", ""])]
)
def test_ids_that_join_alike_are_told_apart(one, other):
    def named(ids):
        n = len(ids)
        return entry_id(SPACE, [], ids, np.zeros((n, 32), np.uint8), np.zeros(n), np.zeros(n))

    assert named(one) != named(other)
    assert plan_id(SPACE, SOURCE, one) != plan_id(SPACE, SOURCE, other)


def test_class_names_that_join_alike_are_told_apart():
    one, other = ({**content(), "classes": names} for names in (["a,b", "c"], ["a", "b,c"]))
    assert entry_id(**one) != entry_id(**other)


def test_a_plan_is_named_by_space_source_and_ids_in_order():
    name = plan_id(SPACE, SOURCE, ["a", "b"])
    assert name == plan_id(SPACE, dict(reversed(SOURCE.items())), ("a", "b"))
    assert name != plan_id(SPACE, {**SOURCE, "path": "other"}, ["a", "b"])
    assert name != plan_id(SPACE, SOURCE, ["b", "a"])
    assert name != plan_id(SPACE, SOURCE, ["a"])


@pytest.mark.parametrize(
    "name", [b"plain.jpg", "grüße/日本.png".encode(), b"\xff\xfe latin \xe9.jpg", b"", b"new\nline"]
)
def test_sample_ids_come_back_as_the_bytes_they_were(name):
    assert text_bytes(bytes_text(name)) == name


def test_a_recipe_goes_through_json():
    recipe = Recipe("reference", "torch 2", "cpu", 2, 4, 8)
    assert Recipe(**json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize("batch", [1, 3, 64, 100, 300, 2048, 5000])
@pytest.mark.parametrize("row_bytes", [4, 2048, 8192, 16384, 50_000, 1 << 20, 1 << 28])
def test_rows_a_shard_are_a_multiple_of_the_batch_within_bounds(row_bytes, batch):
    rows = shard_rows_for(row_bytes, batch)
    assert rows % batch == 0
    assert rows > 0
    if batch <= MIN_SHARD_ROWS:
        assert MIN_SHARD_ROWS - batch < rows <= MAX_SHARD_ROWS
    if row_bytes * MIN_SHARD_ROWS <= 32 << 20 and batch <= MIN_SHARD_ROWS:
        assert rows * row_bytes <= 32 << 20


def test_rows_a_shard_at_known_sizes():
    assert shard_rows_for(512 * 4, 64) == 2048
    assert shard_rows_for(32768, 64) == 1024
    assert shard_rows_for(1 << 20, 64) == 256
