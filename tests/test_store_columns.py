"""HDF5 files of plain columns: equal arrays give equal bytes, and nothing but plain columns is read."""

import h5py
import numpy as np
import pytest

from pipeline.errors import CacheError
from pipeline.store import columns, headers
from pipeline.store.columns import LIBVER, MAX_ATTRIBUTES, inspect, read_columns, write_columns

ATTRIBUTES = {"name": b"value", "version": np.int64(1)}
ARRAYS = {
    "floats": np.arange(12, dtype="<f4").reshape(4, 3),
    "bytes": np.arange(8, dtype="u1").reshape(4, 2),
    "names": np.array([b"a", b"bc", b"", b"d"], "S2"),
}
NAMES = tuple(ARRAYS)


def crafted(change, **options) -> bytes:
    """Write the columns with h5py and let `change(file)` do more."""
    with h5py.File.in_memory(libver=LIBVER, **options) as file:
        file.attrs["version"] = 1
        for name, array in ARRAYS.items():
            file[name] = array
        change(file)
        file.flush()
        return bytes(file.id.get_file_image())


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", "i1", "u1", "<i2", "<u4", "<i8", "S1", "S7"])
@pytest.mark.parametrize("shape", [(1,), (5,), (0,), (5, 0), (0, 3), (2, 3, 4), (700, 9)], ids=str)
def test_a_column_comes_back_bit_for_bit(dtype, shape):
    rng = np.random.default_rng(0)
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
    _, found = read_columns(write_columns({}, {"column": array}), ("column",), "here")
    assert found["column"].shape == shape
    assert found["column"].dtype == array.dtype
    assert found["column"].tobytes() == array.tobytes()


def test_attributes_come_back_as_text_and_integers():
    attributes = {"text": b"value", "number": np.int64(-7), "names": np.array([b"a", b"bc"]), "list": np.arange(3)}
    found, _ = read_columns(write_columns(attributes, ARRAYS), NAMES, "here")
    assert found == {"text": "value", "number": -7, "names": ["a", "bc"], "list": [0, 1, 2]}


def test_equal_columns_give_equal_bytes_however_they_are_held():
    held = {name: np.asfortranarray(np.concatenate([array, array])[: len(array)]) for name, array in ARRAYS.items()}
    assert write_columns(ATTRIBUTES, held) == write_columns(ATTRIBUTES, ARRAYS)
    assert write_columns({**ATTRIBUTES, "version": np.int64(2)}, ARRAYS) != write_columns(ATTRIBUTES, ARRAYS)


def test_columns_are_views_of_the_bytes_and_cannot_be_written():
    data = write_columns(ATTRIBUTES, ARRAYS)
    _, found = read_columns(data, NAMES, "here")
    for array in found.values():
        assert not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[:] = array[::-1].copy()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_may_be_held_in_any_way(kind):
    _, found = read_columns(kind(write_columns(ATTRIBUTES, ARRAYS)), NAMES, "here")
    assert (found["floats"] == ARRAYS["floats"]).all()


def test_large_columns_begin_where_they_are_asked_to():
    arrays = {"small": np.zeros(3, "u1"), "large": np.ones((600, 5), "<f4"), "larger": np.ones((900, 5), "<f4")}
    data = write_columns({}, arrays, alignment_threshold=4096, alignment_interval=64)
    with h5py.File.in_memory(data) as file:
        _, places = inspect(file, tuple(arrays), len(data), "here")
    assert [places[name].offset % 64 for name in ("large", "larger")] == [0, 0]
    assert data[places["large"].offset :][: arrays["large"].nbytes] == arrays["large"].tobytes()


def test_columns_are_asked_for_by_name_and_in_any_order():
    data = write_columns(ATTRIBUTES, ARRAYS)
    assert list(read_columns(data, NAMES[::-1], "here")[1]) == list(NAMES[::-1])
    for names in (NAMES[:2], (*NAMES, "more"), ("floats", "bytes", "Names"), ()):
        with pytest.raises(CacheError, match=r"here holds \['bytes', 'floats', 'names'\], expected"):
            read_columns(data, names, "here")


def test_very_many_names_are_not_listed():
    data = crafted(lambda file: [file.id.links.create_soft(b"%d" % n, b"/floats") for n in range(1000)])
    with pytest.raises(CacheError, match="here") as caught:
        read_columns(data, NAMES, "here")
    assert len(caught.value.message) < 300


def test_attributes_have_a_limit():
    more = {f"number {n}": np.int64(n) for n in range(MAX_ATTRIBUTES + 1)}
    with pytest.raises(CacheError, match="here"):
        read_columns(write_columns(more, ARRAYS), NAMES, "here")
    some = dict(list(more.items())[:8])
    assert len(read_columns(write_columns(some, ARRAYS), NAMES, "here")[0]) == 8


def test_a_link_is_named_before_it_is_followed():
    def change(file):
        del file["floats"]
        file["floats"] = h5py.ExternalLink("/nowhere/else.h5", "floats")

    with pytest.raises(CacheError, match="here: floats is a link to somewhere else"):
        read_columns(crafted(change), NAMES, "here")


