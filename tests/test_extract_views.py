"""Views in the cache: an entry each, plain images as they are without, and only new ones computed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BACKBONE, SPACE, make_photos

import pipeline
from pipeline.engines.reference import ReferenceEngine
from pipeline.errors import UsageError
from pipeline.features import read_features
from pipeline.launch.request import Request
from pipeline.loading.decode import decode
from pipeline.origin import rebuild_backbone
from pipeline.store.entry import open_entry

AUGMENT = "hflip,crop:0.5-1,colour:0.2"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr("pipeline.extraction.recipe.default_threads", lambda: 1)


@pytest.fixture
def few(tmp_path):
    return make_photos(tmp_path / "few", per_class=3)


def extract(root, cache, **more):
    options = {"workers": 1, "test_fraction": 0, "batch_size": 4, "shard_rows": 4, **SPACE, **more}
    return pipeline.extract(str(root), cache_dir=cache, **options)


def shards(path) -> list[bytes]:
    return [shard.read_bytes() for shard in sorted((Path(path) / "shards").iterdir())]


def test_views_are_entries_of_their_own_the_same_wherever_made_and_only_new_ones_are_computed(
    few, tmp_path, remembered
):
    cache, told = tmp_path / "cache", []
    plain = extract(few, cache)
    before = shards(plain.path)
    two = extract(few, cache, views=2, augment=AUGMENT, on_progress=told.append)
    assert (two.cache, two.computed, [view.computed for view in two.views]) == (plain.cache, 0, [0, 9])
    assert (told[-1].done, told[-1].total) == (9, 9)
    three = extract(few, cache, views=3, augment=AUGMENT)
    assert [view.computed for view in three.views] == [0, 0, 9]
    assert [view.cache for view in three.views[:2]] == [view.cache for view in two.views]
    assert shards(plain.path) == before
    fields = three.to_json()
    assert fields["cache"] == plain.cache
    assert list(fields["views"][1]) == ["view", "cache", "path", "rows", "computed", "reused"]
    assert "views" not in plain.to_json()
    entries = [open_entry(Path(view.path)) for view in three.views]
    assert [entry.space.view for entry in entries[1:]] == [("crop:0.5-1,hflip:0.5,colour:0.2", n) for n in (1, 2)]
    rows = [read_features(entry).x.numpy() for entry in entries]
    scale = float(np.abs(rows[2]).max())
    assert np.allclose(by_hand(three.views[2].path, few), rows[2], rtol=0, atol=1e-5 * scale)
    assert not any(np.array_equal(rows[a], rows[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def by_hand(path, root) -> np.ndarray:
    """Features (n, d) of an entry, made in this process from its space alone, in one batch, in another order."""
    entry = open_entry(Path(path))
    backbone = rebuild_backbone(entry.manifest["space"], "none")
    features = read_features(entry)
    order = np.random.default_rng(0).permutation(len(features))
    photos = [(root / features.ids[row]).read_bytes() for row in order]
    seen = [backbone.preprocess.pixels(decode(data), hashlib.sha256(data).digest()) for data in photos]
    engine = ReferenceEngine(backbone.network, backbone.preprocess, torch.device("cpu"))
    return engine.features(np.stack(seen))[np.argsort(order)]


def test_the_plan_shows_every_view_before_any_is_made(cli, few):
    asked = ["extract", few, *BACKBONE, "--views", "3", "--augment", AUGMENT, "--dry-run"]
    shown = cli(*asked)
    assert shown.code == 0
    assert [line.split("·")[0].split() for line in shown.err.splitlines() if line.startswith("view")] == [
        ["view", str(number), "crop:0.5-1,hflip:0.5,colour:0.2"] for number in (1, 2)
    ]
    plans = json.loads(cli(*asked, "--json").out)["plans"]
    assert [plan["preprocess"].get("augment", {}).get("view") for plan in plans] == [None, 1, 2]
    assert not Path("cache").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"views": 0}, "views must be at least 1"),
        ({"views": 4}, "needs an --augment"),
        ({"augment": "hflip"}, "needs --views 2 or more"),
        ({"views": 2, "augment": "flip"}, "unknown step 'flip'. Did you mean"),
    ],
)
def test_what_does_not_go_together_is_refused(few, tmp_path, more, message):
    with pytest.raises(UsageError, match=message):
        extract(few, tmp_path / "cache", **more)


def test_a_request_carries_views_to_other_processes(few, tmp_path):
    fields = dict.fromkeys(Request.__dataclass_fields__)
    request = Request(**{**fields, "source": str(few), "layers": (None,), "views": 3, "augment": "hflip:0.5"})
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request
