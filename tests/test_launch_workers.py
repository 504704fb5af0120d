"""Several workers on one extraction: whoever makes which shard, and whoever dies, the entry is the same."""

import json
from pathlib import Path

import pytest
from conftest import make_photos
from fleet import run_fleet
from PIL import Image


def shard_bytes(result) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(result["path"], "shards").iterdir())]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """120 images, 15 shards of 8."""
    return make_photos(tmp_path_factory.mktemp("many") / "photos", per_class=40)


@pytest.fixture(scope="module")
def alone(many, tmp_path_factory):
    (result,) = run_fleet(many, tmp_path_factory.mktemp("alone"), [None])
    return result


def forwards(log: Path) -> list[tuple[int, int]]:
    """(process, images) of each forward pass on images."""
    passes = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    return [one for one in passes if one[1]]


@pytest.mark.parametrize("count", [3, 5])  # two are started by real launchers: test_launch_launchers
def test_workers_share_the_shards_and_all_return_the_same_entry(many, alone, tmp_path, count):
    log = tmp_path / "log"
    workers = [f"{index}/{count}" for index in range(count)]
    slowly = {"SLEEPY_SECONDS": "0.05", "SLEEPY_LOG": str(log)}
    results = run_fleet(many, tmp_path / "cache", workers, environment=slowly, together=True)
    assert {result["cache"] for result in results} == {alone["cache"]}
    assert shard_bytes(results[0]) == shard_bytes(alone)
    assert sum(result["computed"] for result in results) == 120
    assert all(result["computed"] + result["elsewhere"] == 120 for result in results)
    assert [result["worker"] for result in results] == [{"index": index, "count": count} for index in range(count)]
    assert len(forwards(log)) == 30
    assert len({process for process, _ in forwards(log)}) == count
    assert not list((tmp_path / "cache" / "plans").iterdir())


def test_a_worker_whose_companions_never_come_does_everything(many, alone, tmp_path):
    (result,) = run_fleet(many, tmp_path / "cache", ["2/4"])
    assert (result["cache"], result["computed"]) == (alone["cache"], 120)
    assert shard_bytes(result) == shard_bytes(alone)


def test_an_image_that_kills_every_worker_is_found_and_ends_in_the_ledger(many, tmp_path, cli, monkeypatch):
    Image.new("RGB", (8, 8), (77, 77, 77)).save(make_photos(tmp_path / "photos", per_class=4) / "beet" / "01.png")
    for name, value in {"SLEEPY_DEADLY": "77", "PYTHONPATH": str(Path(__file__).parent)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    arguments = ["extract", tmp_path / "photos", "--backbone", "sleepy_network:network", "--devices", "cpu,cpu"]
    sizes = ["--batch-size", "2", "--shard-rows", "4", "--workers", "1", "--engine", "reference"]
    refused = cli(*arguments, *sizes)
    assert refused.code == 3
    assert "workers   2 processes of this machine: cpu, cpu" in refused.err
    assert "beet/01.png the workers that computed its features died" in refused.err
    made = cli(*arguments, *sizes, "--on-bad-image", "skip", "--json")
    result = json.loads(made.out)
    assert (made.code, result["rows"], result["skipped"], result["computed"]) == (0, 12, 1, 0)
    assert (Path(result["path"]) / "skipped.csv").read_text().splitlines()[1].startswith("beet/01.png,")
    assert "was lost while it made shard" in refused.err
