"""Every byte checked; made whole with the very bytes that were committed, or left as it is with a way out."""

import errno
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE, make_image, make_photos
from entries import PREPROCESS, everything, flip, make_entry, overwrite, tamper
from entries import SPACE as TINY

import pipeline
from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError, DataError
from pipeline.store.commit import write_json
from pipeline.store.entry import Entry, open_entry
from pipeline.store.shard import ShardRows, shard_bytes
from pipeline.store.verify import find_damage
from pipeline.verification import Images, Verified, verify

JOB = {**SPACE, "batch_size": 4, "shard_rows": 8, "workers": 1, "on_bad_image": "skip"}
WEIGHTS = Path(pipeline.__file__).parent / "data" / "shufflenet_v2_x0_5-cifar10.safetensors"


@dataclass
class Cache:
    """A cache with an entry of three shards, one image unusable, and one that shares its first shard."""

    root: Path
    photos: Path
    id: str
    other: str

    @property
    def entry(self) -> Entry:
        return open_entry(self.root / self.id)

    def shard(self, number: int) -> Path:
        return self.root / self.id / "shards" / f"{number:05d}.h5"

    def twin(self) -> Path:
        return self.root / self.other / "shards" / "00000.h5"

    def verify(self, **options) -> Verified:
        images = Images(str(self.photos), workers=1)
        return verify(self.root / self.id, **{"images": images, **options})

    def quarantine(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.root / "quarantine").glob("*")) if path.is_file()]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Cache:
    root = tmp_path_factory.mktemp("verification")
    photos = make_photos(root / "photos", per_class=7)
    (photos / "corn" / "00.jpg").write_bytes(b"")
    entry = pipeline.extract(str(photos), cache_dir=root / "cache", command="pipeline extract photos", **JOB)
    first = shutil.copytree(photos, root / "first", ignore=shutil.ignore_patterns("corn", "0[2-9].jpg"))
    for path in sorted((photos / "apple").glob("0[2-6].jpg")):
        shutil.copy(path, first / "apple")
    other = pipeline.extract(str(first), cache_dir=root / "cache", **JOB)
    return Cache(root / "cache", photos, entry.cache, other.cache)


@pytest.fixture
def cache(made, tmp_path) -> Cache:
    """A copy that a test may damage; shards are linked between entries as they were."""
    root = tmp_path / "cache"
    shutil.copytree(made.root, root)
    twin = root / made.other / "shards" / "00000.h5"
    assert twin.read_bytes() == (root / made.id / "shards" / "00000.h5").read_bytes()
    return Cache(root, made.photos, made.id, made.other)


def rewritten(entry: Entry, **changes) -> None:
    """Another manifest, sealed."""
    body = {name: value for name, value in entry.manifest.items() if name != "sha256"}
    write_json(entry.path / "entry.json", {**body, **changes}, replace=True)


def test_a_whole_entry_is_said_to_be_whole_and_nothing_is_touched(cache):
    before = everything(cache.root)
    for options in ({}, {"repair": True}, {"recompute": 20}, {"repair": True, "recompute": 20}):
        found = cache.verify(**options)
        assert (found.cache, found.shards, found.rows) == (cache.id, 3, 20)
        assert (found.damaged, found.repaired, found.hint, found.holds) == ([], {}, "", True)
        assert (found.recomputed is not None) == ("recompute" in options)
        assert json.loads(json.dumps(found.to_json()))["cache"] == cache.id
    assert everything(cache.root) == before


def test_without_repair_damage_is_named_and_nothing_is_touched(cache):
    flip(cache.shard(1))
    before = everything(cache.root)
    found = cache.verify(recompute=5)
    assert [item.path for item in found.damaged] == [cache.shard(1)]
    assert (found.holds, found.recomputed) == (False, None)
    assert "--repair" in found.hint
    assert everything(cache.root) == before


# --- repair from the cache ---


