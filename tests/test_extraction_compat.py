"""Entries made under another version of torch: a few rows are computed again before any is reused."""

from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE, make_image, make_photos

import pipeline
from pipeline.digest import sha256_bytes
from pipeline.store.commit import read_json, write_json
from pipeline.store.entry import open_entry
from pipeline.store.shard import ShardRows, shard_bytes


@pytest.fixture
def older(tmp_path, remembered):
    """A source and its entry as another torch would have written it, with features moved by a factor."""

    def make(factor: float, package: str = "torch", **space):
        root = make_photos(tmp_path / "photos", per_class=6)
        made = pipeline.extract(str(root), cache_dir=tmp_path / "cache", workers=1, **(space or SPACE))
        entry = open_entry(Path(made.path))
        rows = entry.read_shard(0)
        data = shard_bytes(entry.space, ShardRows(rows.features * np.float32(factor), rows.digests, rows.status))
        entry.shard_path(0).unlink()
        entry.shard_path(0).write_bytes(data)
        body = read_json(entry.path / "entry.json")
        del body["sha256"]
        body["versions"][package] = "1.0"
        body["shards"][0]["facts"]["versions"][package] = "1.0"
        body["shards"][0] |= {"sha256": sha256_bytes(data), "bytes": len(data)}
        write_json(entry.path / "entry.json", body, replace=True)
        return root, tmp_path / "cache", made

    return make


@pytest.mark.parametrize(("factor", "computed"), [(1 + 1e-6, 0), (1 + 1e-2, 18)], ids=["rounding", "other"])
def test_finished_entry(older, factor, computed):
    root, cache, made = older(factor)
    again = pipeline.extract(str(root), cache_dir=cache, workers=1, **SPACE)
    assert (again.cache, again.computed) == (made.cache, computed)
    assert (open_entry(Path(again.path)).manifest["versions"]["torch"] == "1.0") == (computed == 0)


@pytest.mark.parametrize(("factor", "computed"), [(1 + 1e-6, 1), (1 + 1e-2, 19)], ids=["rounding", "other"])
def test_rows_for_a_grown_source(older, factor, computed, caplog):
    root, cache, _ = older(factor)
    make_image(55).save(root / "beet" / "new.jpg")
    again = pipeline.extract(str(root), cache_dir=cache, workers=1, **SPACE)
    assert (again.rows, again.computed) == (19, computed)
    assert ("they are computed again" in caplog.text) == (computed == 19)


@pytest.mark.parametrize(
    ("backbone", "computed"), [("timm/test_resnet", 18), ("shufflenet_v2_x0_5", 0)], ids=["of timm", "not of timm"]
)
def test_another_timm_matters_to_its_own_backbones_alone(older, backbone, computed):
    pytest.importorskip("timm")
    space = {**SPACE, "backbone": backbone}
    root, cache, made = older(1 + 1e-2, "timm", **space)
    again = pipeline.extract(str(root), cache_dir=cache, workers=1, **space)
    assert (again.cache, again.computed) == (made.cache, computed)
