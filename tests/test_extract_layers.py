"""Any layer, any pooling, several in one pass: each the entry it would be alone, images read and computed once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SPACE, make_photos

import pipeline
from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.vision import build
from pipeline.engines.eager import EagerEngine

LAYERS = ("stage2", "stage3", "input:fc")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("pipeline.extraction.recipe.default_threads", lambda: 1)


def extract(root, cache, **more):
    options = {"workers": 1, "test_fraction": 0, "batch_size": 4, **SPACE, **more}
    return pipeline.extract(str(root), cache_dir=cache, **options)


def shard_bytes(path) -> list[bytes]:
    return [shard.read_bytes() for shard in sorted((Path(path) / "shards").iterdir())]


@pytest.fixture
def batches(monkeypatch):
    """Count forward passes by how many layers each gives."""
    counted = []
    before = EagerEngine.all_features

    def counting(self, pixels):
        found = before(self, pixels)
        counted.append(len(found))
        return found

    monkeypatch.setattr(EagerEngine, "all_features", counting)
    return counted


def test_layers_of_one_pass_are_the_entries_they_are_alone(photos, tmp_path, batches):
    one = extract(photos, tmp_path / "one", layer=LAYERS[0], beside=LAYERS[1:], shard_rows=8)
    assert batches == [3] * 9
    made = [one, *one.beside]
    assert [result.layer for result in made] == ["output:stage2", "output:stage3", "input:fc"]
    assert [(result.computed, result.reused) for result in made] == [(36, 0)] * 3
    assert [result.dim for result in made] == [48, 96, 1024]
    for layer, result in zip(LAYERS, made, strict=True):
        alone = extract(photos, tmp_path / "alone", layer=layer, shard_rows=8)
        assert (alone.cache, alone.space) == (result.cache, result.space)
        assert shard_bytes(alone.path) == shard_bytes(result.path)
    default = extract(photos, tmp_path / "one")
    assert (default.cache, default.computed) == (made[2].cache, 0)
    assert one.to_json()["entries"][1]["cache"] == made[1].cache
    assert "beside" not in made[1].to_json()


def test_a_layer_more_costs_only_that_layer(photos, tmp_path, batches):
    first = extract(photos, tmp_path / "cache", layer="stage3")
    del batches[:]
    both = extract(photos, tmp_path / "cache", layer="stage3", beside=["stage2"])
    assert (both.cache, both.computed, both.beside[0].computed) == (first.cache, 0, 36)
    assert batches == [1] * 9


def test_a_pass_that_was_killed_goes_on_where_it_stopped(photos, tmp_path, monkeypatch):
    whole = extract(photos, tmp_path / "whole", layer="stage2", beside=["stage3"], shard_rows=8)
    from pipeline.launch import making as launch

    made = []
    before = launch.extract_shard

    def killed(job, number, report):
        if len(made) == 3:  # between the two layers' second shards
            raise KeyboardInterrupt
        made.append(number)
        return before(job, number, report)

    monkeypatch.setattr(launch, "extract_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "cache", layer="stage2", beside=["stage3"], shard_rows=8)
    monkeypatch.setattr(launch, "extract_shard", before)
    again = extract(photos, tmp_path / "cache", layer="stage2", beside=["stage3"], shard_rows=8)
    for result, expected in zip((again, again.beside[0]), (whole, whole.beside[0]), strict=True):
        assert result.cache == expected.cache
        assert shard_bytes(result.path) == shard_bytes(expected.path)
    assert (again.computed, again.beside[0].computed) == (20, 28)


def test_a_layer_that_was_begun_with_another_engine_keeps_it_to_itself(photos, tmp_path):
    def stop(progress):
        if progress.done >= 12:
            raise KeyboardInterrupt

    options = {"layer": "stage2", "shard_rows": 8}
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "cache", engine="reference", on_progress=stop, **options)
    made = extract(photos, tmp_path / "cache", beside=["stage3"], **options)
    results = (made, *made.beside)
    assert [result.recipe["engine"] for result in results] == ["reference", "eager"]
    for result in results:
        alone = extract(photos, tmp_path / "alone", layer=result.layer, shard_rows=8, engine=result.recipe["engine"])
        assert shard_bytes(alone.path) == shard_bytes(result.path)


def test_bad_and_doubled_images_are_the_same_for_every_layer(tmp_path):
    root = make_photos(tmp_path / "photos", per_class=6)
    (root / "beet" / "03.jpg").write_bytes(b"not an image")
    (root / "corn" / "99.jpg").write_bytes((root / "apple" / "00.jpg").read_bytes())
    made = extract(root, tmp_path / "cache", layer="stage2", beside=["stage3"], on_bad_image="skip")
    alone = extract(root, tmp_path / "alone", layer="stage3", on_bad_image="skip")
    other = made.beside[0]
    assert (made.rows, made.skipped) == (other.rows, other.skipped) == (18, 1)
    assert (other.computed, other.cache) == (made.computed, alone.cache) == (alone.computed, alone.cache)
    assert (Path(other.path) / "skipped.csv").read_text() == (Path(alone.path) / "skipped.csv").read_text()


def test_float16_measures_its_rounding_for_every_layer(photos, tmp_path):
    made = extract(photos, tmp_path / "cache", layer="stage2", beside=["stage3"], store_dtype="float16")
    assert made.rounding["rows"] == made.beside[0].rounding["rows"] == 36


def test_rows_of_a_cut_point_are_maps(photos, tmp_path):
    made = extract(photos, tmp_path / "cache", layer="stage2", pool="none")
    features = pipeline.open_cache(made.cache, cache_dir=tmp_path / "cache")
    assert tuple(features.x.shape) == (36, 48, 4, 4)
    with pytest.raises(pipeline.UsageError, match="a head needs"):
        pipeline.train_head(made.cache, cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs")
    torch.manual_seed(0)
    network = build("shufflenet_v2_x0_5").eval()
    with torch.inference_mode():
        tail = network.stage3(features.x)
    pooled = extract(photos, tmp_path / "cache", layer="stage3")
    expected = pipeline.open_cache(pooled.cache, cache_dir=tmp_path / "cache").x
    assert torch.allclose(tail.mean((2, 3)), expected, rtol=1e-4, atol=1e-9)


def test_what_is_behind_the_layer_is_not_run():
    backbone = load_backbone(SPACE["backbone"], weights="none", image_size=32, layer="stage3")
    ran = []
    backbone.network.network.stage4.register_forward_hook(lambda *_: ran.append("stage4"))
    backbone.network.network.stage3.register_forward_hook(lambda *_: ran.append("stage3"))
    with torch.inference_mode():
        backbone.network(torch.zeros(1, 3, 32, 32))
    assert ran == ["stage3"]


def test_commands_take_layers_and_prove_their_heads(cli, tmp_path, remembered):
    make_photos(tmp_path / "photos", per_class=8)
    options = ["--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--image-size", "32", "--workers", "1"]
    result = cli("extract", "photos", *options, "--layer", "stage3", "--layer", "input:fc", "--json")
    entries = json.loads(result.out)["entries"]
    assert [entry["layer"] for entry in entries] == ["output:stage3", "input:fc"]
    assert {"cache", "path", "space", "rows", "dim", "computed", "reused", "skipped", "seconds"} <= set(entries[0])
    dry = json.loads(
        cli("extract", "photos", *options, "--layer", "stage3", "--layer", "stage2", "--dry-run", "--json").out
    )
    assert [plan["state"] for plan in dry["plans"]] == ["complete", "new"]
    assert cli("train-head", entries[0]["cache"], "--epochs", "1", "-q").code == 0
    proof = json.loads(cli("evaluate", "latest", "--split", "train", "--end-to-end", "--json").out)["end_to_end"]
    assert proof["prediction_agreement"] == 1.0
    assert proof["max_abs_logit_difference"] <= 1e-6
    checked = cli("cache", "verify", entries[0]["cache"], "--recompute", "3", "--json")
    assert checked.code == 0
    wrong = cli("extract", "photos", *options, "--layer", "stage9")
    assert (wrong.code, "has no module 'stage9'. Did you mean 'stage" in wrong.err) == (2, True)
    listed = cli("backbones", "shufflenet_v2_x0_5", "--layers", "--json")
    assert {"name": "stage3", "kind": "Sequential"} in json.loads(listed.out)["layers"]


def test_images_of_arrays_share_a_pass_too(tmp_path):
    made = pipeline.extract(
        "digits", cache_dir=tmp_path, workers=1, limit=20, batch_size=4, layer="stage2", beside=["stage3"], **SPACE
    )
    assert made.computed == made.beside[0].computed == 20
    assert np.isfinite(pipeline.open_cache(made.beside[0].cache, cache_dir=tmp_path).x.numpy()).all()
