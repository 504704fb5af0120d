"""An entry as one .npz file: plain numpy arrays for notebooks, written shard by shard."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.store.commit import disk_errors, new_file
from pipeline.store.entry import Entry
from pipeline.store.key import SPLITS
from pipeline.store.samples import SampleTable


def export_npz(entry: Entry, path: Path) -> int:
    """Write the usable rows of `entry` to the new file `path`, which `numpy.load` opens. Return its size in bytes.

    Arrays: `features` (n, d), `label` (n,) int64, `split` (n,) text, `id` (n,) text, `image_sha256` (n, 32) uint8,
    `class_names` (c,) text, and `group` (n,) text where the entry has groups.

    Raises:
        UsageError: if `path` exists.
        CacheError: if a file of the entry is damaged, or the disk is full or cannot be written.
    """
    table = entry.read_samples()
    kept = table.usable
    small = {
        "label": table.labels[kept],
        "split": np.array(SPLITS)[table.splits[kept]],
        "id": _texts(table.ids, kept),
        "image_sha256": table.digests[kept],
        "class_names": np.array(entry.classes, dtype=str),
        **({"group": _texts(table.groups, kept)} if table.groups is not None else {}),
    }
    shape = (int(kept.sum()), *entry.space.row_shape)
    with new_file(path) as temporary, disk_errors(path, 0):
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            for name, array in small.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
            with archive.open("features.npy", "w", force_zip64=True) as file:
                descr = np.dtype(entry.space.store_dtype).newbyteorder("<").str
                np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
                for part in _usable_features(entry, table):
                    file.write(np.ascontiguousarray(part).data.cast("B"))
        return temporary.stat().st_size


def _texts(names: Sequence[str], kept: np.ndarray) -> np.ndarray:
    # Names that are not UTF-8 have no text of their own in numpy either: what is wrong in them is spelled out.
    return np.array(
        [name.encode("utf-8", "backslashreplace").decode() for name, keep in zip(names, kept, strict=True) if keep],
        dtype=str,
    )


def _usable_features(entry: Entry, table: SampleTable) -> Iterator[np.ndarray]:
    for first, shard in entry.read_shards(table):
        here = table.usable[first : first + len(shard.status)]
        if here.any():
            yield shard.features if here.all() else shard.features[here]
