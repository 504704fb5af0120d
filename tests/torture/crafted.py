"""Shards and sample tables as somebody else's program writes them, whole or with one column made differently."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s
from small_cache import CLASSES, SPACE, make_rows, make_table

from pipeline.store.columns import LIBVER
from pipeline.store.key import SPLITS
from pipeline.store.samples import SampleTable
from pipeline.store.shard import parse_shard

Maker = Callable[[h5py.File, str, np.ndarray], None]
"""Puts something under a name that is not the array as plain data in the file."""
GUARDED = "guarded"


@dataclass(frozen=True)
class Kind:
    """A kind of file: its columns and attributes as they should be, and its reader."""

    columns: dict[str, np.ndarray]
    attributes: dict[str, Any]
    parse: Callable[[bytes], dict[str, np.ndarray]]


def _parse_shard(data: bytes) -> dict[str, np.ndarray]:
    rows = parse_shard(data, SPACE, "crafted")
    return {"features": rows.features, "image_sha256": rows.digests, "status": rows.status}


def _parse_samples(data: bytes) -> dict[str, np.ndarray]:
    return SampleTable.from_bytes(data, len(CLASSES), "crafted").to_columns()


_ROWS = make_rows()
SHARD = Kind(
    {"features": _ROWS.features, "image_sha256": _ROWS.digests, "status": _ROWS.status},
    {
        "format": np.bytes_(b"pipeline-shard"),
        "format_version": np.int64(1),
        "space_sha256": np.bytes_(SPACE.sha256),
    },
    _parse_shard,
)
SAMPLES = Kind(
    make_table([_ROWS]).to_columns(),
    {
        "format": np.bytes_(b"pipeline-samples"),
        "format_version": np.int64(1),
        "split_names": np.array(SPLITS, "S"),
    },
    _parse_samples,
)
KINDS = {"shard": SHARD, "samples": SAMPLES}


def crafted(
    folder: Path,
    kind: Kind,
    change: Callable[[h5py.File], None] | None = None,
    *,
    skip: str = "",
    libver: Any = LIBVER,
    **options: Any,
) -> bytes:
    """Write a file with h5py, leaving the column `skip` to `change(file)`; return its bytes."""
    path = folder / "crafted.h5"
    with h5py.File(path, "w", libver=libver, **options) as file:
        file.attrs.update(kind.attributes)
        for name, array in kind.columns.items():
            if name != skip:
                file.create_dataset(name, data=array)
        if change:
            change(file)
    return path.read_bytes()


def guarded(folder: Path) -> Path:
    """Make the folder that crafted files point to: bytes, and an HDF5 file with all columns."""
    place = folder / GUARDED
    (place / "plugins").mkdir(parents=True)
    (place / "secret").write_bytes(bytes(4096))
    with h5py.File(place / "source.h5", "w") as file:
        for kind in KINDS.values():
            for name, array in kind.columns.items():
                if name not in file:
                    file[name] = array
    return place


def beside(file: h5py.File, name: str) -> Path:
    return Path(file.filename).with_name(GUARDED) / name


def low_level(file, name, kind, shape, plan=None):
    """Make a dataset that h5py's own interface would not."""
    return h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), plan)


def plan_for(shape: tuple[int, ...] = ()) -> Any:
    """How to make a dataset: chunked if a shape is given."""
    plan = h5p.create(h5p.DATASET_CREATE)
    if shape:
        plan.set_chunk(shape)
    return plan
