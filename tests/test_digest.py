"""One spelling for each value, no digest for what is no plain value, seals that cover every field."""

import hashlib
import json

import pytest

from pipeline.digest import CHUNK_BYTES, canonical_json, is_sealed, seal, sha256_bytes, sha256_file, sha256_json


def test_canonical_json_has_one_spelling_whatever_the_order_of_keys():
    assert canonical_json({"b": [1, 2.5, None], "a": {"y": True, "x": "é"}}) == (
        b'{"a":{"x":"\\u00e9","y":true},"b":[1,2.5,null]}'
    )
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    assert canonical_json((1, 2)) == canonical_json([1, 2])


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0, False), ("1", 1), (None, "null"), ([1, [2]], [[1], 2]), ("\u00e9", "e\u0301")],
)
def test_values_that_differ_have_digests_that_differ(one, other):
    assert sha256_json({"field": one}) != sha256_json({"field": other})


@pytest.mark.parametrize(
    "value",
    [object(), b"bytes", {1, 2}, float("nan"), float("inf"), -float("inf"), {1: "key"}, {"deep": [{"x": object()}]}],
    ids=["object", "bytes", "set", "nan", "inf", "-inf", "number as key", "deep"],
)
def test_what_is_no_plain_value_has_no_digest(value):
    with pytest.raises(TypeError, match="cannot take the digest"):
        canonical_json({"field": value})


def test_the_refusal_names_the_place_of_the_bad_field():
    with pytest.raises(TypeError, match=r"value\.outer\[1\]\.inner"):
        canonical_json({"outer": [0, {"inner": float("nan")}]})


def test_file_names_that_are_not_utf8_have_a_digest():
    assert sha256_json(b"\xff.jpg".decode("utf-8", "surrogateescape")) != sha256_json("?.jpg")


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_digest_of_a_file_is_the_digest_of_its_bytes(tmp_path, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_digest_of_bytes_is_the_same_for_each_kind_of_buffer():
    assert sha256_bytes(b"abc") == sha256_bytes(bytearray(b"abc")) == sha256_bytes(memoryview(b"abc"))


def test_seal_holds_through_json_and_breaks_with_any_change():
    sealed = seal({"a": 1, "b": [0.1, "x"], "c": {"d": None}})
    assert is_sealed(json.loads(json.dumps(sealed)))
    for change in ({"a": 2}, {"b": [0.1, "y"]}, {"c": {}}, {"new": 0}, {"sha256": "0" * 64}):
        assert not is_sealed({**sealed, **change})
    for name in sealed:
        assert not is_sealed({key: value for key, value in sealed.items() if key != name})


def test_a_document_without_seal_is_not_sealed():
    assert not is_sealed({})
    assert not is_sealed({"a": 1})


def test_a_sealed_document_can_be_changed_and_sealed_again():
    assert is_sealed(seal({**seal({"a": 1}), "a": 2}))
