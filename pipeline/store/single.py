"""An entry as one plain HDF5 file, to be opened anywhere or taken to another machine, and back.

The features go from shard to file through the operating system and not through HDF5, which lays the file out and
is closed before: HDF5 crashes on a full disk, and a file this large cannot be built in memory as shards are.
The 512 bytes in front of the HDF5 data (a user block, which HDF5 readers skip) hold the SHA-256 of all that
follows, so that a copy is verified before it is parsed.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import CHUNK_BYTES, is_sealed, sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.columns import LIBVER, inspect, set_attributes
from pipeline.store.commit import disk_errors, new_file, sync_folder, temporary_folder, write_new
from pipeline.store.entry import Entry, open_entry
from pipeline.store.headers import Place
from pipeline.store.key import SHORT, FeatureSpace, entry_id
from pipeline.store.manifest import check_manifest
from pipeline.store.publish import complete_manifest, described, publish_entry
from pipeline.store.samples import COLUMNS as SAMPLE_COLUMNS
from pipeline.store.samples import OPTIONAL, SampleTable
from pipeline.store.shard import ShardRows, shard_bytes
from pipeline.store.skeleton import check_skeleton
from pipeline.store.verify import find_damage
from pipeline.textcolumn import text_bytes

FORMAT, FORMAT_VERSION = "pipeline-export", 1
MAGIC = b"pipeline-export 1\n"
BLOCK = 512
"""Bytes in front of the HDF5 data: MAGIC, the SHA-256 of the rest in hex, a newline, zeros."""
COLUMNS = ("features", *SAMPLE_COLUMNS, "class_names", "manifest", "skipped")
MAX_MANIFEST_BYTES = 256 << 20
HINT = "Copy it again from where it was exported, or export it again."


def export_single(entry: Entry, path: Path) -> int:
    """Write `entry` to the new file `path`. Return its size in bytes.

    It holds `features` (n, d), `label`, `split`, `status`, `image_sha256`, `id`, perhaps `group`, and `class_names`,
    one row a sample as in the entry, and what `import_single` needs: `manifest` and `skipped`, their bytes.

    Raises:
        UsageError: if `path` exists.
        CacheError: if a file of the entry is damaged, or the disk is full or cannot be written.
    """
    table = entry.read_samples()
    manifest = json.dumps(entry.manifest, ensure_ascii=True).encode()
    small = {
        **table.to_columns(),
        "class_names": _class_names(entry.classes),
        "manifest": np.frombuffer(manifest, np.uint8),
        "skipped": np.frombuffer(entry.read_skipped_bytes(), np.uint8),
    }
    shape = (len(table), *entry.space.row_shape)
    dtype = np.dtype(entry.space.store_dtype).newbyteorder("<")
    size = sum(array.nbytes for array in small.values()) + int(np.prod(shape)) * dtype.itemsize
    _check_room(path.parent, size)
    with new_file(path) as temporary:
        columns = {"features": (shape, dtype)} | {name: (array.shape, array.dtype) for name, array in small.items()}
        with disk_errors(path, size):
            places = _lay_out(temporary, columns)
        with _opened(temporary, os.O_RDWR) as file, disk_errors(path, size):
            total = os.fstat(file).st_size
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, total)  # a full disk is found here and not after minutes
            for name, array in small.items():
                _write(file, array, places[name].offset)
            row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
            for first, shard in entry.read_shards(table):
                _write(file, shard.features, places["features"].offset + first * row_bytes)
            os.pwrite(file, (MAGIC + _hash_after_block(file).encode() + b"\n").ljust(BLOCK, b"\0"), 0)
            os.fsync(file)
    return total


def _class_names(classes: Sequence[str]) -> np.ndarray:
    names = [text_bytes(name) for name in classes]
    return np.array(names, dtype=f"S{max([1, *map(len, names)])}")


def _lay_out(path: Path, columns: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, Place]:
    """Make an HDF5 file with room for `columns`; no data is written. Return where each one goes."""
    import h5py

    with h5py.File(path, "w", libver=LIBVER, userblock_size=BLOCK, locking=False) as file:
        set_attributes(file, {"format": FORMAT.encode(), "format_version": np.int64(FORMAT_VERSION)})
        for name, (shape, dtype) in columns.items():
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            plan.set_obj_track_times(False)
            kind, space = h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, name.encode(), kind, space, plan)
    with h5py.File(path, "r", locking=False) as file:
        return inspect(file, tuple(columns), path.stat().st_size, str(path))[1]


def import_single(path: Path, root: Path) -> Entry:
    """Put the entry in an exported file under the cache root `root`, verified: the same id, the same bytes.

    Raises:
        CacheError: if the file is damaged, is no export, or does not give the bytes that its manifest names.
    """
    import h5py

    try:
        with _opened(path, os.O_RDONLY) as descriptor:
            _check_hash(descriptor, path)
            size = os.fstat(descriptor).st_size
            check_skeleton(lambda offset, count: os.pread(descriptor, count, offset), str(path), BLOCK, heaps=True)
            with h5py.File(path, "r") as file:  # locked as others lock it: HDF5 refuses to open a file in two ways
                attributes, places = inspect(file, COLUMNS, size, str(path), OPTIONAL)
            if (attributes.get("format"), attributes.get("format_version")) != (FORMAT, FORMAT_VERSION):
                raise CacheError(f"{path} is not a version {FORMAT_VERSION} {FORMAT} file")
            return _import(descriptor, places, path, root)
    except FileNotFoundError:
        raise CacheError(f"no file {path}", "`pipeline cache export --single FILE.h5` makes one.") from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CacheError(f"{path} cannot be imported: {error}", HINT) from error


def _import(descriptor: int, places: dict[str, Place], path: Path, root: Path) -> Entry:
    manifest = _read_manifest(descriptor, places["manifest"], path)
    space = FeatureSpace.from_json(manifest["space"])
    there = root / manifest["id"][:SHORT]
    with contextlib.suppress(CacheError):
        entry = open_entry(there)
        if entry.manifest["id"] == manifest["id"] and not find_damage(entry):
            sync_folder(root)  # another process may have given the name just now
            return entry
    columns = {name: _read(descriptor, places[name]) for name in (*SAMPLE_COLUMNS, *OPTIONAL) if name in places}
    table = SampleTable.from_columns(columns, len(manifest["classes"]), str(path))
    skipped = _read(descriptor, places["skipped"]).tobytes()
    features = places["features"]
    shape, dtype = (len(table), *space.row_shape), np.dtype(space.store_dtype).newbyteorder("<")
    named = entry_id(space, manifest["classes"], table.ids, table.digests, table.labels, table.splits, table.groups)
    samples = table.to_bytes()
    names, right_names = _read(descriptor, places["class_names"]), _class_names(manifest["classes"])
    wrong = [
        what
        for what, right in {
            "features": (features.shape, features.dtype) == (shape, dtype),
            "space": space.sha256 == manifest["space_sha256"],
            "class names": names.dtype == right_names.dtype and np.array_equal(names, right_names),
            "counts": complete_manifest(manifest, table, described(samples), skipped) == manifest,
            "id": named == manifest["id"],
        }.items()
        if not right
    ]
    if wrong:
        raise CacheError(f"{path} does not hold what its manifest names: {', '.join(wrong)}", HINT)
    _check_room(root, manifest["samples_listed"] * space.row_bytes)
    with temporary_folder(root) as folder, disk_errors(root, 0):
        shards, first = [], 0
        for number, shard in enumerate(manifest["shards"]):
            span = slice(first, first + shard["rows"])
            place = Place((shard["rows"], *space.row_shape), dtype, features.offset + first * space.row_bytes)
            rows = ShardRows(_read(descriptor, place), table.digests[span], table.status[span])
            data = shard_bytes(space, rows)
            if (sha256_bytes(data), len(data)) != (shard["sha256"], shard["bytes"]):
                raise CacheError(
                    f"rows {first:,} to {span.stop:,} of {path} do not give the shard that its manifest names",
                    "It was made by another version of HDF5 or is not whole: copy the entry's folder instead.",
                )
            shards.append(folder / f"{number:05d}.h5")
            write_new(shards[-1], data)
            first = span.stop
        return publish_entry(root, manifest, shards, table, skipped)


def _read_manifest(descriptor: int, place: Place, path: Path) -> dict[str, Any]:
    if place.dtype != np.dtype(np.uint8) or len(place.shape) != 1 or place.shape[0] > MAX_MANIFEST_BYTES:
        raise CacheError(f"{path}: manifest is not text", HINT)
    manifest = json.loads(_read(descriptor, place).tobytes())
    if not isinstance(manifest, dict) or not is_sealed(manifest):
        raise CacheError(f"{path}: its manifest does not match its own SHA-256", HINT)
    check_manifest(manifest, f"{path}: manifest")
    return {name: value for name, value in manifest.items() if name != "sha256"}


def _check_hash(descriptor: int, path: Path) -> None:
    head = os.pread(descriptor, BLOCK, 0)
    if not head.startswith(MAGIC):
        raise CacheError(f"{path} is not a file made by `pipeline cache export --single`", HINT)
    if head != (MAGIC + _hash_after_block(descriptor).encode() + b"\n").ljust(BLOCK, b"\0"):
        raise CacheError(f"{path} is damaged: its bytes do not have the SHA-256 they were exported with", HINT)


def _hash_after_block(descriptor: int) -> str:
    state, at = hashlib.sha256(), BLOCK
    while piece := os.pread(descriptor, CHUNK_BYTES, at):
        state.update(piece)
        at += len(piece)
    return state.hexdigest()


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, array: np.ndarray, offset: int) -> None:
    view = np.ascontiguousarray(array).data.cast("B") if array.nbytes else memoryview(b"")
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _read(descriptor: int, place: Place) -> np.ndarray:
    out = np.empty(place.shape, place.dtype)
    view, offset = out.data.cast("B") if out.nbytes else memoryview(b""), place.offset
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise CacheError("the file ends before its data does", HINT)
        view, offset = view[count:], offset + count
    return out


def _check_room(folder: Path, size: int) -> None:
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), None)
    free = shutil.disk_usage(there).free if there is not None else 0
    if size > free:
        raise CacheError(f"{size:,} bytes are needed in {folder}, {free:,} are free", "Choose another disk.")
