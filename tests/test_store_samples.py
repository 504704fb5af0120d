"""Sample tables and ledgers: what is written comes back, and values that cannot be are refused by name."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from pipeline.errors import CacheError
from pipeline.store.columns import write_columns
from pipeline.store.key import SPLITS
from pipeline.store.samples import SampleTable, read_skipped, skipped_csv
from pipeline.textcolumn import TextColumn


def tiny_table() -> SampleTable:
    rng = np.random.default_rng(0)
    odd = b"grr/\xff\xe9.jpg".decode("utf-8", "surrogateescape")
    ids = ["a.jpg", "grüße/日本.png", odd]
    digests = rng.integers(0, 256, (3, 32), np.uint8)
    return SampleTable(ids, digests, np.array([0, 1, 1]), np.array([0, 2, 1], np.int8), np.array([0, 1, 0], np.uint8))


def attributes(**changes) -> dict:
    right = {"format": b"pipeline-samples", "format_version": np.int64(1), "split_names": np.array(SPLITS, "S")}
    return {name: value for name, value in {**right, **changes}.items() if value is not None}


def test_a_sample_table_comes_back_as_it_was():
    table = tiny_table()
    back = SampleTable.from_bytes(table.to_bytes(), 2)
    assert back.ids == table.ids
    for name in ("digests", "labels", "splits", "status"):
        assert (getattr(back, name) == getattr(table, name)).all()
    assert (back.labels.dtype, back.splits.dtype, back.status.dtype) == (np.int64, np.int8, np.uint8)
    assert back.usable.tolist() == [True, False, True]
    assert len(back) == 3


def test_a_table_read_is_a_copy_that_may_be_changed():
    data = tiny_table().to_bytes()
    back = SampleTable.from_bytes(data, 2)
    back.labels[:] = 1
    back.digests[:] = 0
    assert SampleTable.from_bytes(data, 2).labels.tolist() == [0, 1, 1]


def test_equal_sample_tables_are_equal_bytes():
    assert tiny_table().to_bytes() == tiny_table().to_bytes()
    narrow = replace(tiny_table(), labels=np.array([0, 1, 1], np.int32), splits=np.array([0, 2, 1]))
    assert narrow.to_bytes() == tiny_table().to_bytes()


def test_a_sample_table_without_samples_comes_back():
    empty = SampleTable([], np.zeros((0, 32), np.uint8), np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))
    assert SampleTable.from_bytes(empty.to_bytes(), 0).ids == []


def test_a_table_is_plain_hdf5(tmp_path):
    (tmp_path / "samples.h5").write_bytes(tiny_table().to_bytes())
    with h5py.File(tmp_path / "samples.h5") as file:
        assert sorted(file) == ["id", "image_sha256", "label", "split", "status"]
        assert file.attrs["split_names"].astype(str).tolist() == list(SPLITS)
        assert file["id"][1].decode() == "grüße/日本.png"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("labels", [0, 1, 2], "label"),
        ("labels", [0, 1, -1], "label"),
        ("splits", [0, 1, 3], "split"),
        ("splits", [0, 1, -1], "split"),
        ("status", [0, 1, 2], "status"),
        ("status", [0, 1, 255], "status"),
    ],
)
def test_values_that_cannot_be_are_refused(field, value, named):
    table = replace(tiny_table(), **{field: np.array(value)})
    with pytest.raises(CacheError, match=f"^here: {named} holds values that are not between 0 and"):
        SampleTable.from_bytes(table.to_bytes(), 2, "here")


@pytest.mark.parametrize("name", ["a\0b.jpg", "/etc/passwd", "../above.jpg", "a/../../above.jpg"], ids=ascii)
def test_ids_that_no_source_gives_are_refused(name):
    """A NUL ends an id where the entry's own id is taken; the others would lead out of the source's folder."""
    table = replace(tiny_table(), ids=["a.jpg", name, "b.jpg"])
    with pytest.raises(CacheError, match="here: id"):
        SampleTable.from_bytes(table.to_bytes(), 2, "here")


@pytest.mark.parametrize(
    "name", ["a..b.jpg", "..a/b..", "a b.jpg", "-a", "a\nb.jpg", "x" * 4096], ids=lambda name: ascii(name)[:20]
)
def test_ids_that_only_look_odd_are_read(name):
    table = replace(tiny_table(), ids=["a.jpg", name, "b.jpg"])
    assert SampleTable.from_bytes(table.to_bytes(), 2).ids == table.ids


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("image_sha256", np.zeros((3, 31), np.uint8)),
        ("image_sha256", np.zeros((2, 32), np.uint8)),
        ("image_sha256", np.zeros((3, 32), np.int8)),
        ("label", np.zeros(3, np.int32)),
        ("label", np.zeros((3, 1), np.int64)),
        ("split", np.zeros(3, np.uint8)),
        ("split", np.zeros(4, np.int8)),
        ("status", np.zeros(3, bool)),
        ("status", np.zeros(2, np.uint8)),
        ("id", np.zeros(3, np.int64)),
        ("id", np.zeros((3, 1), "S4")),
        ("id", np.zeros(2, "S4")),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.shape} {value.dtype}",
)
def test_a_column_of_another_shape_or_type_is_refused(name, array):
    columns = {**tiny_table().to_columns(), name: array}
    with pytest.raises(CacheError, match="^here: "):
        SampleTable.from_columns(columns, 2, "here")


@pytest.mark.parametrize(
    "changes",
    [{"format": b"pipeline-shard"}, {"format_version": np.int64(2)}, {"format": None}, {"format_version": None}],
    ids=str,
)
def test_a_file_of_another_format_is_refused(changes):
    data = write_columns(attributes(**changes), tiny_table().to_columns())
    with pytest.raises(CacheError, match="here is not a version 1 pipeline-samples file"):
        SampleTable.from_bytes(data, 2, "here")


@pytest.mark.parametrize("names", [SPLITS[::-1], SPLITS[:2], (*SPLITS, "more"), None], ids=str)
def test_a_table_that_names_its_splits_otherwise_is_refused(names):
    """Other readers of the file go by these names."""
    changes = {"split_names": None if names is None else np.array(names, "S")}
    data = write_columns(attributes(**changes), tiny_table().to_columns())
    with pytest.raises(CacheError, match="here"):
        SampleTable.from_bytes(data, 2, "here")


def ledger(ids: list[str], reasons: dict[int, str]) -> list[dict[str, str]]:
    return read_skipped(skipped_csv(ids, reasons))


@pytest.mark.parametrize(
    "name",
    [
        "plain.jpg",
        'comma, "quoted".jpg',
        "new\nline.jpg",
        b"\xff.jpg".decode("utf-8", "surrogateescape"),
        "carriage\rreturn.jpg",
    ],
    ids=ascii,
)
def test_the_ledger_keeps_every_file_name(name):
    found = ledger(["fine.jpg", name, "last.jpg"], {2: "too large", 1: "bad, very"})
    assert found == [{"id": name, "reason": "bad, very"}, {"id": "last.jpg", "reason": "too large"}]


def test_an_empty_ledger_is_a_header():
    assert skipped_csv(["a"], {}) == b"id,reason\n"
    assert read_skipped(b"id,reason\n") == []


def test_the_ledger_is_in_the_order_of_the_source():
    ids = [f"{row}.jpg" for row in range(100)]
    reasons = {row: "bad" for row in np.random.default_rng(0).permutation(100).tolist()}
    assert [line["id"] for line in ledger(ids, reasons)] == ids


def test_groups_are_a_column_of_their_own_and_leave_other_tables_as_they_were():
    table = tiny_table()
    grouped = replace(table, groups=["p1", "p1", "zürich"])
    assert "group" not in table.to_columns()
    back = SampleTable.from_bytes(grouped.to_bytes(), 2)
    assert back.groups == ["p1", "p1", "zürich"]
    assert SampleTable.from_bytes(table.to_bytes(), 2).groups is None
    columns = grouped.to_columns()
    for wrong in (columns["group"][:2], np.zeros(3), np.zeros((3, 1), "S2")):
        with pytest.raises(CacheError, match="group is not a dataset"):
            SampleTable.from_columns({**columns, "group": wrong}, 2, "here")


def test_without_classes_every_label_is_minus_one_and_with_them_none_is():
    table = tiny_table()
    bare = replace(table, labels=np.full(3, -1))
    assert SampleTable.from_bytes(bare.to_bytes(), 0).labels.tolist() == [-1] * 3
    with pytest.raises(CacheError, match="label holds values that are not between 0 and 1"):
        SampleTable.from_bytes(bare.to_bytes(), 2)
    with pytest.raises(CacheError, match="label holds values that are not between -1 and -1"):
        SampleTable.from_bytes(table.to_bytes(), 0)


def test_a_table_written_to_its_file_has_the_bytes_of_one_built_in_memory(tmp_path):
    n = 70_000
    rng = np.random.default_rng(0)
    ids = TextColumn(f"train/class{row // 1000}/{row}.jpg" for row in range(n))
    groups = TextColumn(f"g{row // 7}" for row in range(n))
    digests = rng.integers(0, 256, (n, 32), np.uint8)
    numbers = [rng.integers(0, 2, n).astype(dtype) for dtype in (np.int64, np.int8, np.uint8)]
    for place, table in enumerate([SampleTable(ids, digests, *numbers, groups), tiny_table()]):
        table.write(tmp_path / str(place))
        assert (tmp_path / str(place)).read_bytes() == table.to_bytes()
        listed = replace(table, ids=list(table.ids), groups=None if table.groups is None else list(table.groups))
        assert listed.to_bytes() == table.to_bytes()
    with pytest.raises(OSError, match="exist"):
        table.write(tmp_path / "0")