@pytest.mark.parametrize("shape", [(0, 1 << 62), (1 << 62, 0), (1 << 31, 1 << 31, 0)], ids=str)
def test_a_column_without_rows_and_of_a_huge_width_is_refused(shape):
    def change(file):
        del file["floats"]
        kind, space = h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, b"floats", kind, space)

    with pytest.raises(CacheError, match="here"):
        read_columns(crafted(change), NAMES, "here")


@pytest.mark.parametrize("data", [b"", b"text", bytes(4096), b"\x89HDF\r\n\x1a\n"], ids=ascii)
def test_bytes_that_are_no_hdf5_file_are_refused(data):
    with pytest.raises(CacheError, match="here"):
        read_columns(data, NAMES, "here")


def test_a_file_cut_short_anywhere_is_refused():
    data = write_columns(ATTRIBUTES, ARRAYS)
    for length in np.random.default_rng(0).integers(0, len(data), 100).tolist():
        with pytest.raises(CacheError, match="here"):
            read_columns(data[:length], NAMES, "here")


def test_data_that_ends_after_the_file_is_refused():
    """What HDF5 is told of the size and what is there may differ: columns lie in what is there."""
    data = write_columns(ATTRIBUTES, ARRAYS)
    with h5py.File.in_memory(data) as file:
        _, places = inspect(file, NAMES, len(data), "here")
        last = max(place.offset + ARRAYS[name].nbytes for name, place in places.items())
        with pytest.raises(CacheError, match="is not stored in one piece inside the file"):
            inspect(file, NAMES, last - 1, "here")


class TestOneHeaderForManyFiles:
    """Files that differ in their data alone are parsed once; what else differs is parsed anew."""

    @pytest.fixture
    def parsed(self, monkeypatch):
        """How often HDF5 was asked."""
        headers._known.clear()
        asked = []
        real = columns.inspect

        def counted(*arguments):
            asked.append(arguments[3])
            return real(*arguments)

        monkeypatch.setattr(columns, "inspect", counted)
        return asked

    def test_other_data_behind_the_same_header_is_read_without_hdf5(self, parsed):
        other = {**ARRAYS, "floats": ARRAYS["floats"] + 1}
        first = read_columns(write_columns(ATTRIBUTES, ARRAYS), NAMES, "first")
        second = read_columns(write_columns(ATTRIBUTES, other), NAMES, "second")
        assert parsed == ["first"]
        assert first[0] == second[0]
        assert (second[1]["floats"] == other["floats"]).all()
        second[0]["name"] = "changed"  # a copy: it harms nobody else
        assert read_columns(write_columns(ATTRIBUTES, ARRAYS), NAMES, "third")[0] == first[0]

    def test_every_bit_outside_of_the_columns_matters(self, parsed):
        data = write_columns(ATTRIBUTES, ARRAYS)
        read_columns(data, NAMES, "first")
        [header] = headers._known.values()
        spans = [range(place.offset, place.end) for place in header.places.values()]
        outside = [at for at in range(len(data)) if not any(at in span for span in spans)]
        assert len(outside) == len(header.rest)
        for at in outside[:: max(1, len(outside) // 200)]:
            changed = bytearray(data)
            changed[at] ^= 1
            assert headers.known_header(bytes(changed), NAMES, ()) is None
        for span in spans:
            changed = bytearray(data)
            changed[span.start] ^= 1
            assert headers.known_header(bytes(changed), NAMES, ()) is header

    def test_other_attributes_names_or_sizes_are_parsed_anew(self, parsed):
        read_columns(write_columns(ATTRIBUTES, ARRAYS), NAMES, "first")
        read_columns(write_columns({**ATTRIBUTES, "version": np.int64(2)}, ARRAYS), NAMES, "second")
        longer = {**ARRAYS, "names": ARRAYS["names"].astype("S3")}
        read_columns(write_columns(ATTRIBUTES, longer), NAMES, "third")
        with pytest.raises(CacheError):
            read_columns(write_columns(ATTRIBUTES, ARRAYS), ("floats",), "fourth")
        assert parsed == ["first", "second", "third", "fourth"]

    def test_a_header_that_lies_within_a_column_is_not_kept(self, parsed):
        """Else the data of one file would say what another holds."""
        data = write_columns(ATTRIBUTES, ARRAYS)
        with h5py.File.in_memory(data) as file:
            attributes, places = inspect(file, NAMES, len(data), "here")
        headers._known.clear()
        inside = places["floats"].offset
        for walked, kept in (([(inside - 4, 4)], 1), ([(inside - 4, 5)], 0), ([(0, 48), (inside + 8, 1)], 0)):
            headers._known.clear()
            headers.keep_header(data, NAMES, (), attributes, places, walked)
            assert len(headers._known) == kept

    def test_only_so_many_are_kept(self, parsed):
        for size in range(1, 2 * headers.KEPT):
            read_columns(write_columns({}, {"column": np.zeros(size * 100)}), ("column",), "here")
        assert len(headers._known) == headers.KEPT
