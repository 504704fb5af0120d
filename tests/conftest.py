"""Real things, tiny: images on disk, random-weight backbones, the command line in this process."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.digest import sha256_json

# Threads that wait without spinning: on a busy machine, tiny networks are many times faster so.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

BACKBONE = ["--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--image-size", "32"]
"""Options of a small backbone that needs no download."""
SPACE = {"backbone": "shufflenet_v2_x0_5", "weights": "none", "image_size": 32}
"""The same for the Python API."""


def make_image(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A colour gradient with noise: real enough to be compressed, different for each seed."""
    rng = np.random.default_rng(seed)
    base = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    return Image.fromarray(np.clip(base * rng.random(3) + rng.normal(0, 20, base.shape), 0, 255).astype(np.uint8))


def make_photos(root: Path, per_class: int = 12, classes: tuple[str, ...] = ("apple", "beet", "corn")) -> Path:
    """Write `root/<class>/NN.jpg`."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            make_image(1000 * number + index).save(root / name / f"{index:02d}.jpg", quality=90)
    return root


def make_manifest(**changes) -> dict:
    """The fields of a manifest that hold nothing of interest."""
    nothing = {"sha256": "0" * 64, "bytes": 0, "count": 0}
    space = {
        **dict.fromkeys(("architecture", "weights", "layer", "pool", "dtype"), "tiny"),
        "preprocess": {},
        "store_dtype": "float32",
        "row_shape": [4],
    }
    recipe = {"engine": "reference", "engine_version": "1", "device": "cpu", "threads": 1}
    body = {
        "format": "pipeline-entry",
        "format_version": 1,
        "id": "0" * 64,
        "space": space,
        "space_sha256": sha256_json(space),
        "backbone": {"name": "torchvision/tiny", "weights": "none"},
        "source": {"kind": "folder", "spec": "photos"},
        "classes": ["all"],
        "rows": 0,
        "samples_listed": 0,
        "splits": {},
        "split_rule": None,
        "samples": nothing,
        "skipped": nothing,
        "shards": [],
        "recipe": {**recipe, "batch_size": 4, "shard_rows": 8},
        "versions": {},
        "command": "",
        "created": "2026-01-01T00:00:00+00:00",
    }
    return {**body, **changes}


TALLY = pytest.StashKey[list[str]]()


@pytest.fixture
def tally(request):
    """Count trials: `tally("bit flips", 1000, "1,000 detected")` is printed at the end of the run."""
    lines = request.config.stash.setdefault(TALLY, [])

    def count(what: str, number: int, outcome: str) -> None:
        lines.append(f"{number:>9,} {what}: {outcome}")

    return count


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(TALLY, [])
    if lines:
        terminalreporter.section("counts of the fault campaign")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def seeded():
    """Let every test draw the same random numbers, whatever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def remembered(monkeypatch):
    """Let files made a moment ago be remembered by the stat index, as files are that lay there for seconds."""
    monkeypatch.setattr("pipeline.store.statindex.GRANULARITY_NS", -(10**18))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """36 JPEG files of 3 classes."""
    return make_photos(tmp_path / "photos")


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run a command in this process, in a folder of its own."""
    from pipeline.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Result(exit_info.value.code or 0, said.out, said.err)

    return run


def shared_folder() -> Path | None:
    """The folder with the real inputs, if it is there."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("PIPELINE_SHARED", default))
    return folder if (folder / "data" / "cifar10-jpeg.tar.gz").is_file() else None
