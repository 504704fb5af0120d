"""`extract --on ray`: on several nodes the same entry, and plain words where it cannot be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_photos

import pipeline
from pipeline.errors import UsageError
from pipeline.launch.actor import Actor

NETWORK = ["--backbone", "sleepy_network:network"]
SIZES = ["--batch-size", "4", "--shard-rows", "8", "--workers", "1", "--engine", "reference"]
GUARDED = """
import sys
spoken = []
sys.addaudithook(lambda event, args: spoken.append(args[1]) if event == "socket.connect" else None)
from pipeline.cli import main
try:
    main()
finally:
    hosts = {address[0] for address in spoken if isinstance(address, tuple)}
    assert spoken and hosts <= {"127.0.0.1", sys.argv[-1].rpartition(":")[0]}, spoken
"""
"""The driver, which speaks to the cluster only."""


@pytest.fixture
def deaf(monkeypatch, photos):
    """The environment of a user with a backbone of their own, in which no Ray answers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    return ["extract", photos, *NETWORK, *SIZES]


def test_nodes_of_a_cluster_make_the_entry_of_a_run_alone(tmp_path):
    pytest.importorskip("ray")
    from ray_nodes import Nodes

    log = tmp_path / "log"
    nodes = Nodes(2, {"SLEEPY_SECONDS": "0.2", "SLEEPY_LOG": str(log)})
    make_photos(tmp_path / "photos", per_class=40)
    options = {"batch_size": 4, "shard_rows": 8, "workers": 1, "engine": "reference"}
    alone = pipeline.extract(
        tmp_path / "photos", backbone="sleepy_network:network", cache_dir=tmp_path / "alone", **options
    )
    shutil.copy(Path(__file__).parent / "sleepy_network.py", tmp_path)  # found in the working directory, as the rest
    command = ["extract", "photos", *NETWORK, *SIZES, "--cache-dir", "cache", "--json", "--on", "ray"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GUARDED, *command, "--ray-address", nodes.ready()],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(pipeline.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    nodes.close()
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["cache"], result["rows"], result["computed"]) == (alone.cache, 120, 120)
    made, expected = (sorted(Path(path, "shards").iterdir()) for path in (tmp_path / result["path"], alone.path))
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in expected]
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == 2
    assert "arning" not in done.stderr
    assert "Token" not in done.stderr


def test_a_finished_entry_is_found_without_ray(deaf, cli, remembered):
    made = cli(*deaf, "--json")
    found = cli(*deaf, "--json", "--on", "ray")
    assert json.loads(found.out)["cache"] == json.loads(made.out)["cache"]
    assert (found.code, json.loads(found.out)["computed"]) == (0, 0)


def test_an_installation_without_ray_says_what_to_install(deaf, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = cli(*deaf, "--on", "ray")
    assert refused.code == 2
    assert refused.err.splitlines()[-2:] == [
        "error: --on ray needs Ray, which is not installed",
        "  try: pip install 'feature-pipeline[ray]'",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:10001", None])
def test_a_cluster_that_is_not_there_is_named(deaf, cli, address):
    pytest.importorskip("ray")
    refused = cli(*deaf, "--on", "ray", *(["--ray-address", address] if address else []))
    assert refused.code == 2
    assert (address or os.environ["RAY_ADDRESS"]) in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    "options",
    [["--devices", "cpu,cpu"], ["--worker", "0/2"], ["--device", "cuda:1"], ["--on", "here", "--ray-address", "auto"]],
    ids=" ".join,
)
def test_what_makes_no_sense_with_ray_is_refused(deaf, cli, options):
    refused = cli(*deaf, "--on", "ray", *options)
    assert refused.code == 2
    assert options[-2] in refused.err


def test_a_node_without_the_drivers_directory_says_so():
    answer = Actor().open("/nowhere", {}, [], {})
    assert answer["error"]["kind"] == "cache"
    assert "working directory /nowhere is not to be had here" in answer["error"]["message"]


def test_a_data_set_of_this_process_is_refused_before_any_work(tmp_path):
    dataset = [(None, 0), (None, 1)]
    with pytest.raises(UsageError, match="cannot be given to other processes"):
        pipeline.extract(dataset, backbone="sleepy_network:network", on="ray", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
