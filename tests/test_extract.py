"""Stage 1 as a user has it: what is computed, what is reused, what is refused, what is left behind."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SPACE, make_image, make_photos

import pipeline
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.launch import jobs as launch
from pipeline.launch.plan import Plan
from pipeline.store.catalog import find_entry, list_entries
from pipeline.store.work import list_work

SMALL = {**SPACE, "batch_size": 4, "shard_rows": 8, "workers": 1}


def extract(source, cache: Path, **changes):
    return pipeline.extract(str(source), cache_dir=cache, **{**SMALL, **changes})


def shard_bytes(result) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(result.path, "shards").iterdir())]


def test_extract_leaves_a_whole_entry_and_nothing_else(photos, tmp_path):
    result = extract(photos, tmp_path / "cache")
    assert (result.rows, result.dim, result.computed, result.reused, result.skipped) == (36, 1024, 36, 0, 0)
    entry = Path(result.path)
    assert sorted(path.name for path in entry.iterdir()) == ["entry.json", "samples.h5", "shards", "skipped.csv"]
    assert len(list((entry / "shards").iterdir())) == 5
    assert not list((tmp_path / "cache" / "plans").iterdir())
    with h5py.File(entry / "shards" / "00004.h5") as shard:
        assert shard["features"].shape == (4, 1024)


def test_features_do_not_depend_on_batch_neighbours_or_shards(photos, tmp_path):
    small = pipeline.open_cache(extract(photos, tmp_path / "a").path)
    large = pipeline.open_cache(extract(photos, tmp_path / "b", shard_rows=36).path)
    assert small.ids == large.ids
    assert np.array_equal(small.x, large.x)


def test_same_command_again_computes_nothing(photos, tmp_path, remembered):
    first = extract(photos, tmp_path / "cache")
    opened: list[Plan] = []
    again = extract(photos, tmp_path / "cache", on_plan=opened.append)
    assert (again.cache, again.computed, again.reused) == (first.cache, 0, 36)
    assert opened[0].state == "complete"


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_entry_that_another_process_takes_away_when_it_was_found_is_looked_for_again(
    photos, tmp_path, remembered, monkeypatch, comes_back
):
    first = extract(photos, tmp_path / "cache")
    whole_entry, taken = launch.whole_entry, []

    def found(root, path):
        entry = whole_entry(root, path)
        if not taken:
            taken.append(path.rename(tmp_path / "taken"))
        elif comes_back and taken[0].exists():
            taken[0].rename(path)
            return whole_entry(root, path)
        return entry

    monkeypatch.setattr(launch, "whole_entry", found)
    again = extract(photos, tmp_path / "cache")
    assert taken
    assert (again.cache, again.computed) == (first.cache, 0 if comes_back else 36)


def test_a_disk_that_fails_to_make_the_name_of_a_found_entry_durable_is_said(photos, tmp_path, remembered, monkeypatch):
    extract(photos, tmp_path / "cache")
    real = os.fsync

    def fail(descriptor):
        if os.fstat(descriptor).st_ino == (tmp_path / "cache").stat().st_ino:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CacheError, match="Input/output error"):
        extract(photos, tmp_path / "cache")


def test_files_too_young_to_be_remembered_are_read_again_but_not_computed(photos, tmp_path):
    first = extract(photos, tmp_path / "cache")
    again = extract(photos, tmp_path / "cache")
    assert (again.cache, again.computed) == (first.cache, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "mobilenet_v3_small"},
        {"image_size": 40},
        {"mean": (0.5,)},
        {"std": (0.25, 0.5, 0.5)},
        {"store_dtype": "float16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_space_never_reuses(photos, tmp_path, change):
    first = extract(photos, tmp_path / "cache")
    other = extract(photos, tmp_path / "cache", **change)
    assert other.computed == 36
    assert other.cache != first.cache
    assert other.space != first.space


def test_one_changed_weight_is_another_space(photos, tmp_path):
    import torch
    from safetensors.torch import save_file
    from torchvision.models import shufflenet_v2_x0_5

    torch.manual_seed(0)
    state = {key: value for key, value in shufflenet_v2_x0_5().state_dict().items() if not key.startswith("fc.")}
    save_file(state, tmp_path / "a.safetensors")
    first = extract(photos, tmp_path / "cache", weights=str(tmp_path / "a.safetensors"))
    flat = state["conv1.0.weight"].view(-1)
    flat[0] = torch.nextafter(flat[0], flat[0] + 1)
    save_file(state, tmp_path / "a.safetensors")
    again = extract(photos, tmp_path / "cache", weights=str(tmp_path / "a.safetensors"))
    assert again.computed == 36
    assert again.space != first.space


def test_only_new_and_changed_images_are_computed(photos, tmp_path):
    first = extract(photos, tmp_path / "cache")
    make_image(77).save(photos / "apple" / "new.jpg")
    make_image(78).save(photos / "beet" / "03.jpg")
    os.remove(photos / "corn" / "05.jpg")
    (photos / "corn" / "06.jpg").rename(photos / "corn" / "zz.jpg")
    shutil.move(photos / "corn" / "07.jpg", photos / "apple" / "was-corn.jpg")
    result = extract(photos, tmp_path / "cache")
    assert (result.rows, result.computed, result.reused) == (36, 2, 34)
    fresh = extract(photos, tmp_path / "fresh")
    assert fresh.cache == result.cache != first.cache
    assert shard_bytes(fresh) == shard_bytes(result)


def test_relabelled_source_shares_its_shards(photos, tmp_path):
    first = extract(photos, tmp_path / "cache")
    (photos / "apple").rename(photos / "apricot")
    renamed = extract(photos, tmp_path / "cache")
    assert (renamed.computed, renamed.cache == first.cache) == (0, False)
    for name in ("00000.h5", "00004.h5"):
        one, other = Path(first.path, "shards", name), Path(renamed.path, "shards", name)
        assert one.samefile(other)


def test_equal_images_are_computed_once(tmp_path):
    root = make_photos(tmp_path / "photos", per_class=4)
    for number in range(5):
        shutil.copy(root / "apple" / "00.jpg", root / "beet" / f"copy{number}.jpg")
    result = extract(root, tmp_path / "cache")
    assert (result.rows, result.computed, result.reused) == (17, 12, 5)


def test_an_edit_that_keeps_size_and_mtime_is_seen(photos, tmp_path):
    target = photos / "apple" / "00.jpg"
    before = target.stat()
    first = extract(photos, tmp_path / "cache")
    data = bytearray(target.read_bytes())
    data[-20] ^= 1
    target.write_bytes(data)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert target.stat().st_size == before.st_size
    again = extract(photos, tmp_path / "cache")
    assert (again.computed, again.cache == first.cache) == (1, False)


def test_bad_images_stop_by_default_and_are_all_named(photos, tmp_path):
    (photos / "apple" / "00.jpg").write_bytes(b"")
    (photos / "beet" / "01.jpg").write_text("not an image")
    whole = (photos / "corn" / "02.jpg").read_bytes()
    (photos / "corn" / "02.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as error:
        extract(photos, tmp_path / "cache")
    for culprit in ("apple/00.jpg is empty", "beet/01.jpg is not an image", "corn/02.jpg cannot be decoded"):
        assert culprit in error.value.message
    assert "--on-bad-image skip" in error.value.hint

    result = extract(photos, tmp_path / "cache", on_bad_image="skip")
    assert (result.rows, result.computed, result.skipped) == (33, 0, 3)
    ledger = Path(result.path, "skipped.csv").read_text().splitlines()
    assert ledger[0] == "id,reason"
    assert [line.split(",")[0] for line in ledger[1:]] == ["apple/00.jpg", "beet/01.jpg", "corn/02.jpg"]
    features = pipeline.open_cache(result.path)
    assert len(features) == 33
    assert "apple/00.jpg" not in features.ids


def test_a_mended_image_costs_one_row(photos, tmp_path):
    good = (photos / "apple" / "00.jpg").read_bytes()
    (photos / "apple" / "00.jpg").write_bytes(good[:100])
    extract(photos, tmp_path / "cache", on_bad_image="skip")
    (photos / "apple" / "00.jpg").write_bytes(good)
    result = extract(photos, tmp_path / "cache")
    assert (result.rows, result.computed, result.skipped) == (36, 1, 0)


def test_no_usable_image_is_an_error_even_with_skip(photos, tmp_path):
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="none of the 36 images"):
        extract(photos, tmp_path / "cache", on_bad_image="skip")


def test_features_that_are_not_finite_name_the_images(photos, tmp_path):
    import torch
    from safetensors.torch import save_file
    from torchvision.models import shufflenet_v2_x0_5

    state = {key: value for key, value in shufflenet_v2_x0_5().state_dict().items() if not key.startswith("fc.")}
    state["conv5.1.bias"][3] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(DataError, match=r"not finite.*apple/00\.jpg"):
        extract(photos, tmp_path / "cache", weights=str(tmp_path / "nan.safetensors"))


def test_float16_rows_are_the_rounded_float32_rows(photos, tmp_path):
    full = pipeline.open_cache(extract(photos, tmp_path / "cache").path)
    half = pipeline.open_cache(extract(photos, tmp_path / "cache", store_dtype="float16").path)
    assert np.array_equal(full.x.numpy().astype(np.float16), half.x.numpy())


def test_limit_spreads_over_all_classes(photos, tmp_path):
    features = pipeline.open_cache(extract(photos, tmp_path / "cache", limit=6).path)
    assert features.y.tolist() == [0, 0, 1, 1, 2, 2]


def test_test_split_is_stable_when_data_grows(tmp_path):
    root = make_photos(tmp_path / "photos", per_class=40)
    before = pipeline.open_cache(extract(root, tmp_path / "cache", test_fraction=0.3).path)
    for number in range(10):
        make_image(500 + number).save(root / "beet" / f"x{number}.jpg")
    after = pipeline.open_cache(extract(root, tmp_path / "cache", test_fraction=0.3).path)
    side = dict(zip(after.ids, after.split.tolist(), strict=True))
    assert {name: side[name] for name in before.ids} == dict(zip(before.ids, before.split.tolist(), strict=True))
    assert 20 <= (before.split == "test").sum() <= 52


def test_named_splits_are_kept(tmp_path):
    for name in ("train", "val", "test"):
        make_photos(tmp_path / "photos" / name, per_class=2)
    features = pipeline.open_cache(extract(tmp_path / "photos", tmp_path / "cache").path)
    assert features.split.tolist() == ["train"] * 6 + ["val"] * 6 + ["test"] * 6


def test_damaged_shard_is_named_set_aside_and_made_again(photos, tmp_path, remembered):
    first = extract(photos, tmp_path / "cache")
    whole = shard_bytes(first)
    path = Path(first.path, "shards", "00002.h5")
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheError, match=r"00002\.h5 is damaged"):
        pipeline.open_cache(first.path)
    again = extract(photos, tmp_path / "cache")
    assert (again.cache, again.computed, again.reused) == (first.cache, 8, 28)
    assert shard_bytes(again) == whole
    assert list((tmp_path / "cache" / "quarantine").iterdir())


def test_restart_computes_anew(photos, tmp_path):
    first = extract(photos, tmp_path / "cache")
    again = extract(photos, tmp_path / "cache", restart=True)
    assert (again.cache, again.computed) == (first.cache, 36)
    assert shard_bytes(again) == shard_bytes(first)


def test_interrupted_work_keeps_its_recipe(photos, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "cache", on_progress=stop_after(20))
    assert [body["done"] for body in list_work(tmp_path / "cache")] == [2]
    result = extract(photos, tmp_path / "cache", batch_size=2)
    assert result.recipe["batch_size"] == 4
    assert "going on with batch-size 4" in caplog.text
    assert (result.computed, result.reused) == (20, 16)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "other", on_progress=stop_after(20))
    fresh = extract(photos, tmp_path / "other", batch_size=2, restart=True)
    assert fresh.recipe["batch_size"] == 2


def stop_after(rows: int):
    def on_progress(progress) -> None:
        if progress.done >= rows:
            raise KeyboardInterrupt

    return on_progress


def test_rows_of_an_interrupted_work_serve_another_listing(photos, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "cache", on_progress=stop_after(20))
    os.remove(photos / "apple" / "00.jpg")
    result = extract(photos, tmp_path / "cache")
    assert (result.rows, result.computed, result.reused) == (35, 20, 15)


def test_file_changed_between_interruption_and_resume_is_computed_again(photos, tmp_path, remembered):
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "cache", on_progress=stop_after(20))
    make_image(99).save(photos / "apple" / "01.jpg")
    result = extract(photos, tmp_path / "cache")
    assert (result.computed, result.reused) == (21, 15)
    fresh = extract(photos, tmp_path / "fresh")
    assert (fresh.cache, shard_bytes(fresh)) == (result.cache, shard_bytes(result))


SCRIPT = """
import sys, pipeline
pipeline.extract(sys.argv[1], cache_dir=sys.argv[2], backbone="shufflenet_v2_x0_5", weights="none", image_size=32,
                 batch_size=4, shard_rows=8, workers=1)
