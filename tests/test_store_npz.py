"""An entry as plain numpy arrays: the usable rows and nothing else, without pickle."""

import errno
import os
import resource
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from entries import CLASSES, ROWS, SPACE, flip, make_entry, make_rows

import pipeline
from pipeline.errors import CacheError, UsageError
from pipeline.store.commit import write_json
from pipeline.store.entry import open_entry
from pipeline.store.npz import export_npz

NAMES = {"features", "label", "split", "id", "image_sha256", "class_names"}
BAD = {0, 7, *range(8, 16)}


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("bad", [(), BAD, {19}], ids=["all", "a shard without usable rows", "all but the last"])
@pytest.mark.parametrize("row_shape", [(4,), (2, 3, 3)], ids=["head", "cut"])
@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
def test_numpy_loads_the_usable_rows_as_they_are_in_the_cache(tmp_path, store_dtype, row_shape, bad):
    space = replace(SPACE, store_dtype=store_dtype, row_shape=row_shape)
    entry = make_entry(tmp_path / "cache", space=space, bad=bad)
    assert export_npz(entry, tmp_path / "a.npz") == (tmp_path / "a.npz").stat().st_size
    found, rows = load(tmp_path / "a.npz"), make_rows(range(ROWS), bad, space)
    kept = [row for row in range(ROWS) if row not in bad]
    assert set(found) == NAMES
    assert found["features"].dtype == np.dtype(store_dtype)
    assert found["features"].shape == (len(kept), *row_shape)
    assert found["features"].tobytes() == rows.features[kept].tobytes()
    assert (found["image_sha256"] == rows.digests[kept]).all()
    assert found["id"].tolist() == [f"{row:04d}.jpg" for row in kept]
    assert found["label"].tolist() == [row % 3 for row in kept]
    assert found["split"].tolist() == ["test" if row % 5 == 4 else "train" for row in kept]
    assert found["class_names"].tolist() == list(CLASSES)


def test_the_arrays_are_those_that_open_cache_gives(tmp_path):
    entry = make_entry(tmp_path / "cache", bad=BAD)
    export_npz(entry, tmp_path / "a.npz")
    found, features = load(tmp_path / "a.npz"), pipeline.open_cache(entry.path)
    assert (found["features"] == features.x.numpy()).all()
    assert (found["label"] == features.y.numpy()).all()
    assert found["split"].tolist() == features.split.tolist()
    assert found["id"].tolist() == features.ids


def test_odd_names_can_be_read_without_pickle(tmp_path):
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    classes = (b"\xff".decode("utf-8", "surrogateescape"), "日本", "")
    entry = make_entry(tmp_path / "cache", seeds=range(3), ids=["grüße/日本.png", odd, "x" * 300], classes=classes)
    export_npz(entry, tmp_path / "a.npz")
    found = load(tmp_path / "a.npz")
    assert found["id"].tolist() == ["grüße/日本.png", "caf\\udce9.jpg", "x" * 300]
    assert found["class_names"].tolist()[1:] == ["日本", ""]
    for name in NAMES:
        assert found[name].dtype.hasobject is False
        str(found[name].tolist()).encode()  # can be printed, saved and sent on


def test_an_entry_without_usable_rows_gives_empty_arrays(tmp_path):
    export_npz(make_entry(tmp_path / "cache", bad=range(ROWS)), tmp_path / "a.npz")
    found = load(tmp_path / "a.npz")
    assert found["features"].shape == (0, 4)
    assert found["id"].shape == (0,)


def test_each_array_can_be_taken_by_itself_from_a_plain_zip_file(tmp_path):
    export_npz(make_entry(tmp_path / "cache"), tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
        assert {item.filename for item in archive.infolist()} == {f"{name}.npy" for name in NAMES}
        assert {item.compress_type for item in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extract("features.npy", tmp_path)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert (mapped == make_rows(range(ROWS)).features).all()


def test_what_is_there_already_is_not_replaced(tmp_path):
    entry = make_entry(tmp_path / "cache")
    (tmp_path / "a.npz").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"a\.npz exists"):
        export_npz(entry, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["samples.h5", "shards/00000.h5", "shards/00002.h5"])
def test_a_damaged_entry_is_named_and_nothing_is_left_behind(tmp_path, name):
    entry = make_entry(tmp_path / "cache")
    flip(entry.path / name)
    with pytest.raises(CacheError, match=f"{Path(name).name} is damaged"):
        export_npz(entry, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 1), (0, 1, 2, 2)], ids=["exchanged", "fewer", "more"])
def test_shards_that_are_not_those_of_the_sample_table_are_refused(tmp_path, order):
    entry = make_entry(tmp_path / "cache")
    data = [entry.shard_path(number).read_bytes() for number in range(3)]
    shutil.rmtree(entry.path / "shards")
    (entry.path / "shards").mkdir()
    body = {name: value for name, value in entry.manifest.items() if name != "sha256"}
    body["shards"] = [entry.shards[number] for number in order]
    body["samples_listed"] = sum(shard["rows"] for shard in body["shards"])
    body["rows"] = min(body["rows"], body["samples_listed"])
    for place, number in enumerate(order):
        entry.shard_path(place).write_bytes(data[number])
    write_json(entry.path / "entry.json", body, replace=True)
    with pytest.raises(CacheError, match="sample table"):
        export_npz(open_entry(entry.path), tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


@pytest.mark.parametrize(("code", "said"), [(errno.ENOSPC, "disk is full"), (errno.EIO, "cannot write")])
def test_a_disk_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, code, said):
    entry = make_entry(tmp_path / "cache")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CacheError, match=rf"{said}.*a\.npz"):
        export_npz(entry, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


@pytest.mark.parametrize("limit", [0, 100, 1000, 1500])
def test_a_file_that_may_not_grow_is_one_clear_line_and_leaves_nothing_behind(tmp_path, limit):
    entry = make_entry(tmp_path / "cache")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CacheError, match=r"cannot write .*a\.npz"):
            export_npz(entry, tmp_path / "a.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]
