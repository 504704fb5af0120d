"""Shards: equal rows give equal bytes, every changed byte is seen, crafted files are refused."""

import json
import os
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


def crafted(folder: Path, change=None, *, skip: str = "", libver=LIBVER) -> bytes:
    """Write a shard with h5py, leaving `skip` to `change(file)`."""
    path, rows = folder / "crafted.h5", make_rows()
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["format"] = np.bytes_(b"pipeline-shard")
        file.attrs["format_version"] = np.int64(1)
        file.attrs["space_sha256"] = np.bytes_(SPACE.sha256)
        for name, array in zip(NAMES, (rows.features, rows.digests, rows.status), strict=True):
            if name != skip:
                file.create_dataset(name, data=array)
        if change:
            change(file)
    return path.read_bytes()


def column(name: str) -> np.ndarray:
    rows = make_rows()
    return {"features": rows.features, "image_sha256": rows.digests, "status": rows.status}[name]


def test_a_shard_written_by_another_program_is_read(tmp_path):
    assert_same(parse_shard(crafted(tmp_path), SPACE, "crafted"), make_rows())
    assert_same(parse_shard(crafted(tmp_path, libver="earliest"), SPACE, "crafted"), make_rows())


def external_storage(file, name):
    array = column(name)
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(bytes(array.nbytes))
    file.create_dataset(name, array.shape, array.dtype, external=[(os.fspath(secret), 0, array.nbytes)])


def virtual(file, name):
    array = column(name)
    source = Path(file.filename).with_name("source.h5")
    with h5py.File(source, "w") as other:
        other[name] = array
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[...] = h5py.VirtualSource(source, name, array.shape)
    file.create_virtual_dataset(name, layout)


def external_link(file, name):
    source = Path(file.filename).with_name("source.h5")
    with h5py.File(source, "w") as other:
        other[name] = column(name)
    file[name] = h5py.ExternalLink(source, name)


def soft_link(file, name):
    file[name] = h5py.SoftLink("/features" if name != "features" else "/status")


def dangling_link(file, name):
    file[name] = h5py.SoftLink("/nowhere")


def lost_link(file, name):
    file[name] = h5py.ExternalLink("/nowhere/lost.h5", name)


def group(file, name):
    file.create_group(name)


def named_type(file, name):
    file[name] = np.dtype("f4")


def chunked(file, name):
    array = column(name)
    file.create_dataset(name, data=array, chunks=array.shape)


def compressed(file, name):
    array = column(name)
    file.create_dataset(name, data=array, chunks=array.shape, compression="gzip")


def compact(file, name):
    array = column(name)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    kind = h5py.h5t.py_create(array.dtype)
    made = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(array.shape), plist)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(array))


def never_written(file, name):
    array = column(name)
    file.create_dataset(name, array.shape, array.dtype)


def too_long(file, name):
    array = column(name)
    file.create_dataset(name, data=np.concatenate([array, array]))


def too_short(file, name):
    file.create_dataset(name, data=column(name)[:-1])


def declared_huge(file, name):
    array = column(name)
    file.create_dataset(name, (1 << 40, *array.shape[1:]), array.dtype)


def one_more_axis(file, name):
    file.create_dataset(name, data=column(name)[..., None])


def no_axis(file, name):
    file.create_dataset(name, data=column(name).reshape(-1)[0])


def no_data(file, name):
    file.create_dataset(name, data=h5py.Empty(column(name).dtype))


def other_byte_order(file, name):
    file.create_dataset(name, data=column(name).astype(">f4" if name == "features" else ">u2"))


def other_width(file, name):
    file.create_dataset(name, data=column(name).astype(np.float64 if name == "features" else np.uint16))


def other_kind(file, name):
    file.create_dataset(name, data=column(name).astype(np.int32 if name == "features" else np.int8))


def text(file, name):
    file.create_dataset(name, data=np.full(column(name).shape, b"x"))


CRAFTED = [
    external_storage,
    virtual,
    external_link,
    soft_link,
    dangling_link,
    lost_link,
    group,
    named_type,
    chunked,
    compressed,
    compact,
    never_written,
    too_long,
    too_short,
    declared_huge,
    one_more_axis,
    no_axis,
    no_data,
    other_byte_order,
    other_width,
    other_kind,
    text,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", CRAFTED, ids=lambda change: change.__name__)
def test_a_column_that_is_not_plain_data_in_the_file_is_refused(tmp_path, name, change):
    data = crafted(tmp_path, lambda file: change(file, name), skip=name)
    with pytest.raises(CacheError, match=r"crafted"):
        parse_shard(data, SPACE, "crafted")


def test_no_other_file_is_opened_for_an_external_link(tmp_path):
    # Opening it would fail with an error of HDF5's own.
    data = crafted(tmp_path, lambda file: external_link(file, "status"), skip="status")
    (tmp_path / "source.h5").write_bytes(b"no HDF5 file")
    with pytest.raises(CacheError, match="is a link to somewhere else"):
        parse_shard(data, SPACE, "crafted")


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
        lambda file: file.create_dataset("more", data=np.zeros(5)),
        lambda file: file.create_group("more"),
        lambda file: file.__setitem__("more", h5py.SoftLink("/status")),
        lambda file: file.__delitem__("status"),
        lambda file: file.__delitem__("features"),
        lambda file: file.move("features", "feature"),
    ],
    ids=[
        "format",
        "version 2",
        "version text",
        "space",
        "no format",
        "no version",
        "no space",
        "more data",
        "more groups",
        "more links",
        "no status",
        "no features",
        "other name",
    ],
)
def test_a_file_of_another_structure_is_refused(tmp_path, change):
    with pytest.raises(CacheError, match="crafted"):
        parse_shard(crafted(tmp_path, change), SPACE, "crafted")


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.attrs.__setitem__("format_version", np.array([1, 1])),
        lambda file: file.attrs.__setitem__("space_sha256", np.bytes_(b"\xff" * 64)),
        lambda file: file.attrs.__setitem__("format", np.array([b"pipeline-shard"] * 2)),
    ],
    ids=["version array", "space no text", "format array"],
)
def test_attributes_of_another_kind_are_refused(tmp_path, change):
    with pytest.raises(CacheError, match="crafted"):
        parse_shard(crafted(tmp_path, change), SPACE, "crafted")


@pytest.mark.parametrize("length", [0, 8, 500, -1], ids=str)
def test_bytes_that_are_no_hdf5_file_are_refused(tmp_path, length):
    data = crafted(tmp_path)[:length] if length else b"text"
    with pytest.raises(CacheError, match="crafted"):
        parse_shard(data, SPACE, "crafted")


def test_a_file_with_a_user_block_is_read_right_or_refused(tmp_path):
    path, rows = tmp_path / "crafted.h5", make_rows()
    with h5py.File(path, "w", libver=LIBVER, userblock_size=512) as file:
        file.attrs["format"] = np.bytes_(b"pipeline-shard")
        file.attrs["format_version"] = np.int64(1)
        file.attrs["space_sha256"] = np.bytes_(SPACE.sha256)
        for name in NAMES:
            file.create_dataset(name, data=column(name))
    try:
        found = parse_shard(path.read_bytes(), SPACE, "crafted")
    except CacheError:
        return
    assert_same(found, rows)
