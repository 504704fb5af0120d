"""Columns laid out as no file of the cache has them: elsewhere, in pieces, in other shapes, or no columns at all.

A maker takes (file, name, array) and puts something under `name` that is not `array` as plain data in the file. What
it points to lies in a folder beside the file, which nobody may open.
"""

import functools
import os
import zlib

import h5py
import numpy as np
from crafted import Maker, beside, low_level, plan_for
from h5py import h5d, h5s, h5t, h5z

NO_FILTER, PLUGIN_FILTER = 305, 32015
"""Numbers of filters that HDF5 does not have; for those above 255 it looks for a shared library."""
TEBI = 1 << 40

# Data that lies elsewhere


def external_storage(file, name, array):
    file.create_dataset(name, array.shape, array.dtype, external=[(os.fspath(beside(file, "secret")), 0, array.nbytes)])


def virtual(file, name, array):
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[...] = h5py.VirtualSource(beside(file, "source.h5"), name, array.shape)
    file.create_virtual_dataset(name, layout)


def virtual_of_itself(file, name, array):
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[...] = h5py.VirtualSource(".", name, array.shape)
    file.create_virtual_dataset(name, layout)


def external_link(file, name, array):
    file[name] = h5py.ExternalLink(beside(file, "source.h5"), name)


def lost_link(file, name, array):
    file[name] = h5py.ExternalLink("/nowhere/lost.h5", name)


def soft_link(file, name, array):
    file[name] = h5py.SoftLink("/status" if name != "status" else "/image_sha256")


def dangling_link(file, name, array):
    file[name] = h5py.SoftLink("/nowhere")


def soft_link_loop(file, name, array):
    file[name] = h5py.SoftLink(f"/{name}")


def root_under_its_own_name(file, name, array):
    file[name] = file["/"]


def other_column(file, name, array):
    file[name] = file["status" if name != "status" else "image_sha256"]


# Things that are no dataset


def group(file, name, array):
    file.create_group(name)


def deep_groups(file, name, array):
    file.create_group(name + "/deeper" * 500)


def groups_in_a_circle(file, name, array):
    made = file.create_group(name)
    made["around"] = made
    file[f"{name}/again"] = file["/"]


def named_type(file, name, array):
    file[name] = np.dtype("f4")


# Datasets laid out in another way


def chunked(file, name, array):
    file.create_dataset(name, data=array, chunks=array.shape)


def compressed(file, name, array):
    file.create_dataset(name, data=array, chunks=array.shape, compression="gzip")


def shuffled_with_checksums(file, name, array):
    file.create_dataset(name, data=array, chunks=array.shape, shuffle=True, fletcher32=True)


@functools.cache
def _packed_zeros() -> bytes:
    return zlib.compress(bytes(64 << 20), 1)


def gzip_bomb(file, name, array):
    """4 GiB of zeros in a few megabytes."""
    rows = (64 << 20) // array[0].nbytes
    made = file.create_dataset(
        name, (64 * rows, *array.shape[1:]), array.dtype, chunks=(rows, *array.shape[1:]), compression="gzip"
    )
    for number in range(64):
        made.id.write_direct_chunk((number * rows, *(0 for _ in array.shape[1:])), _packed_zeros())


def _filtered(number: int) -> Maker:
    def make(file, name, array):
        plan = plan_for(array.shape)
        plan.set_filter(number, h5z.FLAG_OPTIONAL, ())
        made = low_level(file, name, h5t.py_create(array.dtype), array.shape, plan)
        made.write_direct_chunk((0,) * array.ndim, b"x" * 99)

    make.__name__ = f"filter_{number}"
    return make


unknown_filter = _filtered(NO_FILTER)
filter_of_a_plugin = _filtered(PLUGIN_FILTER)


def compact(file, name, array):
    plan = plan_for()
    plan.set_layout(h5d.COMPACT)
    made = low_level(file, name, h5t.py_create(array.dtype), array.shape, plan)
    made.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array))


def never_written(file, name, array):
    file.create_dataset(name, array.shape, array.dtype)


def growing(file, name, array):
    file.create_dataset(name, data=array, maxshape=(None, *array.shape[1:]))


# Other shapes


def too_long(file, name, array):
    file.create_dataset(name, data=np.concatenate([array, array]))


def too_short(file, name, array):
    file.create_dataset(name, data=array[:-1])


def no_rows(file, name, array):
    file.create_dataset(name, data=array[:0])


def declared_huge(file, name, array):
    file.create_dataset(name, (TEBI, *array.shape[1:]), array.dtype)


def declared_huge_and_empty(file, name, array):
    low_level(file, name, h5t.py_create(array.dtype), (0, 1 << 62))


def rows_beyond_64_bits(file, name, array):
    low_level(file, name, h5t.py_create(array.dtype), (1 << 32, 1 << 32))


def rows_of_62_bits(file, name, array):
    low_level(file, name, h5t.py_create(np.dtype("u1")), (1 << 62,))


def one_more_axis(file, name, array):
    file.create_dataset(name, data=array[..., None])


def all_32_axes(file, name, array):
    file.create_dataset(name, data=array.reshape(*array.shape, *(1 for _ in range(32 - array.ndim))))


def no_axis(file, name, array):
    file.create_dataset(name, data=array.reshape(-1)[0])


def no_data(file, name, array):
    file.create_dataset(name, data=h5py.Empty(array.dtype))


MADE: list[Maker] = [
    external_storage,
    virtual,
    virtual_of_itself,
    external_link,
    lost_link,
    soft_link,
    dangling_link,
    soft_link_loop,
    root_under_its_own_name,
    other_column,
    group,
    deep_groups,
    groups_in_a_circle,
    named_type,
    chunked,
    compressed,
    shuffled_with_checksums,
    gzip_bomb,
    unknown_filter,
    filter_of_a_plugin,
    compact,
    never_written,
    growing,
    too_long,
    too_short,
    no_rows,
    declared_huge,
    declared_huge_and_empty,
    rows_beyond_64_bits,
    rows_of_62_bits,
    one_more_axis,
    all_32_axes,
    no_axis,
    no_data,
]
