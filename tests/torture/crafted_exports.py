"""Exports made to be imported: the one file that is meant to come from another machine."""

from pathlib import Path

import h5py
import numpy as np
from crafted import Kind
from small_cache import make_entry

from pipeline.digest import sha256_bytes
from pipeline.store.single import BLOCK, MAGIC, export_single, import_single


def export_kind(folder: Path) -> Kind:
    """The columns of an exported entry, and its reader: an import into an empty cache root."""
    exported = folder / "exported.h5"
    entry = make_entry(folder / "cache", [0])
    export_single(entry, exported)
    with h5py.File(exported) as file:
        columns = {name: file[name][()] for name in file}
        attributes = dict(file.attrs)
    names = (folder / f"imported-{number}" for number in range(10_000))

    def parse(data: bytes) -> dict[str, np.ndarray]:
        body = data[BLOCK:]
        path = next(names)
        path.with_suffix(".h5").write_bytes((MAGIC + sha256_bytes(body).encode() + b"\n").ljust(BLOCK, b"\0") + body)
        found = import_single(path.with_suffix(".h5"), path)
        assert found.manifest["id"] == entry.manifest["id"]
        return columns

    return Kind(columns, attributes, parse)