def test_a_damaged_shard_with_a_twin_is_linked_without_images_or_weights(cache):
    good = cache.shard(0).read_bytes()
    flip(cache.shard(0))
    bad = cache.shard(0).read_bytes()
    rewritten(cache.entry, backbone={"name": "torchvision/shufflenet_v2_x0_5", "weights": "gone.safetensors"})
    found = cache.verify(repair=True, images=Images("gone"))
    assert (found.holds, found.damaged) == (True, [])
    assert found.repaired == {str(cache.shard(0)): f"linked from {cache.twin()}"}
    assert cache.shard(0).samefile(cache.twin())
    assert cache.shard(0).read_bytes() == good
    assert cache.quarantine() == [bad]


def test_a_twin_in_the_same_entry_will_do(tmp_path):
    entry = make_entry(tmp_path / "cache", seeds=[*range(8), *range(8)], ids=[str(row) for row in range(16)])
    flip(entry.shard_path(0))
    assert verify(entry.path, repair=True).holds
    assert entry.shard_path(0).samefile(entry.shard_path(1))


def test_a_twin_that_is_damaged_too_is_no_help_and_is_repaired_in_its_turn(cache):
    good = cache.shard(0).read_bytes()
    flip(cache.twin())
    cache.shard(0).unlink()
    os.link(cache.twin(), cache.shard(0))  # one damaged file under two names
    bad = cache.shard(0).read_bytes()
    found = cache.verify(repair=True)
    assert found.holds
    assert "computed again" in found.repaired[str(cache.shard(0))]
    assert verify(cache.root / cache.other, repair=True, images=Images("gone")).holds
    assert cache.twin().read_bytes() == good
    assert cache.quarantine() == [bad, bad]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: overwrite(path, b""),
        Path.unlink,
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("00002.h5")),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["empty", "missing", "a folder", "a link", "a dangling link", "a pipe"],
)
def test_whatever_lies_in_the_place_of_a_shard_is_set_aside(cache, damage):
    good = cache.shard(0).read_bytes()
    damage(cache.shard(0))
    there = os.path.lexists(cache.shard(0))
    assert cache.verify(repair=True).holds
    assert cache.shard(0).read_bytes() == good
    assert not cache.shard(0).is_symlink()
    assert len(list((cache.root / "quarantine").glob("*-00000.h5"))) == there


# --- repair from the images ---


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["a bit", "missing"])
def test_a_damaged_shard_is_computed_again_to_the_very_same_bytes(cache, damage):
    good = cache.shard(1).read_bytes()
    damage(cache.shard(1))
    bad = [cache.shard(1).read_bytes()] if cache.shard(1).exists() else []
    found = cache.verify(repair=True)
    assert (found.holds, found.repaired) == (True, {str(cache.shard(1)): "computed again from 8 images"})
    assert cache.shard(1).read_bytes() == good
    assert cache.quarantine() == bad


def test_all_shards_gone_with_their_folder_are_made_again(cache):
    before = everything(cache.root / cache.id)
    shutil.rmtree(cache.root / cache.id / "shards")
    assert cache.verify(repair=True).holds
    assert everything(cache.root / cache.id) == before


def test_what_can_be_repaired_is_although_other_files_cannot(cache):
    flip(cache.shard(0))
    flip(cache.root / cache.id / "samples.h5")
    found = cache.verify(repair=True)
    assert list(found.repaired) == [str(cache.shard(0))]
    assert [item.path.name for item in found.damaged] == ["samples.h5"]
    assert "pipeline extract photos" in found.hint


# --- what cannot be repaired stays as it is ---


def assert_left_alone(cache: Cache, found: Verified, name: str, before: dict) -> None:
    assert [item.path.name for item in found.damaged] == [name]
    assert (found.repaired, found.holds) == ({}, False)
    assert everything(cache.root) == before
    assert not (cache.root / "quarantine").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "no folder"),
        (lambda photos: make_image(4321).save(photos / "beet" / "03.jpg"), "beet/03.jpg has changed"),
        (lambda photos: (photos / "beet" / "03.jpg").unlink(), "beet/03.jpg cannot be used any more"),
    ],
    ids=["all gone", "one changed", "one gone"],
)
def test_without_the_images_a_damaged_shard_is_left_alone(cache, tmp_path, change, said):
    photos = Path(shutil.copytree(cache.photos, tmp_path / "photos"))
    change(photos)
    flip(cache.shard(1))
    before = everything(cache.root)
    found = cache.verify(repair=True, images=Images(str(photos), workers=1))
    assert_left_alone(cache, found, "00001.h5", before)
    assert said in found.hint
    assert "--source" in found.hint or "pipeline extract" in found.hint


