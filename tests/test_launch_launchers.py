"""The launchers of docs/SCALING.md, started for real where they are to be had, else imitated by what they set."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_photos

from pipeline.launch.share import Share
from pipeline.store.statindex import GRANULARITY_NS

ROOT = Path(__file__).parent.parent
SCALING = (ROOT / "docs" / "SCALING.md").read_text()
SMALL = "--backbone sleepy_network:network --batch-size 4 --shard-rows 8 --workers 1 --engine reference --json"


def line_with(text: str) -> str:
    """The one line of the page's blocks that has `text`, for a tiny network."""
    found = [
        line
        for block in re.findall(r"^```\w+\n(.*?)^```", SCALING, flags=re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if text in line and "pipeline extract" in line
    ]
    assert len(found) == 1, found
    return found[0].replace("--backbone resnet18", SMALL).replace("cuda:{}", "cpu").replace("/shared/", "./")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with ./photos, where the `pipeline` command is this package's."""
    make_photos(tmp_path / "photos", per_class=8)
    command = tmp_path / "bin" / "pipeline"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline "$@"\n')
    command.chmod(0o755)
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(command.parent), str(scripts), os.environ["PATH"]]))
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    return tmp_path


def shards(entry: Path) -> list[bytes]:
    """The bytes of an entry's shards."""
    return [path.read_bytes() for path in sorted((entry / "shards").iterdir())]


def documents(text: str) -> list[dict]:
    """What several workers printed, each its own document."""
    found, at = [], 0
    while at < len(text.strip()):
        document, length = json.JSONDecoder().raw_decode(text[at:].lstrip())
        found.append(document)
        at += len(text[at:]) - len(text[at:].lstrip()) + length
    return found


def settle(folder: Path) -> None:
    """Wait until the files of `folder` are so old that workers believe each other's records of them."""
    newest = max(path.stat().st_ctime_ns for path in folder.rglob("*"))
    time.sleep(max(0, newest + GRANULARITY_NS - time.time_ns()) / 1e9 + 0.05)


@pytest.mark.parametrize(("launcher", "count"), [("torchrun", 2), ("xargs", 2)])
def test_a_launcher_starts_workers_that_return_the_same_entry(place, cli, launcher, count):
    command = line_with(launcher).replace("seq 0 3", "seq 0 1").replace("{}/4", "{}/2")
    settle(place / "photos")
    done = subprocess.run(command, shell=True, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = documents(done.stdout)
    assert sorted(document["worker"]["index"] for document in found) == list(range(count))
    assert {document["worker"]["count"] for document in found} == {count}
    assert len({document["cache"] for document in found}) == 1
    assert sum(document["computed"] for document in found) == 24
    assert {document["computed"] + document["elsewhere"] + document["reused"] for document in found} == {24}
    assert "Traceback" not in done.stderr
    alone = json.loads(cli("extract", place / "photos", *SMALL.split(), "--cache-dir", place / "alone").out)
    assert found[0]["cache"] == alone["cache"]
    assert shards(place / found[0]["path"]) == shards(place / alone["path"])


IMITATED = {
    "srun": {
        **{"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_ARRAY_TASK_MIN": "0"},
        **{"SLURM_ARRAY_TASK_MAX": "15", "SLURM_ARRAY_TASK_STEP": "1", "SLURM_PROCID": "0"},
        **{"SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1"},
    },
    "JOB_COMPLETION_INDEX": {"JOB_COMPLETION_INDEX": "2"},
}


@pytest.mark.parametrize(("launcher", "count"), [("srun", 16), ("JOB_COMPLETION_INDEX", 8)])
def test_a_line_for_a_cluster_works_with_what_the_cluster_sets(place, cli, monkeypatch, launcher, count):
    for name, value in IMITATED[launcher].items():
        monkeypatch.setenv(name, value)
    line = line_with(launcher)
    words = os.path.expandvars(line[line.index("pipeline extract") :].rstrip('"]')).split()
    done = cli(*words[1:])
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["worker"] == {"index": 2, "count": count}
    assert (found["computed"], found["elsewhere"], found["reused"]) == (24, 0, 0)
    told = Share.of(words[words.index("--worker") + 1] if "--worker" in words else None).told_by
    assert ("SLURM_ARRAY_TASK_ID" in done.err) == (told != "--worker")
    assert f"this is worker 2 of {count}" in done.err
