"""`pipeline benchmark`, its pieces and the scripts, with the tiniest sizes."""

import json
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.benchmark.child import Child, answer_of
from pipeline.benchmark.claims import epoch_claim, extraction_claim, trained_claim
from pipeline.benchmark.extraction import Case, Effort, Extracted, Rates
from pipeline.benchmark.figures import EXPONENT, SECONDS, SHARE, TIMES, Claim, Figure
from pipeline.benchmark.growth import log_log_slope
from pipeline.benchmark.heads import Trainings
from pipeline.benchmark.photos import KINDS, PHOTOS, SMALL, make_images
from pipeline.benchmark.timing import Spread
from pipeline.benchmark.variants import Variant, fastest
from pipeline.cli.figures import show_claim
from pipeline.console import Screen
from pipeline.errors import PipelineError

SCRIPTS = Path(__file__).parent.parent / "benchmarks"
TINY = ["--quick", "--backbone", "shufflenet_v2_x0_5", "--image-size", 32, "--engine", "reference"]


@pytest.fixture
def temporary(monkeypatch):
    """A folder for temporary files of its own; short, for sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(folder)


def test_claims_on_extraction_from_the_command_line(cli, tmp_path, temporary):
    done = cli("benchmark", *TINY, "--only", "a,b,c,f,g", "-o", tmp_path / "figures.json")
    assert done.code == 0, done.err
    for words in ("machine", "cores to use", "extrapolated from 4 measured batches", "--quick: the sizes are small"):
        assert words in done.out
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["quick"] is True
    assert [claim["claim"] for claim in found["claims"]] == ["a", "b", "c", "f", "g"]
    assert found["machine"]["cores"] >= 1
    for claim in found["claims"]:
        assert claim["conditions"]
        for figure in claim["figures"]:
            assert figure["low"] <= figure["median"] <= figure["high"]
            assert len(figure["values"]) >= 1
            assert figure.get("met") is None
    names = [figure["name"] for figure in found["claims"][0]["figures"]]
    assert names[0] == "bare forward F, reference"
    assert {"loop, 0 workers", "loop, 2 workers", "extract, reference"} <= set(names)
    assert not list(temporary.glob("pipeline*"))


def test_a_folder_whose_name_leaves_no_room_for_sockets_is_refused(cli, temporary, monkeypatch):
    long = temporary / ("n" * 80)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    done = cli("benchmark", *TINY, "--only", "a")
    assert done.code == 2
    assert "too long a name for the sockets of a DataLoader's workers" in done.err
    assert "Set TMPDIR to a shorter one." in done.err


def test_json_is_one_document_with_the_claims_on_heads(cli):
    done = cli("benchmark", "--quick", "--only", "d,e,m", "--json")
    assert done.code == 0
    assert [claim["claim"] for claim in json.loads(done.out)["claims"]] == ["d", "e", "m"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "a,x"], "unknown claim 'x'"),
        (["--engine", "openvina"], "Did you mean 'openvino'?"),
        (["--backbone", "resnet19"], "Did you mean 'resnet"),
        (["--image-size", "0"], "image-size must be at least 1"),
        (["-o", "no/such/folder/f.json"], "there is no folder"),
        (["--images", "."], "images; the loops to compare with take"),
    ],
)
def test_mistakes_are_told_in_a_line(cli, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("benchmark", "--quick", *arguments)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_made_images_are_seeded_all_different_and_as_large_as_real_ones(tmp_path, kind):
    folder, again = (make_images(tmp_path / name, kind, 20) for name in ("one", "two"))
    files = sorted(folder.rglob("*.jpg"))
    data = [path.read_bytes() for path in files]
    assert data == [path.read_bytes() for path in sorted(again.rglob("*.jpg"))]
    assert len(set(data)) == 20
    assert len(list(folder.iterdir())) == 10
    with Image.open(files[0]) as image:
        assert (image.width, image.height) == (kind.width, kind.height)
    mean = sum(map(len, data)) / len(data)
    low, high = (800, 2_500) if kind is SMALL else (50_000, 150_000)
    assert low < mean < high, PHOTOS
    assert np.asarray(Image.open(files[0])).std() > 10


def test_slope_of_a_power_is_its_exponent():
    assert log_log_slope([10, 100, 1000], [3, 300, 30_000]) == pytest.approx(2)
    assert log_log_slope([1, 2, 4], [5, 10, 20]) == pytest.approx(1)


def test_a_child_that_fails_says_why():
    with Child("pipeline.benchmark.growth", "no_such_function") as child, pytest.raises(PipelineError, match="no_such"):
        answer_of(child)


def rates(extract: float, loop: float, backbone: str = "resnet18", engine: str = "openvino") -> Rates:
    variant = Variant(engine, "float32")
    extracted = Extracted(1000, Spread.of(extract), Spread.of(10.0), Spread.of(1.0))
    return Rates(
        Case(backbone, Path("images"), SMALL.name),
        Effort(),
        "cpu",
        2,
        512,
        {variant: Spread.of(100.0)},
        Spread.of(900.0),
        {variant: extracted},
        {0: Spread.of(loop), 2: Spread.of(loop / 2)},
        (),
    )


def by_name(claim: Claim) -> dict[str, Figure]:
    return {figure.name: figure for figure in claim.figures}


def test_extraction_is_held_against_its_bound_and_the_faster_loop():
    figures = by_name(extraction_claim(rates(90.0, 30.0), asked=True))
    assert figures["  of its bound 1/(1/F + 1/D)"].spread.median == pytest.approx(1.0)
    assert figures["  over the loop, 0 workers"].spread.median == pytest.approx(3.0)
    assert figures["  over the loop, 0 workers"].met is True
    assert by_name(extraction_claim(rates(60.0, 30.0), asked=True))["  over the loop, 0 workers"].met is False
    assert by_name(extraction_claim(rates(60.0, 30.0), asked=False))["  over the loop, 0 workers"].met is None


def test_epochs_and_the_time_to_a_head_are_sums_of_what_was_measured(tmp_path):
    trained = Trainings(tmp_path, 9_000, 512, epochs=[0.1], rests=[1.0])
    epoch = by_name(epoch_claim(rates(90.0, 30.0), trained, asked=True))
    assert epoch["epoch end to end"].spread.median == pytest.approx(300)
    assert epoch["  how many times sooner"].spread.median == pytest.approx(3000)
    whole = trained_claim(rates(90.0, 30.0), trained, asked=True)
    seconds = [figure.spread.median for figure in whole.figures if figure.unit == SECONDS]
    assert seconds == pytest.approx([110, 111.1, 300, 111.5, 1500, 121, 30_000])
    times = [figure.spread.median for figure in whole.figures if figure.unit == TIMES]
    assert times == pytest.approx([300 / 111.1, 1500 / 111.5, 30_000 / 121])
    assert whole.figures[-1].spread.median == pytest.approx(111 / 299.9)


def test_the_fastest_exact_engine_is_extracted_with_and_other_dtypes_that_are_faster_still():
    slow, quick, half = Variant("reference", "float32"), Variant("eager", "float32"), Variant("eager", "bfloat16")
    assert fastest({slow: 1.0, quick: 2.0, half: 3.0}) == [quick, half]
    assert fastest({slow: 1.0, quick: 2.0, half: 1.5}) == [quick]
    assert [str(variant) for variant in (slow, half)] == ["reference", "eager bf16"]


def test_tables_fit_eighty_columns(capsys, monkeypatch):
    monkeypatch.setattr("pipeline.console.WIDTH_WITHOUT_TERMINAL", 80)
    wide = Figure("x" * 34, SHARE, Spread.of(0.91234, 0.98765), at_least=0.92)
    long = Figure("verified read", SECONDS, Spread.of(1234.0, 1300.0), at_least=10_000.0)
    show_claim(Screen(), Claim("a", "title", (wide, long, Figure("e", EXPONENT, Spread.of(1.0))), {}))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 6, lines  # nothing was folded
    with pytest.raises(ValueError, match="longer than"):
        Figure("x" * 35, SHARE, Spread.of(1.0))


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_scripts_can_be_imported_and_say_what_they_measure(path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    found = runpy.run_path(str(path), run_name="script")
    if path.stem != "common":
        assert set(found["SMALL"]) <= set(found["FULL"])
        assert path.read_text().startswith('"""(')


def test_a_script_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    target = tmp_path / "results" / "reading.json"
    monkeypatch.setattr(sys, "argv", ["reading.py", "--quick", "--rows", "512", "--json", str(target)])
    runpy.run_path(str(SCRIPTS / "reading.py"), run_name="__main__")
    found = json.loads(target.read_text())
    assert (found["quick"], found["claims"][0]["conditions"]["rows"]) == (True, 512)
    assert "verified read" in capsys.readouterr().out
