"""The examples in the documents, run as they stand, with a small network in place of one to be downloaded."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
SMALL = {
    "backbone": "shufflenet_v2_x0_5",
    "weights": str(Path(pipeline.__file__).parent / "data" / "shufflenet_v2_x0_5-cifar10.safetensors"),
    "image_size": 48,
    "limit": 600,
    "test_fraction": 0.2,
}
ACCURACY = re.compile(r": (0\.\d+|1\.000)$|  +(0\.\d+|1\.000)$", re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a cache of the digits."""
    folder = tmp_path_factory.mktemp("examples")
    pipeline.extract("digits", cache_dir=folder / "cache", workers=1, **SMALL)
    return folder


def run(code: str, folder: Path) -> str:
    code = code.replace('backbone="resnet18"', ", ".join(f"{name}={value!r}" for name, value in SMALL.items()))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["scikit_learn.py", "custom_module.py"])
def test_an_example_runs_and_says_how_good_it_is(place, name):
    said = run((EXAMPLES / name).read_text(), place)
    accuracies = [float(first or second) for first, second in ACCURACY.findall(said)]
    assert accuracies, said
    assert all(0.5 < accuracy <= 1 for accuracy in accuracies), said


def test_a_head_of_ones_own_is_a_run_like_any_other(place):
    listed = subprocess.run(
        [sys.executable, "-m", "pipeline", "runs", "--json"], cwd=place, capture_output=True, text=True, check=True
    )
    [mine] = [found for found in json.loads(listed.stdout)["runs"] if found["run"].endswith("-mine")]
    assert list(pipeline.fuse(mine["run"], runs_dir=place / "runs").fc.modules())[-1].out_features == 10


def test_the_notebook_runs_cell_by_cell(place):
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    said = run(code, place)
    assert len(ACCURACY.findall(said)) == 6, said
