"""Finished entries: what `extract` made comes back, and what is not as committed is refused by name."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SPACE, make_photos

import pipeline
from pipeline.digest import sha256_bytes, sha256_file
from pipeline.errors import CacheError
from pipeline.store.commit import read_json, write_json
from pipeline.store.entry import Entry, open_entry
from pipeline.store.key import SPLITS, entry_id
from pipeline.store.samples import SampleTable

BAD = "beet/damaged.jpg"


@pytest.fixture(scope="module")
def extracted(tmp_path_factory) -> tuple[Path, Path]:
    """Return a source of 18 images and a broken one, and its entry of three shards."""
    root = tmp_path_factory.mktemp("entry")
    photos = make_photos(root / "photos", per_class=6)
    (photos / BAD).write_bytes(b"no image")
    options = {**SPACE, "batch_size": 4, "shard_rows": 8, "workers": 1, "on_bad_image": "skip"}
    result = pipeline.extract(str(photos), cache_dir=root / "cache", **options)
    return photos, Path(result.path)


@pytest.fixture
def entry(extracted, tmp_path) -> Entry:
    """Return a copy of the entry that a test may damage."""
    shutil.copytree(extracted[1], tmp_path / "entry")
    return open_entry(tmp_path / "entry")


def overwrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def test_an_entry_says_what_was_extracted(extracted):
    entry = open_entry(extracted[1])
    assert entry.path.name == entry.id == entry.manifest["id"][:16]
    assert entry.classes == ("apple", "beet", "corn")
    assert entry.rows == 18
    assert [shard["rows"] for shard in entry.shards] == [8, 8, 3]
    assert entry.digest == read_json(entry.path / "entry.json")["sha256"]
    assert entry.space.row_shape == (1024,)
    assert entry.manifest["space_sha256"] == entry.space.sha256
    files = sorted(str(path.relative_to(entry.path)) for path in entry.path.rglob("*") if path.is_file())
    assert files == ["entry.json", "samples.h5", *(f"shards/0000{n}.h5" for n in range(3)), "skipped.csv"]


def test_the_sample_table_is_the_source(extracted):
    photos, path = extracted
    table = open_entry(path).read_samples()
    assert sorted(table.ids) == sorted(str(file.relative_to(photos)) for file in photos.rglob("*.jpg"))
    for sample_id, digest, status in zip(table.ids, table.digests, table.status, strict=True):
        assert status == (sample_id == BAD)
        assert digest.tobytes().hex() == sha256_file(photos / sample_id)
    assert [open_entry(path).classes[label] for label in table.labels] == [name.split("/")[0] for name in table.ids]
    assert all(0 <= split < len(SPLITS) for split in table.splits)


def test_shards_lie_in_the_order_of_the_sample_table(extracted):
    entry = open_entry(extracted[1])
    table = entry.read_samples()
    covered = 0
    for first, rows in entry.read_shards():
        span = slice(first, first + len(rows.status))
        assert first == covered
        covered = span.stop
        assert (rows.digests == table.digests[span]).all()
        assert (rows.status == table.status[span]).all()
        bad = rows.status == 1
        assert not rows.features[bad].any()
        assert rows.features[~bad].any(axis=1).all()
    assert covered == 19


def test_reading_shards_ahead_gives_what_reading_each_gives(extracted):
    entry = open_entry(extracted[1])
    read = [rows.features.tobytes() for _, rows in entry.read_shards()]
    assert read == [entry.read_shard(number).features.tobytes() for number in range(3)]


def test_the_ledger_names_the_unusable_image(extracted):
    (line,) = open_entry(extracted[1]).skipped()
    assert line["id"] == BAD
    assert line["reason"]


def test_an_entry_can_be_moved(entry):
    moved = entry.path.rename(entry.path.with_name("elsewhere"))
    assert sum(len(rows.status) for _, rows in open_entry(moved).read_shards()) == 19


def test_where_there_is_no_entry_it_is_said(tmp_path):
    with pytest.raises(CacheError, match="no cache entry at") as caught:
        open_entry(tmp_path / "nothing")
    assert "pipeline cache ls" in caught.value.hint
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="file"):
        open_entry(tmp_path / "file")


def test_a_changed_byte_of_the_manifest_is_seen(entry):
    path = entry.path / "entry.json"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    path.unlink()
    for place in rng.integers(0, len(data), 200).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])
        with pytest.raises(CacheError, match=r"entry\.json"):
            open_entry(entry.path)


def test_a_manifest_cut_short_is_seen(entry):
    path = entry.path / "entry.json"
    data = path.read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 1):
        overwrite(path, data[:length])
        with pytest.raises(CacheError, match=r"entry\.json"):
            open_entry(entry.path)


@pytest.mark.parametrize("change", [{"format_version": 2}, {"format_version": "1"}, {"format": "pipeline-plan"}])
def test_an_entry_of_another_format_is_refused(entry, change):
    body = {key: value for key, value in entry.manifest.items() if key != "sha256"}
    write_json(entry.path / "entry.json", {**body, **change}, replace=True)
    with pytest.raises(CacheError, match="this package reads 'pipeline-entry' version 1"):
        open_entry(entry.path)


def test_a_changed_byte_of_the_sample_table_is_seen(entry):
    path = entry.path / "samples.h5"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    path.unlink()
    for place in rng.integers(0, len(data), 100).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])
        with pytest.raises(CacheError, match=r"samples\.h5 is damaged"):
            entry.read_samples()


def test_a_missing_sample_table_is_named(entry):
    (entry.path / "samples.h5").unlink()
    with pytest.raises(CacheError, match=r"samples\.h5 is missing"):
        entry.read_samples()


def test_a_sample_table_that_cannot_be_read_is_named(entry):
    (entry.path / "samples.h5").unlink()
    (entry.path / "samples.h5").mkdir()
    with pytest.raises(CacheError, match=r"samples\.h5"):
        entry.read_samples()


def test_a_sample_table_of_another_entry_is_refused_even_with_its_digest_in_the_manifest(entry):
    table = entry.read_samples()
    labels = table.labels.copy()
    labels[0] = 2
    data = SampleTable(table.ids, table.digests, labels, table.splits, table.status).to_bytes()
    overwrite(entry.path / "samples.h5", data)
    body = {key: value for key, value in entry.manifest.items() if key != "sha256"}
    body["samples"] = {"sha256": sha256_bytes(data), "bytes": len(data)}
    write_json(entry.path / "entry.json", body, replace=True)
    with pytest.raises(CacheError, match="does not belong to entry"):
        open_entry(entry.path).read_samples()


def test_the_id_is_the_digest_of_the_content(extracted):
    entry = open_entry(extracted[1])
    table = entry.read_samples()
    found = entry_id(entry.space, entry.classes, table.ids, table.digests, table.labels, table.splits)
    assert found == entry.manifest["id"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_damaged_shard_is_named_and_the_others_are_read(entry, number):
    path = entry.shard_path(number)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    overwrite(path, bytes(data))
    with pytest.raises(CacheError, match=rf"0000{number}\.h5 is damaged"):
        list(entry.read_shards())
    assert path.exists()
    for other in {0, 1, 2} - {number}:
        entry.read_shard(other)


def test_shards_that_changed_places_are_seen(entry):
    one, two = entry.shard_path(0), entry.shard_path(1)
    first, second = one.read_bytes(), two.read_bytes()
    overwrite(one, second)
    overwrite(two, first)
    with pytest.raises(CacheError, match=r"00000\.h5 is damaged"):
        list(entry.read_shards())


def test_a_missing_shard_is_named(entry):
    entry.shard_path(1).unlink()
    with pytest.raises(CacheError, match=r"00001\.h5 is missing"):
        list(entry.read_shards())


def test_plain_h5py_and_json_can_read_an_entry(extracted):
    _, path = extracted
    manifest = json.loads((path / "entry.json").read_bytes())
    with h5py.File(path / "samples.h5", "r") as file:
        assert file["split"].shape == (manifest["samples_listed"],)
        assert [name.decode() for name in file.attrs["split_names"]] == list(SPLITS)
    with h5py.File(path / "shards" / "00000.h5", "r") as file:
        assert file["features"].shape == (8, 1024)


@pytest.mark.parametrize("damage", [b"id,reason\n", None], ids=["changed", "missing"])
def test_a_damaged_ledger_is_refused(entry, damage):
    (entry.path / "skipped.csv").unlink()
    if damage is not None:
        (entry.path / "skipped.csv").write_bytes(damage)
    with pytest.raises(CacheError, match=r"skipped\.csv"):
        entry.skipped()
