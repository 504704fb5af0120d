"""Files with the right SHA-256 and the wrong inside: all must be refused before their data is used, as in `refusals`.

Imports neither torch nor anything else that is slow to start.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from refusals import refused
from works import CLASSES, FRUIT, SPACE

from pipeline.store.columns import LIBVER
from pipeline.store.samples import SampleTable
from pipeline.store.shard import parse_shard


def remade(data: bytes, change: Callable[[h5py.File], None]) -> bytes:
    """Return an HDF5 file with something about it changed."""
    with h5py.File.in_memory(data) as old, h5py.File.in_memory(libver=LIBVER) as file:
        for name, value in old.attrs.items():
            file.attrs[name] = value
        for name in old:
            file.create_dataset(name, data=old[name][:])
        change(file)
        file.flush()
        return bytes(file.id.get_file_image())


def put(name: str, make: Callable[[np.ndarray], Any], **options: Any) -> Callable[[h5py.File], None]:
    """Return the change of a dataset into what `make` makes of its values."""

    def change(file: h5py.File) -> None:
        values = make(file[name][:])
        del file[name]
        file.create_dataset(name, data=values, **options)

    return change


def link(name: str, to: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.move(name, "/inner/there")
        file[name] = to

    return change


def attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


ANY = {
    "a chunked dataset": put("status", lambda a: a, chunks=(1,)),
    "a compressed dataset": put("status", lambda a: a, compression="gzip"),
    "a dataset too short": put("status", lambda a: a[:-1]),
    "a dataset too many": lambda file: file.create_dataset("more", data=np.zeros(3)),
    "a dataset too few": lambda file: file.__delitem__("image_sha256"),
    "digests too short": put("image_sha256", lambda a: a[:, :16]),
    "another dtype": put("image_sha256", lambda a: a.astype(np.int64)),
    "another byte order": put("image_sha256", lambda a: a.astype(">u2")),
    "a scalar": put("status", lambda a: a[0]),
    "a group for a dataset": lambda file: (file.__delitem__("status"), file.create_group("status")),
    "another format": attribute("format", np.bytes_(b"other")),
    "another version": attribute("format_version", np.int64(2)),
    "text of any length": attribute("more", "text"),
    "a float": attribute("more", 1.5),
    "attributes without end": lambda file: [attribute(f"a{n}", np.int64(n))(file) for n in range(40)],
    "a soft link": link("status", h5py.SoftLink("/image_sha256")),
    "a link to another file": link("status", h5py.ExternalLink("other.h5", "/status")),
}
SHARD = {
    "another space": attribute("space_sha256", np.bytes_(b"0" * 64)),
    "doubles": put("features", lambda a: a.astype(np.float64)),
    "wider rows": put("features", lambda a: np.concatenate([a, a], axis=1)),
}
TABLE = {
    "a label too high": put("label", lambda a: a + len(CLASSES)),
    "a label below zero": put("label", lambda a: a - 2),
    "a split that is none": put("split", lambda a: a + 3),
    "a status that is none": put("status", lambda a: a + 2),
    "labels as floats": put("label", lambda a: a.astype(np.float64)),
    "ids as numbers": put("id", lambda a: np.arange(len(a))),
}


def linked(root: Path, data: bytes) -> Callable[[h5py.File], None]:
    """Return the change of a column into a link to an equal one in another file."""
    with h5py.File.in_memory(data) as file, h5py.File(root / "other.h5", "w", libver=LIBVER) as other:
        other["status"] = file["status"][:]
    return lambda file: (
        file.__delitem__("status"),
        file.__setitem__("status", h5py.ExternalLink(str(root / "other.h5"), "/status")),
    )


def wrong_shards(root: Path) -> None:
    data = FRUIT.bytes[0]
    assert len(parse_shard(remade(data, lambda file: None), SPACE, "a shard").status) == 5
    for what, change in {**ANY, **SHARD, "a link to an equal file": linked(root, data)}.items():
        refused(lambda change=change: parse_shard(remade(data, change), SPACE, "a shard"), f"a shard with {what}")


def wrong_tables(root: Path) -> None:
    data = FRUIT.table_bytes
    assert len(SampleTable.from_bytes(remade(data, lambda file: None), len(CLASSES))) == 15
    for what, change in {**ANY, **TABLE}.items():
        wrong = remade(data, change)
        refused(lambda wrong=wrong: SampleTable.from_bytes(wrong, len(CLASSES)), f"a table with {what}")


CHECKS = (wrong_shards, wrong_tables)
