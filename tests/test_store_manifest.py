"""Manifests: what is missing, of another type or makes no sense is refused by name, before anything is done with it."""

import json

import pytest
from conftest import make_manifest

from pipeline.errors import CacheError
from pipeline.store.manifest import FIELDS, FILE_FIELDS, SHARD_FIELDS, check_manifest

SHARD = {"sha256": "1" * 64, "bytes": 100, "rows": 5, "recipe": {}, "facts": {}}


def full(**changes) -> dict:
    """A manifest of two shards."""
    body = make_manifest(shards=[dict(SHARD), dict(SHARD)], rows=9, samples_listed=10, classes=["a", "b"])
    return {**json.loads(json.dumps(body)), "splits": {"train": 6, "test": 3}, **changes}


def test_a_manifest_that_makes_sense_is_fine():
    check_manifest(full(), "here")
    check_manifest(make_manifest(), "here")
    check_manifest(full(more={"of": "a newer version"}), "here")
    check_manifest(full(split_rule={"fraction": 0.1}), "here")


@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"split_rule"}))
def test_a_missing_field_is_named(name):
    body = full()
    del body[name]
    with pytest.raises(CacheError, match=f"here: field '{name}' is missing or not what it must be"):
        check_manifest(body, "here")


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [1.5, True, (), "text", 7, [], {}], ids=repr)
def test_a_field_of_another_type_is_named(name, value):
    if isinstance(value, FIELDS[name]) and not isinstance(value, bool):
        return
    with pytest.raises(CacheError, match=f"here: field '{name}'"):
        check_manifest(full(**{name: value}), "here")


@pytest.mark.parametrize("name", SHARD_FIELDS)
@pytest.mark.parametrize("value", [None, 1.5, True, "missing"], ids=repr)
def test_a_field_of_a_shard_is_named_with_its_number(name, value):
    if isinstance(value, SHARD_FIELDS[name]) and not isinstance(value, bool):
        return
    body = full()
    body["shards"][1][name] = value
    with pytest.raises(CacheError, match=f"here: shard 1: field '{name}'"):
        check_manifest(body, "here")


@pytest.mark.parametrize("shard", [None, [], "text", {}, 1])
def test_a_shard_that_is_none_is_refused(shard):
    with pytest.raises(CacheError, match="here: shard 0"):
        check_manifest(full(shards=[shard]), "here")


@pytest.mark.parametrize("part", ["samples", "skipped"])
@pytest.mark.parametrize("name", FILE_FIELDS)
def test_a_field_of_a_file_is_named(part, name):
    body = full()
    del body[part][name]
    with pytest.raises(CacheError, match=f"here: {part}: field '{name}'"):
        check_manifest(body, "here")


@pytest.mark.parametrize(("part", "name"), [("skipped", "count"), ("source", "spec"), ("backbone", "weights")])
def test_a_field_within_a_field_is_named(part, name):
    body = full()
    body[part][name] = None
    with pytest.raises(CacheError, match=f"here: {part}: field '{name}'"):
        check_manifest(body, "here")


@pytest.mark.parametrize(
    "path",
    [
        ("rows",),
        ("samples_listed",),
        ("samples", "bytes"),
        ("skipped", "count"),
        ("shards", 0, "rows"),
        ("shards", 1, "bytes"),
    ],
    ids=str,
)
def test_a_negative_number_is_refused(path):
    body = full()
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = -1
    with pytest.raises(CacheError, match=f"field '{path[-1]}' is negative"):
        check_manifest(body, "here")


@pytest.mark.parametrize("path", [("id",), ("space_sha256",), ("samples", "sha256"), ("shards", 1, "sha256")], ids=str)
@pytest.mark.parametrize(
    "text",
    ["", "0" * 63, "0" * 65, "0" * 64 + "\n", "A" * 64, "../" * 21 + "x", "/" + "0" * 63, "\0" * 64, "٠" * 64],
    ids=ascii,
)
def test_what_is_no_sha256_is_refused(path, text):
    body = full()
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = text
    with pytest.raises(CacheError, match="here has a SHA-256 that is none"):
        check_manifest(body, "here")


@pytest.mark.parametrize("names", [["a", 1], [None], [["a"]], ["a", "b", "a"], ["\ud800"]], ids=ascii)
def test_class_names_that_cannot_be_are_refused(names):
    with pytest.raises(CacheError, match="here has class names"):
        check_manifest(full(classes=names), "here")


@pytest.mark.parametrize(
    "names", [["a"], ["b", "a"], ["", " "], ["grüße", b"\xff".decode("utf-8", "surrogateescape")]], ids=ascii
)
def test_any_other_class_names_are_fine(names):
    check_manifest(full(classes=names), "here")


@pytest.mark.parametrize(
    "splits", [{"holdout": 1}, {"train": "1"}, {"train": -1}, {"train": True}, {"test": None}], ids=str
)
def test_splits_that_cannot_be_are_refused(splits):
    with pytest.raises(CacheError, match="here.* split"):
        check_manifest(full(splits=splits), "here")


@pytest.mark.parametrize(
    "changes", [{"samples_listed": 11}, {"samples_listed": 9}, {"rows": 11}, {"shards": []}], ids=str
)
def test_rows_that_do_not_add_up_are_refused(changes):
    with pytest.raises(CacheError, match="here: the shards have"):
        check_manifest(full(**changes), "here")


@pytest.mark.parametrize(
    "changes", [{"format": "pipeline-plan"}, {"format": None}, {"format_version": 2}, {"format_version": "1"}], ids=str
)
def test_another_format_is_said_before_anything_else(changes):
    with pytest.raises(CacheError, match="this package reads 'pipeline-entry' version 1") as caught:
        check_manifest({**changes}, "here")
    assert "Extract again" in caught.value.hint
