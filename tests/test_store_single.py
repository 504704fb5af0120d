"""An entry as one file: the same bytes after a journey, readable by anyone, refused if anything in it is other."""

import errno
import json
import os
import resource
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import make_manifest
from entries import CLASSES, ROWS, SPACE, everything, flip, make_entry, make_rows, overwrite

import pipeline
from pipeline.digest import seal, sha256_bytes
from pipeline.errors import CacheError, UsageError
from pipeline.store.catalog import list_entries
from pipeline.store.columns import LIBVER
from pipeline.store.commit import write_json
from pipeline.store.entry import Entry, open_entry
from pipeline.store.key import entry_id
from pipeline.store.single import BLOCK, COLUMNS, MAGIC, export_single, import_single
from pipeline.store.verify import find_damage

NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")
ODD = {
    "ids": ["grüße/日本.png", f"{NOT_UTF8}.jpg", 'a b,"c"\n.jpg', "\\udce9", "x" * 300, *map(str, range(5, ROWS))],
    "classes": ("Äpfel", NOT_UTF8, "beet"),
    "bad": {3, 8, 9, 10, 11, 12, 13, 14, 15, 19},  # all of the second shard among them
}


@pytest.fixture(scope="module")
def entry(tmp_path_factory) -> Entry:
    """An entry of three shards with odd names and images that could not be used. Do not change it."""
    return make_entry(tmp_path_factory.mktemp("single") / "cache", **ODD)


@pytest.fixture(scope="module")
def exported(entry, tmp_path_factory) -> Path:
    """It as one file. Do not change it."""
    path = tmp_path_factory.mktemp("exported") / "entry.h5"
    export_single(entry, path)
    return path


def failing(code: int, after: int = 0) -> Callable:
    """A system call that fails, from the `after`-th on."""
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(code, os.strerror(code))
        return fail.real(*arguments, **options)

    fail.calls = calls
    return fail


def assert_nothing_in(root: Path) -> None:
    assert not root.exists() or list(root.iterdir()) == []


# --- there and back ---


