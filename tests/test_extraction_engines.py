"""An extraction and its engine: chosen by what finishes first, held against the module, pinned, kept."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BACKBONE, make_photos

import pipeline
from pipeline.engines.eager import EagerEngine
from pipeline.engines.registry import missing
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.extraction import choosing
from pipeline.extraction.choosing import Expected, largest_fitting
from pipeline.store.commit import read_json, write_json
from pipeline.store.entry import open_entry
from pipeline.store.graphs import GraphFolder

TINY = "tiny_network:network"
JOB = {"backbone": TINY, "batch_size": 4, "shard_rows": 8, "workers": 1, "test_fraction": 0.3}
needs_openvino = pytest.mark.skipif(bool(missing("openvino", "cpu")), reason="openvino is not installed")


def extract(photos, cache, **more):
    return pipeline.extract(str(photos), cache_dir=cache, **{**JOB, **more})


def test_few_images_never_wait_for_another_engine(photos, tmp_path):
    plans = []
    result = extract(photos, tmp_path / "cache", on_plan=plans.append)
    assert (plans[0].engine, result.recipe["engine"]) == ("eager", "eager")
    assert "before another has started" in plans[0].engine_why or "no other" in plans[0].engine_why
    assert plans[0].images_per_second is None
    assert not (tmp_path / "cache" / "graphs").exists()


@needs_openvino
@pytest.mark.parametrize(("slow", "taken"), [(EagerEngine, "openvino"), (None, "eager")])
def test_auto_takes_what_it_measured_to_be_the_fastest(photos, tmp_path, monkeypatch, slow, taken):
    from pipeline.engines.openvino import OpenVinoEngine

    monkeypatch.setattr(choosing, "FEW_ROWS", 1)
    monkeypatch.setattr(choosing, "EXPECTED", {"openvino": Expected(0.0, 1e9), "compile": Expected(1e9, 1.0)})
    kind = slow or OpenVinoEngine
    before = kind.all_features

    def slowed(self, pixels):
        time.sleep(0.05)
        return before(self, pixels)

    monkeypatch.setattr(kind, "all_features", slowed)
    plans = []
    result = extract(photos, tmp_path / "cache", on_plan=plans.append, limit=8)
    assert (plans[0].engine, result.recipe["engine"]) == (taken, taken)
    assert plans[0].images_per_second > 0
    for said in ("eager", "openvino"):
        assert f"{said} " in plans[0].engine_why
    assert "compile would not start in time" in plans[0].engine_why
    assert list((tmp_path / "cache" / "graphs").glob("*.xml"))
    again = extract(photos, tmp_path / "cache", limit=8)
    assert (again.cache, again.computed) == (result.cache, 0)


@needs_openvino
def test_engines_share_a_space_and_their_rows(photos, tmp_path):
    eager = extract(photos, tmp_path / "a", engine="eager")
    quick = extract(photos, tmp_path / "b", engine="openvino")
    plain = extract(photos, tmp_path / "c", engine="reference")
    assert eager.space == quick.space == plain.space
    assert eager.cache == quick.cache == plain.cache
    x, y, z = (pipeline.open_cache(one.path).x for one in (eager, quick, plain))
    assert torch.allclose(x, z, rtol=0, atol=1e-5 * float(z.abs().max()))
    assert torch.allclose(y, z, rtol=0, atol=1e-5 * float(z.abs().max()))
    assert eager.deviation["engine"] == "eager"
    assert 0 <= quick.deviation["relative"] < 1e-5
    assert plain.deviation is None
    assert open_entry(Path(quick.path)).manifest["deviation"] == quick.deviation
    assert "openvino" in quick.recipe["engine_version"]


def test_an_engine_that_computes_something_else_is_stopped_before_anything_is_kept(photos, tmp_path, monkeypatch):
    before = EagerEngine.all_features
    monkeypatch.setattr(EagerEngine, "all_features", lambda self, pixels: [1.001 * x for x in before(self, pixels)])
    with pytest.raises(DataError, match=r"engine eager in float32 differs from the plain module by 1.0e-03") as told:
        extract(photos, tmp_path / "cache", engine="eager")
    assert "--engine reference" in told.value.hint
    assert not list((tmp_path / "cache").glob("plans/*/records/*"))
    monkeypatch.undo()
    assert extract(photos, tmp_path / "cache", engine="eager").computed == 36


def test_bfloat16_is_a_space_of_its_own_and_says_what_it_costs(cli, photos):
    exact = cli("extract", photos, *BACKBONE, "--workers", "1", "--json")
    low = cli("extract", photos, *BACKBONE, "--workers", "1", "--dtype", "bfloat16", "--engine", "eager")
    assert (exact.code, low.code) == (0, 0)
    assert "eager in bfloat16 against the plain float32 module on the first 8 images: within" in low.err
    made = json.loads(cli("cache", "ls", "--json").out)
    assert len(made["entries"]) == 2
    cli("train-head", "latest", "--epochs", "2")
    told = cli("evaluate", "latest", "--end-to-end", "--split", "train")
    assert told.code == 0, told.err
    assert "the same model" in told.out or "as near as bfloat16 features are" in told.out
    document = json.loads(cli("evaluate", "latest", "--end-to-end", "--split", "train", "--json").out)
    assert document["end_to_end"]["precision"] == "bfloat16"
    exported = cli("export", "latest", "-o", "model.safetensors", "--workers", "1")
    assert (exported.code, "plain float32 model" in exported.out + exported.err) == (0, True), exported.err


def test_dtypes_and_engines_are_checked_by_name(cli, photos):
    for options, code, text in (
        (["--dtype", "tf32", "--device", "cpu"], 2, "tf32 is not to be had with engine eager on cpu"),
        (["--dtype", "bfloat16", "--engine", "reference"], 2, "it computes in float32"),
        (["--engine", "onnx"], 2, "'onnx' is not one of"),
    ):
        told = cli("extract", photos, *BACKBONE, *options)
        assert (told.code, text in told.err) == (code, True), told.err
    with pytest.raises(UsageError, match=r"unknown engine 'eagr'. Did you mean 'eager'\?"):
        extract(photos, "cache", engine="eagr")
    with pytest.raises(UsageError, match=r"unknown dtype 'bfloat'. Did you mean 'bfloat16'"):
        extract(photos, "cache", dtype="bfloat")


def begin(photos, cache, **more):
    """Extract some shards, and stop."""

    def stop(progress):
        if progress.done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(photos, cache, on_progress=stop, **more)


@needs_openvino
def test_a_resumed_extraction_goes_on_with_its_engine(photos, tmp_path, monkeypatch):
    begin(photos, tmp_path / "cache", engine="openvino")
    with pytest.raises(CacheError, match="started with engine openvino, you ask for eager"):
        extract(photos, tmp_path / "cache", engine="eager")
    with monkeypatch.context() as gone:
        gone.setitem(sys.modules, "openvino", None)
        with pytest.raises(CacheError, match="started with engine openvino, which does not run here: it is not inst"):
            extract(photos, tmp_path / "cache")
    result = extract(photos, tmp_path / "cache")
    assert result.recipe["engine"] == "openvino"
    whole = extract(photos, tmp_path / "whole", engine="openvino")
    for one, other in zip(*(sorted(Path(made.path).glob("shards/*")) for made in (result, whole)), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("more", [{}, {"resize": "device"}])
def test_a_resumed_extraction_goes_on_where_it_was_started(photos, tmp_path, more):
    begin(photos, tmp_path / "cache", engine="eager")
    (plan,) = (tmp_path / "cache" / "plans").glob("*/plan.json")
    body = read_json(plan)
    write_json(plan, {**body, "recipe": {**body["recipe"], "device": "cuda"}}, replace=True)
    with pytest.raises(CacheError, match="this extraction was started on cuda, which is not here"):
        extract(photos, tmp_path / "cache", **more)
    with pytest.raises(CacheError, match="started with device cuda, you ask for cpu"):
        extract(photos, tmp_path / "cache", device="cpu")


@needs_openvino
def test_of_two_processes_the_second_takes_the_engine_of_the_first(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "FEW_ROWS", 1)
    monkeypatch.setattr(choosing, "EXPECTED", {"openvino": Expected(0.0, 1e9), "compile": Expected(1e9, 1.0)})
    monkeypatch.setattr("pipeline.extraction.choosing.TRIAL_ROWS", 2)

    def meanwhile(plan):
        other = {"eager": "openvino", "openvino": "eager"}[plan.engine]
        begin(photos, tmp_path / "cache", engine=other)
        raced.append(other)

    raced = []
    result = extract(photos, tmp_path / "cache", on_plan=meanwhile)
    assert [result.recipe["engine"]] == raced
    whole = extract(photos, tmp_path / "whole", engine=raced[0])
    for one, other in zip(*(sorted(Path(made.path).glob("shards/*")) for made in (result, whole)), strict=True):
        assert one.read_bytes() == other.read_bytes()


@needs_openvino
def test_a_damaged_graph_is_made_again(photos, tmp_path, caplog):
    first = extract(photos, tmp_path / "cache", engine="openvino")
    (weights,) = (tmp_path / "cache" / "graphs").glob("*.bin")
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    again = extract(photos, tmp_path / "cache", engine="openvino", restart=True)
    assert "is damaged" in caplog.text
    assert "the graph is made again" in caplog.text
    assert again.cache == first.cache
    assert np.array_equal(pipeline.open_cache(again.path).x, pipeline.open_cache(first.path).x)


def test_the_graph_of_another_network_is_not_taken(tmp_path, caplog):
    mine, other = GraphFolder(tmp_path, "a" * 64), GraphFolder(tmp_path, "b" * 64)
    mine.save("graph", {"xml": b"mine"})
    kept = sorted((tmp_path / "graphs").iterdir())
    other.save("graph", {"xml": b"others"})
    (swapped,) = {path.stem for path in (tmp_path / "graphs").iterdir()} - {kept[0].stem}
    for path in kept:
        path.replace(path.with_stem(swapped))
    assert other.load("graph") is None
    assert "is of another graph; the graph is made again" in caplog.text


@needs_openvino
def test_graphs_that_cannot_be_kept_are_done_without(photos, tmp_path, caplog):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "graphs").write_text("in the way")
    assert extract(photos, cache, engine="openvino").computed == 36
    assert "the graph is not kept" in caplog.text


@needs_openvino
def test_graphs_long_unused_are_pruned(cli, tmp_path):
    make_photos(tmp_path / "photos", per_class=4)
    cli("extract", "photos", "--backbone", TINY, "--workers", "1", "--engine", "openvino")
    kept = list((tmp_path / "cache" / "graphs").iterdir())
    assert len(kept) == 3
    assert cli("cache", "prune", "--older-than", "1h", "--yes").code == 0
    assert all(path.exists() for path in kept)
    assert cli("cache", "prune", "--older-than", "0s", "--yes").code == 0
    assert not any(path.exists() for path in kept)


def test_the_batch_is_halved_until_it_fits():
    tried = []

    def run(batch_size):
        tried.append(batch_size)
        if batch_size > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_fitting(run, 64) == 8
    assert tried == [64, 32, 16, 8]

    def never(batch_size):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UsageError, match="does not hold the network and one image"):
        largest_fitting(never, 4)
