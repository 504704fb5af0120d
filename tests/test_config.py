"""Experiment files: what is read, what wins, what is refused."""

from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.config import HeadConfig, parse_change, read_config
from pipeline.errors import UsageError
from pipeline.head_arguments import sweep_arguments
from pipeline.heads.grid import Grid
from pipeline.heads.settings import HeadSettings

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
SMALL = '[extract]\nsource = "digits"\nbackbone = "resnet18"\n'


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "a.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_begin_with_their_command(path):
    read_config(path)
    lines = path.read_text().splitlines()
    assert lines[0].startswith(f"# pipeline run configs/{path.name}")
    assert all(line.startswith("# ") for line in lines[1:4])
    assert lines[3].startswith("# Expect")


def test_defaults_are_the_reference_recipe(file):
    config = read_config(file(SMALL))
    assert (config.head.optimizer, config.head.lr, config.head.epochs, config.head.batch_size) == ("adam", 1e-3, 5, 64)
    assert config.evaluate.split == "test"


def test_defaults_are_those_of_the_library():
    """The file's model may not import the heads, so its defaults are written twice: they must not drift apart."""
    defaults = HeadConfig().model_dump()
    assert {key: defaults[key] for key in asdict(HeadSettings())} == asdict(HeadSettings())


def test_what_a_sweep_does_not_list_is_the_heads_or_its_own(file):
    def grid(text: str) -> Grid:
        return sweep_arguments(read_config(file(SMALL + text)))["grid"]

    assert grid("[sweep]\n") == Grid()
    assert grid("[head]\nlr = 0.5\nseed = 3\n[sweep]\n") == Grid(lr=(0.5,), seeds=(3,))
    assert grid("[head]\nlr = 0.5\n[sweep]\nlr = 0.1\nseeds = 2\n") == Grid(lr=(0.1,), seeds=(0, 1))
    assert grid("[head]\nl2_norm = true\n[sweep]\n") == Grid(transforms=("l2-norm",))
    assert grid('[head]\nsolver = "exact"\nC = 1\n[sweep]\nl2 = [1, 2]\n') == Grid(l2=(1.0, 2.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[head]\nsolver = "knn"\n[sweep]\n', "sweep: sweep has no solver 'knn'"),
        ('[head]\nsolver = "exact"\n[sweep]\nlr = [1]\n', "--lr does not go with --solver exact"),
        ("[sweep]\nlr = [-1]\n", "sweep: lr must be above 0"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(file, text, said):
    with pytest.raises(UsageError) as error:
        sweep_arguments(read_config(file(SMALL + text)))
    assert said in error.value.message


def test_changes_win_over_the_file(file):
    path = file(SMALL + "[head]\nlr = 0.5\n")
    config = read_config(path, {"head.lr": 0.01, "extract.mean": [0.1, 0.2, 0.3], "device": "cpu"})
    assert (config.head.lr, config.extract.mean, config.device) == (0.01, (0.1, 0.2, 0.3), "cpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "[head]\nlearning_rate = 1\n", "unknown key head.learning_rate"),
        (SMALL + "[head]\nepoch = 1\n", "Did you mean 'epochs'"),
        (SMALL + "[heads]\nlr = 1\n", "Did you mean 'head'"),
        (SMALL + '[head]\nlr = "fast"\n', "head.lr = 'fast'"),
        (SMALL + '[head]\noptimizer = "lion"\n', "head.optimizer"),
        (SMALL + "[sweep]\nlrs = [1]\n", "unknown key sweep.lrs. Did you mean 'lr'"),
        (SMALL + "[sweep]\nlr = ['fast']\n", "sweep.lr.0 = 'fast'"),
        (SMALL + "[sweep]\nseeds = 0\n", "a number of seeds is from 1"),
        ("[extract]\nsource = 'digits'\n", "extract.backbone is missing"),
        ("a = [", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_the_nearest(file, text, said):
    with pytest.raises(UsageError) as error:
        read_config(file(text))
    assert said in error.value.message


def test_all_problems_are_told_at_once(file):
    with pytest.raises(UsageError) as error:
        read_config(file("[extract]\nsorce = 'digits'\nbackbone = 3\n"))
    for said in ("extract.source is missing", "extract.sorce", "extract.backbone"):
        assert said in error.value.message


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("head.lr=0.01", "head.lr", 0.01),
        ("extract.source=./photos", "extract.source", "./photos"),
        ("extract.mean=[0.5, 0.5, 0.5]", "extract.mean", [0.5, 0.5, 0.5]),
        ("evaluate.end_to_end=true", "evaluate.end_to_end", True),
    ],
)
def test_changes_are_toml_values_or_strings(text, key, value):
    assert parse_change(text) == (key, value)


def test_change_without_equals_sign():
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_change("head.lr")
