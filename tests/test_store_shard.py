"""Shards: equal rows give equal bytes, every changed byte is seen, crafted files are refused."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.columns import LIBVER
from pipeline.store.key import FeatureSpace
from pipeline.store.shard import ShardRows, parse_shard, read_shard, shard_bytes

SPACE = FeatureSpace("torchvision/tiny", "0" * 64, "input:fc", "none", {"mean": [0.5]}, "float32", "float32", (4,))
NAMES = ["features", "image_sha256", "status"]


def make_rows(n: int = 5, seed: int = 0, space: FeatureSpace = SPACE) -> ShardRows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, *space.row_shape)).astype(space.store_dtype)
    return ShardRows(features, rng.integers(0, 256, (n, 32), np.uint8), (np.arange(n) % 3 == 2).astype(np.uint8))


def assert_same(one: ShardRows, other: ShardRows) -> None:
    for name in ("features", "digests", "status"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a.shape, a.dtype.newbyteorder("="), a.tobytes()) == (b.shape, b.dtype.newbyteorder("="), b.tobytes())


def put(folder: Path, data: bytes) -> tuple[Path, str, int]:
    path = folder / "shard.h5"
    path.write_bytes(data)
    return path, sha256_bytes(data), len(data)


@pytest.mark.parametrize("n", [0, 1, 5, 600])
@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
@pytest.mark.parametrize("row_shape", [(4,), (2, 3, 3)])
def test_rows_come_back_bit_for_bit(tmp_path, n, store_dtype, row_shape):
    space = replace(SPACE, store_dtype=store_dtype, row_shape=row_shape)
    rows = make_rows(n, space=space)
    assert_same(read_shard(*put(tmp_path, shard_bytes(space, rows)), space), rows)


def test_values_at_the_edge_of_float32_come_back_bit_for_bit():
    special = np.array([[np.nan, np.inf, -np.inf, -0.0], [1e-45, 3.4e38, -1e-45, 0]], np.float32)
    rows = replace(make_rows(2), features=special)
    assert_same(parse_shard(shard_bytes(SPACE, rows), SPACE, "here"), rows)


def test_equal_rows_give_equal_bytes_however_they_are_held():
    rows = make_rows(300)
    held = ShardRows(
        np.asfortranarray(rows.features).astype(">f4").astype("<f4"),
        np.asfortranarray(rows.digests),
        rows.status.astype(np.int64),
    )
    assert shard_bytes(SPACE, rows) == shard_bytes(SPACE, make_rows(300)) == shard_bytes(SPACE, held)


def test_every_part_of_a_shard_changes_its_bytes():
    rows = make_rows()
    data = shard_bytes(SPACE, rows)
    assert shard_bytes(SPACE, replace(rows, features=-rows.features)) != data
    assert shard_bytes(SPACE, replace(rows, digests=rows.digests ^ 1)) != data
    assert shard_bytes(SPACE, replace(rows, status=1 - rows.status)) != data
    assert shard_bytes(replace(SPACE, layer="input:head"), rows) != data


def test_a_shard_is_a_plain_hdf5_file(tmp_path):
    rows = make_rows()
    path, _, _ = put(tmp_path, shard_bytes(SPACE, rows))
    with h5py.File(path, "r") as file:
        assert sorted(file) == NAMES
        assert (file["features"][:] == rows.features).all()
        assert (file["image_sha256"][:] == rows.digests).all()
        assert (file["status"][:] == rows.status).all()
        assert file.attrs["space_sha256"].decode() == SPACE.sha256
        assert FeatureSpace.from_json(json.loads(file.attrs["space"])) == SPACE
        assert all(file[name].id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS for name in NAMES)


def test_features_are_used_where_they_lie_and_cannot_be_written(tmp_path):
    rows = read_shard(*put(tmp_path, shard_bytes(SPACE, make_rows(600))), SPACE)
    assert rows.features.base is not None
    assert rows.features.ctypes.data % 4 == 0
    for array in (rows.features, rows.digests, rows.status):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


@pytest.mark.parametrize(
    "features",
    [np.zeros((5, 3), np.float32), np.zeros((5, 4), np.float64), np.zeros((5, 4), np.float16), np.zeros(5, np.float32)],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_rows_that_do_not_fit_their_space_are_not_stored(features):
    with pytest.raises(ValueError, match="expected"):
        shard_bytes(SPACE, replace(make_rows(), features=features))


def test_a_changed_byte_anywhere_is_seen(tmp_path):
    data = shard_bytes(SPACE, make_rows(20))
    path, sha256, size = put(tmp_path, data)
    rng = np.random.default_rng(0)
    ends = [*range(64), *range(len(data) - 64, len(data))]
    for place in [*ends, *rng.integers(0, len(data), 200).tolist()]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CacheError, match=r"shard\.h5 is damaged") as caught:
            read_shard(path, sha256, size, SPACE)
        assert "pipeline extract" in caught.value.hint


def test_a_shard_cut_short_or_made_longer_is_seen(tmp_path):
    data = shard_bytes(SPACE, make_rows())
    path, sha256, size = put(tmp_path, data)
    for length in [0, 1, 8, *np.random.default_rng(0).integers(0, size, 50).tolist(), size - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(CacheError, match=f"{length:,} bytes where {size:,}"):
            read_shard(path, sha256, size, SPACE)
    for more in (b"\0", data):
        path.write_bytes(data + more)
        with pytest.raises(CacheError, match=f"bytes where {size:,} were committed"):
            read_shard(path, sha256, size, SPACE)


def test_a_shard_that_is_missing_or_a_folder_is_named(tmp_path):
    with pytest.raises(CacheError, match=r"gone\.h5 is missing"):
        read_shard(tmp_path / "gone.h5", "0" * 64, 100, SPACE)
    with pytest.raises(CacheError, match="cannot be read"):
        read_shard(tmp_path, "0" * 64, 100, SPACE)


def test_a_shard_of_another_space_is_refused(tmp_path):
    place = put(tmp_path, shard_bytes(SPACE, make_rows()))
    for other in (replace(SPACE, weights="1" * 64), replace(SPACE, row_shape=(2, 2)), replace(SPACE, pool="mean")):
        with pytest.raises(CacheError, match="another space"):
            read_shard(*place, other)


def crafted(change=None, *, libver=LIBVER) -> bytes:
    """Write a shard with h5py and let `change(file)` do more."""
    rows = make_rows()
    with h5py.File.in_memory(libver=libver) as file:
        file.attrs["format"] = np.bytes_(b"pipeline-shard")
        file.attrs["format_version"] = np.int64(1)
        file.attrs["space_sha256"] = np.bytes_(SPACE.sha256)
        for name, array in zip(NAMES, (rows.features, rows.digests, rows.status), strict=True):
            file[name] = array
        if change:
            change(file)
        file.flush()
        return bytes(file.id.get_file_image())


def test_a_shard_written_by_another_program_is_read():
    assert_same(parse_shard(crafted(), SPACE, "crafted"), make_rows())


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.attrs.__setitem__("format", np.bytes_(b"pipeline-samples")),
        lambda file: file.attrs.__setitem__("format_version", np.int64(2)),
        lambda file: file.attrs.__setitem__("format_version", np.bytes_(b"1")),
        lambda file: file.attrs.__setitem__("space_sha256", np.bytes_(b"0" * 64)),
        lambda file: file.attrs.__delitem__("format"),
        lambda file: file.attrs.__delitem__("format_version"),
        lambda file: file.attrs.__delitem__("space_sha256"),
    ],
    ids=["format", "version 2", "version text", "space", "no format", "no version", "no space"],
)
def test_a_shard_that_says_it_is_another_thing_is_refused(change):
    with pytest.raises(CacheError, match="crafted"):
        parse_shard(crafted(change), SPACE, "crafted")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("features", np.zeros((5, 3), np.float32)),
        ("features", np.zeros((4, 4), np.float32)),
        ("features", np.zeros((5, 2, 2), np.float32)),
        ("features", np.zeros((5, 4), np.float16)),
        ("image_sha256", np.zeros((5, 31), np.uint8)),
        ("image_sha256", np.zeros((5, 32), np.int8)),
        ("status", np.zeros(6, np.uint8)),
        ("status", np.zeros(5, np.int8)),
        ("status", np.zeros((5, 1), np.uint8)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.shape} {value.dtype}",
)
def test_a_column_of_another_shape_or_type_is_refused(name, array):
    def change(file):
        del file[name]
        file[name] = array

    with pytest.raises(CacheError, match="^crafted: .* is not a dataset"):
        parse_shard(crafted(change), SPACE, "crafted")