"""


def test_killed_extraction_resumes_to_the_same_bytes(tmp_path):
    root = make_photos(tmp_path / "photos", per_class=60)
    whole = extract(root, tmp_path / "whole")
    cache = tmp_path / "cache"
    kills = 0
    for shards_before_kill in (1, 6, 12):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(root), str(cache)], start_new_session=True)
        while process.poll() is None:
            if len(list(cache.glob("plans/*/records/*.json"))) >= shards_before_kill:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    acknowledged = {path.name: path.read_bytes() for path in cache.glob("plans/*/records/[0-9]*.json")}
    committed = sum(json.loads(data)["rows"] for data in acknowledged.values())
    assert kills == 3
    assert committed
    result = extract(root, cache)
    assert (result.cache, shard_bytes(result)) == (whole.cache, shard_bytes(whole))
    assert (result.computed, result.reused) == (180 - committed, committed)
    assert not list(cache.glob(".tmp-*"))


def test_two_processes_on_one_entry_both_finish(tmp_path):
    root = make_photos(tmp_path / "photos", per_class=20)
    cache = tmp_path / "cache"
    team = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(root), str(cache)]) for _ in range(2)]
    assert [process.wait() for process in team] == [0, 0]
    entries = list(list_entries(cache))
    assert len(entries) == 1
    fresh = extract(root, tmp_path / "fresh")
    assert entries[0].id == fresh.cache
    assert [path.read_bytes() for path in sorted((entries[0].path / "shards").iterdir())] == shard_bytes(fresh)


def test_latest_is_what_was_extracted_last_be_it_made_or_found(photos, tmp_path):
    """A script that is run again finds its entries and must go on with the same ones."""
    first, second = (extract(photos, tmp_path / "cache", test_fraction=fraction) for fraction in (0.2, 0.4))
    assert find_entry(tmp_path / "cache", "latest").id == second.cache
    again = extract(photos, tmp_path / "cache", test_fraction=0.2)
    assert (again.cache, again.computed) == (first.cache, 0)
    pipeline.open_cache(second.path)
    assert find_entry(tmp_path / "cache", "latest").id == first.cache


def test_entry_can_be_moved(photos, tmp_path):
    result = extract(photos, tmp_path / "cache")
    moved = shutil.move(result.path, tmp_path / "elsewhere")
    assert len(pipeline.open_cache(moved)) == 36


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"backbone": "resnet8"}, UsageError, "Did you mean 'resnet18'"),
        ({"weights": "IMAGENET1K_V9"}, UsageError, "IMAGENET1K_V1"),
        ({"weights": "./none.pth"}, DataError, "no weights file"),
        ({"device": "cuda:99"}, UsageError, "cuda:99"),
        ({"engine": "warp"}, UsageError, "unknown engine"),
        ({"batch_size": 0}, UsageError, "batch-size must be at least 1"),
        ({"test_fraction": 1.5}, UsageError, "test-fraction"),
        ({"limit": 0}, UsageError, "limit"),
        ({"std": (0.0,)}, UsageError, "std above 0"),
        ({"on_bad_image": "shrug"}, UsageError, "fail or skip"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_wishes_are_refused_before_anything_is_written(photos, tmp_path, changes, kind, said):
    with pytest.raises(kind) as error:
        extract(photos, tmp_path / "cache", **changes)
    assert said in f"{error.value.message} {error.value.hint}"
    assert not (tmp_path / "cache").exists()


def test_too_little_disk_is_said_before_the_first_batch(photos, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CacheError, match="free"):
        extract(photos, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/plans/*/records/*"))


def test_a_shard_that_another_process_commits_meanwhile_does_not_disturb_the_next(tmp_path):
    """Its images were asked of the loader already: they must not be taken for another shard's."""
    from pipeline.backbones.backbone import load_backbone
    from pipeline.extraction.prepare import prepare
    from pipeline.extraction.publish import publish
    from pipeline.extraction.recipe import Wishes
    from pipeline.extraction.shard import extract_shard, request_shard
    from pipeline.sources.arrays import digits_source

    wishes = Wishes(batch_size=4, shard_rows=8, workers=1)
    network = load_backbone("shufflenet_v2_x0_5", weights="none", image_size=32)
    ours, theirs = (
        prepare(digits_source(), network, root=tmp_path / "cache", wishes=wishes, limit=24) for _ in range(2)
    )
    for job in (ours, theirs):
        job.begin()
    request_shard(ours, 0)
    request_shard(ours, 1)
    extract_shard(ours, 0)
    extract_shard(theirs, 1)
    request_shard(ours, 2)
    extract_shard(ours, 1)
    extract_shard(ours, 2)
    entry = publish(ours, skip_bad=False, command="")
    for job in (ours, theirs):
        job.close()
    fresh = extract("digits", tmp_path / "fresh", limit=24)
    assert entry is not None
    assert [path.read_bytes() for path in sorted((entry.path / "shards").iterdir())] == shard_bytes(fresh)


def test_bad_images_can_be_skipped_after_a_failure_whose_work_is_all_committed(photos, tmp_path, remembered):
    (photos / "apple" / "00.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 36 images"):
        extract(photos, tmp_path / "cache")
    result = extract(photos, tmp_path / "cache", on_bad_image="skip")
    assert (result.rows, result.computed, result.skipped) == (35, 0, 1)
    with pytest.raises(DataError, match="1 of 36 images"):
        extract(photos, tmp_path / "cache")
