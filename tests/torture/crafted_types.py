"""Columns of types that no file of the cache has. The makers are called as those of `crafted`."""

import h5py
import numpy as np
from crafted import Maker, low_level
from h5py import h5t


def other_byte_order(file, name, array):
    file.create_dataset(name, data=np.zeros(array.shape, ">f4" if array.dtype.kind == "f" else ">i8"))


def other_width(file, name, array):
    wider = {"f": np.float64, "S": "u1", "i": np.int16}.get(array.dtype.kind, np.uint16)
    file.create_dataset(name, data=np.zeros(array.shape, wider))


def other_kind(file, name, array):
    file.create_dataset(name, data=np.zeros(array.shape, np.int32 if array.dtype.kind in "fS" else np.int8))
    if name == "split":  # which is of that very type
        file[name][0] = 3


def text(file, name, array):
    file.create_dataset(name, data=np.full((*array.shape, 2), b"x"))


def text_of_any_length(file, name, array):
    file.create_dataset(name, array.shape, h5py.string_dtype(), data=np.full(array.shape, b"x", object))


def lists_of_any_length(file, name, array):
    made = file.create_dataset(name, array.shape[:1], h5py.vlen_dtype(np.uint8))
    made[0] = np.arange(9, dtype=np.uint8)


def record(file, name, array):
    file.create_dataset(name, data=np.zeros(array.shape, [("a", "f4"), ("b", "u1")]))


def complex_numbers(file, name, array):
    file.create_dataset(name, data=np.zeros(array.shape, np.complex64))


def enumeration(file, name, array):
    file.create_dataset(name, data=np.zeros(array.shape, np.uint8), dtype=h5py.enum_dtype({"a": 0, "b": 1}, "u1"))


def booleans(file, name, array):
    file.create_dataset(name, data=np.zeros(array.shape, bool))


def arrays(file, name, array):
    low_level(file, name, h5t.py_create(np.dtype(("u1", (32,)))), array.shape[:1])


def opaque(file, name, array):
    kind = h5t.create(h5t.OPAQUE, 4)
    kind.set_tag(b"anything")
    low_level(file, name, kind, array.shape)


def bit_fields(file, name, array):
    low_level(file, name, h5t.STD_B8LE, array.shape)


def times(file, name, array):
    low_level(file, name, h5t.UNIX_D32LE, array.shape)


def references(file, name, array):
    made = file.create_dataset(name, array.shape[:1], h5py.ref_dtype)
    made[0] = file["/"].ref


def region_references(file, name, array):
    other = file["status" if name != "status" else "image_sha256"]
    made = file.create_dataset(name, array.shape[:1], h5py.regionref_dtype)
    made[0] = other.regionref[0:1]


def long_doubles(file, name, array):
    file.create_dataset(name, data=np.zeros(array.shape, np.longdouble))


def half_floats_of_other_bits(file, name, array):
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    kind.set_ebias(1023)
    low_level(file, name, kind, array.shape).write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(array.shape, np.float32))


def text_of_two_gigabytes(file, name, array):
    kind = h5t.C_S1.copy()
    kind.set_size((1 << 31) - 1)
    low_level(file, name, kind, array.shape)


def fill_value_of_60_kilobytes(file, name, array):
    file.create_dataset(name, array.shape[:1], "S60000", fillvalue=b"x" * 60_000)


def committed_type_of_another_kind(file, name, array):
    kind = h5t.py_create(np.dtype("f8"))
    kind.commit(file.id, b"kind")
    low_level(file, name, kind, array.shape)
    del file["kind"]


MADE: list[Maker] = [
    other_byte_order,
    other_width,
    other_kind,
    text,
    text_of_any_length,
    lists_of_any_length,
    record,
    complex_numbers,
    enumeration,
    booleans,
    arrays,
    opaque,
    bit_fields,
    times,
    references,
    region_references,
    long_doubles,
    half_floats_of_other_bits,
    text_of_two_gigabytes,
    fill_value_of_60_kilobytes,
    committed_type_of_another_kind,
]