@pytest.mark.parametrize("odd", [{}, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("row_shape", [(4,), (2, 3, 3)], ids=["head", "cut"])
@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
def test_an_entry_comes_back_with_the_same_id_and_every_file_the_same_bytes(tmp_path, store_dtype, row_shape, odd):
    space = replace(SPACE, store_dtype=store_dtype, row_shape=row_shape)
    made = make_entry(tmp_path / "here", space=space, versions={"torch": "2.1"}, rounding={"rows": 3, "é": 0.25}, **odd)
    assert len(made.shards) == 3
    assert export_single(made, tmp_path / "entry.h5") == (tmp_path / "entry.h5").stat().st_size
    back = import_single(tmp_path / "entry.h5", tmp_path / "there")
    assert (back.manifest, back.digest, back.path) == (made.manifest, made.digest, tmp_path / "there" / made.id)
    assert everything(tmp_path / "there") == everything(tmp_path / "here")
    assert find_damage(back) == []


def test_equal_entries_give_equal_files(entry, exported, tmp_path):
    export_single(entry, tmp_path / "new" / "folder" / "entry.h5")
    assert (tmp_path / "new" / "folder" / "entry.h5").read_bytes() == exported.read_bytes()
    again = import_single(exported, tmp_path / "cache")
    export_single(again, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == exported.read_bytes()


def test_no_time_is_written_into_it(exported):
    with h5py.File(exported, "r") as file:
        assert not any(file[name].id.get_create_plist().get_obj_track_times() for name in file)


def test_plain_h5py_reads_it(entry, exported):
    rows = make_rows(range(ROWS), ODD["bad"])
    with h5py.File(exported, "r") as file:
        assert sorted(file) == sorted(COLUMNS)
        assert (file["features"][:] == rows.features).all()
        assert (file["image_sha256"][:] == rows.digests).all()
        assert (file["status"][:] == rows.status).all()
        assert [value.decode("utf-8", "surrogateescape") for value in file["id"][:]] == ODD["ids"]
        names = [value.decode("utf-8", "surrogateescape") for value in file["class_names"][:]]
        assert [names[label] for label in file["label"][:]] == [ODD["classes"][row % 3] for row in range(ROWS)]
        assert file["split"][:].tolist() == [2 * (row % 5 == 4) for row in range(ROWS)]
        assert json.loads(file["manifest"][:].tobytes()) == entry.manifest
        assert file["skipped"][:].tobytes() == (entry.path / "skipped.csv").read_bytes()


def test_what_is_imported_trains_a_head(exported, tmp_path):
    made = import_single(exported, tmp_path / "cache")
    features = pipeline.open_cache(made.id, cache_dir=tmp_path / "cache")
    assert (len(features), features.classes) == (ROWS - len(ODD["bad"]), ODD["classes"])
    run = pipeline.train_head(made.id, cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs", epochs=2)
    assert run.head.classes == ODD["classes"]


# --- what is in the way of an export ---


@pytest.mark.parametrize("make", [lambda p: p.write_bytes(b"mine"), lambda p: p.symlink_to("gone"), Path.mkdir])
def test_what_is_there_already_is_not_replaced(entry, tmp_path, make):
    path = tmp_path / "entry.h5"
    make(path)
    before = path.lstat()
    with pytest.raises(UsageError, match=r"entry\.h5 exists"):
        export_single(entry, path)
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["samples.h5", "skipped.csv", "shards/00001.h5"])
def test_a_damaged_entry_is_not_exported(entry, tmp_path, name):
    copy = open_entry(Path(shutil.copytree(entry.path, tmp_path / entry.id)))
    flip(copy.path / name, 20)
    (tmp_path / "out").mkdir()
    with pytest.raises(CacheError, match=f"{Path(name).name} is damaged"):
        export_single(copy, tmp_path / "out" / "entry.h5")
    assert list((tmp_path / "out").iterdir()) == []


def test_shards_that_are_not_those_of_the_sample_table_are_not_exported(tmp_path):
    made = make_entry(tmp_path / "cache")
    one, two = (made.shard_path(number).read_bytes() for number in (0, 1))
    overwrite(made.shard_path(0), two)
    overwrite(made.shard_path(1), one)
    body = {name: value for name, value in made.manifest.items() if name != "sha256"}
    body["shards"] = [body["shards"][1], body["shards"][0], body["shards"][2]]
    write_json(made.path / "entry.json", body, replace=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(CacheError, match=r"sample table"):
        export_single(open_entry(made.path), tmp_path / "out" / "entry.h5")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("after", [0, 1, 5, 10])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_under_an_export_leaves_nothing_behind(entry, tmp_path, monkeypatch, code, after):
    fail = failing(code, after)
    fail.real = os.pwrite
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(CacheError, match=r"disk is full.*entry\.h5"):
        export_single(entry, tmp_path / "entry.h5")
    assert len(fail.calls) == after + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("calls", "code", "said"),
    [
        (["posix_fallocate"], errno.ENOSPC, "disk is full"),
        (["fsync"], errno.EIO, "cannot write"),
        (["rename", "link"], errno.EIO, "cannot write"),
        (["pwrite"], errno.EIO, "cannot write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_disk_that_fails_under_an_export_leaves_nothing_behind(entry, tmp_path, monkeypatch, calls, code, said):
    for call in calls:
        monkeypatch.setattr(os, call, failing(code), raising=False)
    with pytest.raises(CacheError, match=said):
        export_single(entry, tmp_path / "entry.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [100, 1000, 4096])
def test_a_file_larger_than_may_be_is_one_clear_line_and_leaves_nothing_behind(entry, tmp_path, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # as FAT, which ends at 4 GB
    try:
        with pytest.raises(CacheError, match=r"cannot write .*entry\.h5") as caught:
            export_single(entry, tmp_path / "entry.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_disk_known_to_be_too_small_is_said_before_anything_is_written(entry, exported, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(CacheError, match=r"bytes are needed in .*, 100 are free"):
        export_single(entry, tmp_path / "entry.h5")
    with pytest.raises(CacheError, match=r"bytes are needed in .*, 100 are free"):
        import_single(exported, tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_an_export_to_where_no_file_can_be_is_one_clear_line(entry, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "entry.h5", tmp_path / ("x" * 300), Path("/proc/entry.h5")):
        with pytest.raises((CacheError, UsageError)):
            export_single(entry, path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- what import refuses ---


def test_any_changed_byte_is_refused(exported, tmp_path):
    data, path = exported.read_bytes(), tmp_path / "entry.h5"
    rng = np.random.default_rng(0)
    places = [0, len(MAGIC), BLOCK - 1, BLOCK, len(data) - 1, *rng.integers(0, len(data), 280), *range(0, BLOCK, 30)]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])
        with pytest.raises(CacheError, match=r"entry\.h5 is (damaged|not a file made by)"):
            import_single(path, tmp_path / "cache")
    assert_nothing_in(tmp_path / "cache")


def test_a_file_cut_short_or_made_longer_is_refused(exported, tmp_path):
    data, path = exported.read_bytes(), tmp_path / "entry.h5"
    lengths = [0, 1, len(MAGIC), BLOCK - 1, BLOCK, BLOCK + 1, *range(0, len(data), 97), len(data) - 1]
    for other in [*(data[:length] for length in lengths), data + b"\0", data + data, b"\0" + data, data[BLOCK:]]:
        path.write_bytes(other)
        with pytest.raises(CacheError, match=r"entry\.h5 is (damaged|not a file made by)"):
            import_single(path, tmp_path / "cache")
    assert_nothing_in(tmp_path / "cache")


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "pipe", "empty", "text", "shard", "samples", "manifest", "other"]
)
def test_what_is_no_export_is_refused(entry, tmp_path, kind):
    path = tmp_path / "entry.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "other":
        with h5py.File(path, "w", userblock_size=BLOCK) as file:
            file["features"] = np.zeros((4, 4))
    elif kind != "missing":
        files = {"shard": "shards/00000.h5", "samples": "samples.h5", "manifest": "entry.json"}
        path.write_bytes(
            {"empty": b"", "text": MAGIC}.get(kind) or (entry.path / files.get(kind, "samples.h5")).read_bytes()
        )
    with pytest.raises(CacheError, match=r"entry\.h5") as caught:
        import_single(path, tmp_path / "cache")
    assert "export" in caught.value.message + caught.value.hint
    assert_nothing_in(tmp_path / "cache")


def craft(
    exported: Path, path: Path, change: Callable[[h5py.File, dict[str, Any]], None] | None = None, **options
) -> Path:
    """An export that somebody else wrote, with a right hash: `change` takes columns out and writes its own."""
    with h5py.File(exported, "r") as file:
        columns = {name: file[name][:] for name in file}
        attributes = dict(file.attrs)
    with h5py.File(path, "w", **{"libver": LIBVER, "userblock_size": BLOCK, **options}) as file:
        file.attrs.update(attributes)
        if change is not None:
            change(file, columns)
        for name, array in columns.items():
            file[name] = array
    data = path.read_bytes()[BLOCK:]
    path.write_bytes((MAGIC + sha256_bytes(data).encode() + b"\n").ljust(BLOCK, b"\0") + data)
    return path


def test_an_export_that_h5py_wrote_anew_is_as_good(entry, exported, tmp_path):
    back = import_single(craft(exported, tmp_path / "entry.h5"), tmp_path / "cache")
    assert everything(back.path) == everything(entry.path)


def exchange(name: str, one: int, two: int) -> Callable:
    def change(file, columns):
        columns[name][[one, two]] = columns[name][[two, one]]

    return change


def put(name: str, place: Any, value: Any) -> Callable:
    def change(file, columns):
        columns[name][place] = value

    return change


def convert(name: str, to: Callable) -> Callable:
    def change(file, columns):
        columns[name] = to(columns[name])

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("label", 0, 1),
        put("label", 0, 3),
        put("label", 0, -1),
        exchange("label", 0, 1),
        exchange("features", 0, 1),
        put("features", (2, 3), 0.5),
        put("features", (0, 0), np.nan),
        exchange("id", 5, 6),
        put("id", 5, b"other"),
        put("split", 0, 1),
        put("split", 0, 9),
        put("status", 3, 0),
        put("status", 0, 1),
        put("image_sha256", (0, 0), 7),
        exchange("image_sha256", 0, 1),
        put("class_names", 2, b"corn"),
        convert("class_names", lambda names: names[:2]),
        convert("skipped", lambda data: np.frombuffer(data.tobytes() + b"0000.jpg,gone\n", np.uint8)),
        convert("skipped", lambda data: data[:-1]),
        convert("features", lambda x: x.astype("f8")),
        convert("features", lambda x: x.astype(">f4")),
        convert("features", lambda x: x.astype("f2")),
        convert("features", lambda x: x[:, :3]),
        convert("features", lambda x: x[:-1]),
        convert("features", lambda x: np.concatenate([x, x])),
        convert("features", lambda x: x.reshape(-1)),
        convert("label", lambda x: x.astype("i4")),
        convert("label", lambda x: x[:-1]),
        convert("id", lambda x: x[:, None]),
        convert("manifest", lambda x: x[:-1]),
        convert("manifest", lambda x: x.astype("i8")),
        convert("manifest", lambda x: x[None]),
        convert("manifest", lambda x: np.frombuffer(b"[" * 100_000, np.uint8)),
        convert("manifest", lambda x: np.frombuffer(b"null", np.uint8)),
        convert("manifest", lambda x: np.frombuffer(x.tobytes().replace(b"2026", b"2027"), np.uint8)),
    ],
    ids=lambda change: f"{change.__qualname__.split('.')[0]} {change.__closure__[0].cell_contents}",
)
def test_other_content_under_a_right_hash_is_refused(exported, tmp_path, change):
    path = craft(exported, tmp_path / "entry.h5", change)
    with pytest.raises(CacheError):
        import_single(path, tmp_path / "cache")
    assert_nothing_in(tmp_path / "cache")


def manifests(**changes) -> Callable:
    """Another manifest, sealed."""

    def change(file, columns):
        body = json.loads(columns["manifest"].tobytes())
        for name, value in changes.items():
            body[name] = value(body) if callable(value) else value
        columns["manifest"] = np.frombuffer(json.dumps(seal(body)).encode(), np.uint8)

    return change


OTHER_SPACE = replace(SPACE, weights="1" * 64)


def other_id(body: dict) -> str:
    rows = make_rows(range(ROWS), ODD["bad"])
    splits, labels = (np.arange(ROWS) % 5 == 4) * 2, np.arange(ROWS) % 3
    return entry_id(OTHER_SPACE, body["classes"], ODD["ids"], rows.digests, labels, splits)


def first_shard(**changes) -> Callable:
    return lambda body: [{**body["shards"][0], **changes}, *body["shards"][1:]]


@pytest.mark.parametrize(
    "changes",
    [
        {"space": OTHER_SPACE.to_json()},
        {"space": OTHER_SPACE.to_json(), "space_sha256": OTHER_SPACE.sha256},
        {"space": OTHER_SPACE.to_json(), "space_sha256": OTHER_SPACE.sha256, "id": other_id},
        {"space": {**SPACE.to_json(), "new": 1}},
        {"space": {**SPACE.to_json(), "store_dtype": "object"}},
        {"space": {**SPACE.to_json(), "store_dtype": "nonsense"}},
        {"space": {**SPACE.to_json(), "row_shape": [2**62, 4]}},
        {"space": {**SPACE.to_json(), "row_shape": [-4]}},
        {"space": {**SPACE.to_json(), "row_shape": ["4"]}},
        {"space": {**SPACE.to_json(), "row_shape": None}},
        {"id": "0" * 64},
        {"id": "../../../../etc/passwd"},
        {"classes": CLASSES},
        {"classes": list(ODD["classes"][:2])},
        {"rows": 3},
        {"splits": {"train": 1}},
        {"skipped": lambda body: {**body["skipped"], "count": 1}},
        {"skipped": lambda body: {**body["skipped"], "sha256": "0" * 64}},
        {"samples": lambda body: {**body["samples"], "bytes": 7}},
        {"samples": lambda body: {**body["samples"], "sha256": "0" * 64}},
        {"shards": first_shard(sha256="0" * 64)},
        {"shards": first_shard(bytes=7)},
        {"shards": first_shard(rows=7)},
        {"shards": lambda body: body["shards"][:2]},
        {"shards": lambda body: [body["shards"][1], body["shards"][0], body["shards"][2]]},
        {"shards": [], "samples_listed": 0, "rows": 0},
        {"format": "pipeline-run"},
        {"format_version": 2},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_a_manifest_that_names_something_else_is_refused(exported, tmp_path, changes):
    path = craft(exported, tmp_path / "entry.h5", manifests(**changes))
    with pytest.raises(CacheError):
        import_single(path, tmp_path / "cache")
    assert_nothing_in(tmp_path / "cache")


def test_a_whole_manifest_of_an_empty_entry_is_refused(exported, tmp_path):
    def change(file, columns):
        columns["manifest"] = np.frombuffer(json.dumps(seal(make_manifest())).encode(), np.uint8)

    with pytest.raises(CacheError):
        import_single(craft(exported, tmp_path / "entry.h5", change), tmp_path / "cache")
    assert_nothing_in(tmp_path / "cache")


def extra_dataset(file, columns):
    file["more"] = np.zeros(3)


def extra_group(file, columns):
    file.create_group("more")


def missing_dataset(file, columns):
    del columns["status"]


def group_in_place(file, columns):
    del columns["features"]
    file.create_group("features")


def soft_link(file, columns):
    file["more"] = columns.pop("features")
    file["features"] = h5py.SoftLink("/more")


def external_link(file, columns):
    columns.pop("features")
    file["features"] = h5py.ExternalLink("secret.h5", "/features")


def external_storage(file, columns):
    features = columns.pop("features")
    file.create_dataset("features", features.shape, features.dtype, external=[("secret.raw", 0, features.nbytes)])


def virtual(file, columns):
    features = columns.pop("features")
    layout = h5py.VirtualLayout(features.shape, features.dtype)
    layout[:] = h5py.VirtualSource("secret.h5", "features", features.shape, features.dtype)
    file.create_virtual_dataset("features", layout)


def chunked(file, columns):
    file.create_dataset("features", data=columns.pop("features"), chunks=(4, 4))


def compressed(file, columns):
    file.create_dataset("features", data=columns.pop("features"), compression="gzip")


def variable_text(file, columns):
    columns["id"] = np.array([str(row) for row in range(ROWS)], h5py.string_dtype())


def compound(file, columns):
    columns["status"] = columns["status"].view([("a", "u1")])


def scalar(file, columns):
    columns["status"] = np.uint8(0)


def huge(file, columns):
    features = columns.pop("features")
    file.create_dataset("features", (1 << 40, *features.shape[1:]), features.dtype)


def huge_manifest(file, columns):
    columns.pop("manifest")
    file.create_dataset("manifest", (1 << 45,), "u1")


def same_place(file, columns):
    file["features"] = columns.pop("features")
    file["more"] = file["features"]


def attributes(**changes) -> Callable:
    def change(file, columns):
        file.attrs.update(changes)

    return change


@pytest.mark.parametrize(
    "change",
    [
        *[extra_dataset, extra_group, missing_dataset, group_in_place, soft_link, external_link, external_storage],
        *[virtual, chunked, compressed, variable_text, compound, scalar, huge, huge_manifest, same_place],
        attributes(format="pipeline-export"),
        attributes(format=np.bytes_(b"pipeline-shard")),
        attributes(format_version=2),
        attributes(format_version=np.zeros(20_000)),
        attributes(**{f"a{number}": number for number in range(40)}),
    ],
    ids=lambda change: change.__name__,
)
def test_another_structure_under_a_right_hash_is_refused_unread(exported, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported, "secret.h5")
    Path("secret.raw").write_bytes(make_rows(range(ROWS), ODD["bad"]).features.tobytes())
    path = craft(exported, tmp_path / "entry.h5", change)
    with pytest.raises(CacheError):
        import_single(path, tmp_path / "cache")
    assert_nothing_in(tmp_path / "cache")


@pytest.mark.parametrize("options", [{"userblock_size": 1024}, {"libver": "earliest"}], ids=str)
def test_another_layout_of_the_same_content_is_imported_right_or_refused(entry, exported, tmp_path, options):
    path = craft(exported, tmp_path / "entry.h5", **options)
    try:
        assert everything(import_single(path, tmp_path / "cache").path) == everything(entry.path)
    except CacheError:
        assert_nothing_in(tmp_path / "cache")


# --- what is there when an import comes ---


def identities(folder: Path) -> dict[Path, tuple[int, int]]:
    """Which files these are, whatever is in them."""
    return {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_an_entry_that_another_process_imports_meanwhile_stays_for_its_readers(exported, tmp_path, monkeypatch):
    write, there = os.write, []

    def meanwhile(descriptor, data):
        if not there:
            there.append(None)
            there[0] = import_single(exported, tmp_path / "cache").path
            there.append(identities(there[0]))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", meanwhile)
    assert import_single(exported, tmp_path / "cache").path == there[0]
    assert identities(there[0]) == there[1]


def test_an_entry_that_is_there_and_whole_stays_as_it_is(entry, exported, tmp_path):
    there = Path(shutil.copytree(entry.path, tmp_path / "cache" / entry.id))
    before = identities(there)
    assert import_single(exported, tmp_path / "cache").digest == entry.digest
    assert identities(there) == before
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [entry.id]


def remove_manifest(path):
    (path / "entry.json").unlink()


def file_in_place(path):
    shutil.rmtree(path)
    path.write_bytes(b"text")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path / "shards" / "00001.h5"),
        lambda path: flip(path / "samples.h5"),
        lambda path: flip(path / "skipped.csv", 3),
        lambda path: flip(path / "entry.json"),
        lambda path: shutil.rmtree(path / "shards"),
        remove_manifest,
        file_in_place,
    ],
    ids=["shard", "samples", "ledger", "manifest", "no shards", "no manifest", "a file"],
)
def test_an_entry_that_is_there_and_damaged_is_made_whole(entry, exported, tmp_path, damage):
    there = Path(shutil.copytree(entry.path, tmp_path / "cache" / entry.id))
    other = make_entry(tmp_path / "cache", seeds=range(50, 60))
    damage(there)
    before = everything(other.path)
    back = import_single(exported, tmp_path / "cache")
    assert (back.path, back.digest, find_damage(back)) == (there, entry.digest, [])
    assert everything(there) == everything(entry.path)
    assert everything(other.path) == before
    hidden = [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]
    assert hidden == []


@pytest.mark.parametrize("after", range(0, 6))
@pytest.mark.parametrize("call", ["write", "fsync", "link", "mkdir"])
def test_a_disk_that_fills_up_under_an_import_leaves_nothing_behind(exported, tmp_path, monkeypatch, call, after):
    (tmp_path / "cache").mkdir()
    fail = failing(errno.ENOSPC, after)
    fail.real = getattr(os, call)
    monkeypatch.setattr(os, call, fail)
    try:
        import_single(exported, tmp_path / "cache")
    except CacheError as error:
        assert "disk is full" in error.message
        assert_nothing_in(tmp_path / "cache")
    assert (len(fail.calls) > after) == (list(list_entries(tmp_path / "cache")) == [])


def test_imports_at_the_same_time_all_give_the_entry(entry, exported, tmp_path):
    for turn in range(10):
        barrier, found = threading.Barrier(3), []

        def take(root: Path, barrier=barrier, found=found) -> None:
            barrier.wait()
            try:
                found.append(import_single(exported, root).digest)
            except CacheError as error:
                found.append(error.message)

        threads = [threading.Thread(target=take, args=(tmp_path / f"{turn}",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [entry.digest] * 3
        assert [path.name for path in (tmp_path / f"{turn}").iterdir()] == [entry.id]


def test_a_root_that_cannot_be_is_one_clear_line(exported, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(CacheError):
            import_single(exported, root)