def test_images_that_changed_elsewhere_do_not_matter(cache, tmp_path):
    photos = Path(shutil.copytree(cache.photos, tmp_path / "photos"))
    (photos / "apple" / "00.jpg").unlink()
    make_image(4321).save(photos / "corn" / "09.jpg")
    flip(cache.shard(1))
    assert cache.verify(repair=True, images=Images(str(photos), workers=1)).holds


@pytest.mark.parametrize(
    ("weights", "said"), [("gone.safetensors", "gone.safetensors"), (str(WEIGHTS), "not those the features")]
)
def test_without_the_weights_a_damaged_shard_is_left_alone(cache, weights, said):
    rewritten(cache.entry, backbone={"name": "torchvision/shufflenet_v2_x0_5", "weights": weights})
    flip(cache.shard(1))
    before = everything(cache.root)
    found = cache.verify(repair=True)
    assert_left_alone(cache, found, "00001.h5", before)
    assert said in found.hint


@pytest.mark.parametrize(
    "change",
    [
        {"resize": None},
        {"interpolation": "magic"},
        {"decoder": "another"},
        {"colour": "L"},
        {"sharpen": "twice"},
        {"augment": "flip"},
    ],
    ids=str,
)
def test_without_the_preprocess_a_damaged_shard_is_left_alone(tmp_path, change):
    """As of an entry that another version of this package made."""
    preprocess = {name: value for name, value in {**PREPROCESS, **change}.items() if value is not None}
    space = replace(TINY, architecture="torchvision/shufflenet_v2_x0_5", preprocess=preprocess)
    entry = make_entry(tmp_path / "cache", space=space)
    flip(entry.shard_path(1))
    before = everything(entry.path)
    found = verify(entry.path, repair=True)
    assert (found.holds, everything(entry.path)) == (False, before)
    assert "preprocess" in found.hint


@pytest.mark.parametrize("name", ["samples.h5", "skipped.csv"])
def test_other_files_are_left_to_extract_which_computes_nothing(cache, made, name):
    flip(cache.root / cache.id / name, 3)
    before = everything(cache.root)
    found = cache.verify(repair=True)
    assert_left_alone(cache, found, name, before)
    assert "`extract`, without computing anything" in found.hint
    assert "pipeline extract photos" in found.hint
    again = pipeline.extract(str(cache.photos), cache_dir=cache.root, **JOB)
    assert (again.cache, again.computed) == (cache.id, 0)
    assert everything(cache.root / cache.id).keys() == everything(made.root / cache.id).keys()
    assert find_damage(cache.entry) == []


def test_a_damaged_sample_table_and_shard_are_both_left_alone(cache):
    flip(cache.shard(1))
    flip(cache.root / cache.id / "samples.h5")
    before = everything(cache.root)
    found = cache.verify(repair=True)
    assert [item.path.name for item in found.damaged] == ["samples.h5", "00001.h5"]
    assert everything(cache.root) == before
    assert found.hint


@pytest.mark.parametrize("repair", [False, True])
def test_with_a_damaged_manifest_no_other_file_is_lost(cache, repair):
    flip(cache.root / cache.id / "entry.json", 300)
    before = sorted(everything(cache.root).values())
    found = cache.verify(repair=repair, recompute=5)
    assert [item.path.name for item in found.damaged] == ["entry.json"]
    assert (found.repaired, found.holds) == ({}, False)
    assert "pipeline extract" in found.hint
    assert sorted(everything(cache.root).values()) == before
    again = pipeline.extract(str(cache.photos), cache_dir=cache.root, **JOB)
    assert again.cache == cache.id
    assert find_damage(cache.entry) == []


def test_a_damaged_manifest_is_not_set_aside_before_another_is_there(cache):
    flip(cache.root / cache.id / "entry.json", 300)
    before = everything(cache.root)
    cache.verify(repair=True)
    assert everything(cache.root) == before


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
@pytest.mark.parametrize("number", [0, 1], ids=["twin", "images"])
def test_a_disk_that_fails_under_a_repair_does_not_take_the_damaged_file_too(cache, monkeypatch, number, call):
    flip(cache.shard(number))
    bad, inode = cache.shard(number).read_bytes(), cache.shard(number).stat().st_ino
    real = getattr(os, call)

    def fail(*arguments, **options):
        if call == "write" and len(arguments[1]) < 1000:  # what loading processes are told
            return real(*arguments, **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    try:
        found = cache.verify(repair=True)
        assert found.holds or found.hint
    except CacheError as error:
        assert "disk is full" in error.message
    if cache.shard(number).exists() and cache.shard(number).stat().st_ino != inode:
        assert find_damage(cache.entry) == []
    else:
        assert cache.shard(number).read_bytes() == bad


def test_rows_that_come_out_otherwise_are_not_put_there(cache):
    """As on other hardware: the manifest names a shard that computing does not give."""
    rows = cache.entry.read_shard(1)
    data = shard_bytes(cache.entry.space, ShardRows(rows.features * np.float32(1.5), rows.digests, rows.status))
    shards = cache.entry.shards
    shards[1] |= {"sha256": sha256_bytes(data), "bytes": len(data)}
    rewritten(cache.entry, shards=shards)
    before = everything(cache.root)
    found = cache.verify(repair=True)
    assert_left_alone(cache, found, "00001.h5", before)
    assert "other bytes" in found.hint
    assert "pipeline extract photos" in found.hint


# --- recomputation ---


def tampered(cache: Cache, factor: float) -> None:
    """Other features in a shard, and a manifest to match."""

    def change(features: np.ndarray, rows: range) -> None:
        if rows.start == 8:
            features *= np.float32(factor)

    tamper(cache.entry, change)


def test_other_features_with_a_manifest_to_match_are_told_by_recomputation_only(cache):
    tampered(cache, 1.5)
    assert cache.verify().holds
    found = cache.verify(recompute=1000)
    assert (found.holds, found.damaged) == (False, [])
    assert found.recomputed is not None
    assert (found.recomputed.rows, found.recomputed.equal) == (20, 13)
    assert found.to_json()["recomputed"]["holds"] is False


def test_rounding_is_no_damage(cache):
    tampered(cache, 1 + 1e-6)
    found = cache.verify(recompute=1000)
    assert found.holds
    assert found.recomputed is not None
    assert found.recomputed.equal < 20


def test_after_a_repair_rows_can_be_recomputed_in_the_same_call(cache):
    flip(cache.shard(0))
    found = cache.verify(repair=True, recompute=3)
    assert found.holds
    assert found.recomputed is not None
    assert found.recomputed.equal == 3


def test_images_that_are_gone_are_said_when_rows_are_to_be_recomputed(cache):
    with pytest.raises(DataError, match="no folder") as caught:
        cache.verify(recompute=3, images=Images("gone/away"))
    assert "--source" in caught.value.hint


def test_no_entry_is_damage_and_no_exception(tmp_path):
    found = verify(tmp_path / "nothing")
    assert [item.path for item in found.damaged] == [tmp_path / "nothing" / "entry.json"]
    found = verify(tmp_path / "nothing", repair=True)
    assert not found.holds


def test_shards_that_are_not_those_of_the_sample_table_are_told_without_images(tmp_path):
    entry = make_entry(tmp_path / "cache")
    one, two = entry.shard_path(0).read_bytes(), entry.shard_path(1).read_bytes()
    overwrite(entry.shard_path(0), two)
    overwrite(entry.shard_path(1), one)
    rewritten(entry, shards=[entry.shards[1], entry.shards[0], *entry.shards[2:]])
    with pytest.raises(CacheError, match="sample table"):
        pipeline.open_cache(entry.path)
    assert not verify(entry.path).holds
