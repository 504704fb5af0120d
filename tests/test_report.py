"""`report`: one page whose figures are those of `evaluate`, escaped, and with nothing from outside."""

import html
import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos

import pipeline
from pipeline.errors import DataError, UsageError
from pipeline.outcomes import outcomes_of
from pipeline.reporting.embedding import embed, map_sample
from pipeline.reporting.render import embedded
from pipeline.reporting.tables import CELL_IMAGES, cell_images, confused_pairs, reliability, worst_errors

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A run of photographs that was evaluated; one class has a hostile name."""
    root = tmp_path_factory.mktemp("report")
    make_photos(root / "photos", per_class=12)
    first = sorted(path for path in (root / "photos").iterdir() if path.is_dir())[0]
    first.rename(first.with_name("<b>&'\"x"))
    pipeline.extract(
        str(root / "photos"), cache_dir=root / "cache", workers=1, test_fraction=0.4, backbone="shufflenet_v2_x0_5",
        weights="none", image_size=32,
    )  # fmt: skip
    pipeline.train_head(cache_dir=root / "cache", runs_dir=root / "runs", epochs=3, val_fraction=0.25)
    pipeline.evaluate(cache_dir=root / "cache", runs_dir=root / "runs")
    pipeline.report(cache_dir=root / "cache", runs_dir=root / "runs", workers=1)
    return root


@pytest.fixture
def where(place):
    return ("--cache-dir", place / "cache", "--runs-dir", place / "runs")


def kept(place: Path) -> dict:
    return json.loads((place / "runs" / "0001" / "evaluation-test.json").read_text())


def page_of(place: Path) -> str:
    return (place / "runs" / "0001" / "report.html").read_text()


def test_figures_are_those_of_evaluate(place):
    metrics, page = kept(place)["metrics"], page_of(place)
    shown = dict(re.findall(r'data-metric="(\w+)" data-value="([^"]+)"', page))
    assert {name: float(value) for name, value in shown.items()} == {name: metrics[name] for name in shown}
    assert {"accuracy", "macro_f1", "nll", "brier", "ece"} <= set(shown)
    cells = [int(n) for n in re.findall(r'data-n="(\d+)"', page)]
    assert cells == [n for row in metrics["confusion_matrix"] for n in row]
    scaled = dict(re.findall(r'data-calibrated="(\w+)" data-value="([^"]+)"', page))
    assert {name: float(value) for name, value in scaled.items()} == {
        name: metrics["calibrated"][name] for name in ("nll", "brier", "ece")
    }


def test_names_are_text_and_nothing_is_loaded(place):
    page = page_of(place)
    assert "<b>&'" not in page
    assert "&lt;b&gt;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", page)
    assert "default-src 'none'" in html.unescape(page)


def test_data_cannot_end_its_element():
    text = embedded({"name": HOSTILE})
    assert "<" not in text
    assert json.loads(text) == {"name": HOSTILE}


def test_page_works_without_images_and_says_so(place, where, cli, tmp_path):
    moved = place / "photos"
    moved.rename(place / "elsewhere")
    try:
        done = cli("report", "latest", "-o", tmp_path / "page.html", *where)
    finally:
        (place / "elsewhere").rename(moved)
    assert done.code == 0
    assert "No images" in (tmp_path / "page.html").read_text()


def test_command_says_where_and_what_next(where, cli, tmp_path):
    done = cli("report", "latest", "--no-images", "-o", tmp_path / "page.html", "--json", *where)
    said = json.loads(done.out)
    assert (said["run"], said["images"], said["bytes"]) == ("0001", 0, (tmp_path / "page.html").stat().st_size)


def test_run_without_evaluation_is_refused_with_the_command(place, tmp_path):
    shutil.copytree(place / "runs" / "0001", tmp_path / "0001")
    (tmp_path / "0001" / "evaluation-test.json").unlink()
    with pytest.raises(DataError) as error:
        pipeline.report("0001", runs_dir=tmp_path, cache_dir=place / "cache")
    assert "pipeline evaluate 0001" in error.value.hint


def test_folder_as_output_is_refused(place, tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        pipeline.report(runs_dir=place / "runs", cache_dir=place / "cache", output=tmp_path)


def outcomes(n: int = 400, classes: int = 4):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    y = rng.integers(classes, size=n)
    names = tuple(f"c{k}" for k in range(classes))
    digests = np.zeros((n, 32), np.uint8)
    return outcomes_of(logits, y, None, classes=names, ids=tuple(map(str, range(n))), digests=digests)


def test_worst_errors_are_wrong_and_fall_in_confidence():
    found = outcomes()
    worst = worst_errors(found)
    assert not found.right[worst].any()
    assert (np.diff(found.confidence[worst]) <= 0).all()


def test_images_of_a_cell_are_of_that_cell():
    found = outcomes()
    cells = cell_images(found, [(0, 1), (2, 2)])
    assert {key: len(rows) for key, rows in cells.items()} == {"0,1": CELL_IMAGES, "2,2": CELL_IMAGES}
    assert set(found.y[cells["0,1"]]) == {0}
    assert set(found.predicted[cells["0,1"]]) == {1}


def test_pairs_leave_out_the_diagonal_and_start_with_the_most_frequent():
    assert confused_pairs([[5, 1], [3, 1]]) == [
        {"true": 1, "said": 0, "n": 3, "share": 0.75},
        {"true": 0, "said": 1, "n": 1, "share": 1 / 6},
    ]


def test_bins_add_up_to_the_calibration_error():
    found = outcomes()
    bins = reliability(found.confidence, found.right)
    assert sum(b["n"] for b in bins) == len(found)
    assert sum(b["n"] * b["accuracy"] for b in bins) == pytest.approx(found.right.sum())


def test_map_is_a_fixed_sample_in_the_unit_square():
    rows = map_sample(5000)
    assert (len(rows), len(set(rows.tolist()))) == (1500, 1500)
    x = np.random.default_rng(0).normal(size=(40, 6))
    found = embed(x, np.arange(40))
    assert found is not None
    for points in (found.pca, found.tsne):
        assert points.min() >= -1e-6
        assert points.max() <= 1 + 1e-6
    assert embed(np.ones((40, 6)), np.arange(40)) is None


def test_sweep_is_shown_best_first(place, tmp_path):
    folders = {"cache_dir": place / "cache", "runs_dir": tmp_path / "runs"}
    swept = pipeline.sweep(
        grid=pipeline.Grid(lr=(0.1, 0.001), weight_decay=(0.0,), transforms=("plain",)),
        settings=pipeline.HeadSettings(epochs=2),
        **folders,
    )
    pipeline.evaluate(**folders)
    pipeline.report(images=False, output=tmp_path / "page.html", **folders)
    section = (tmp_path / "page.html").read_text().split('id="sweep"')[1].split("</section>")[0]
    assert re.findall(r"<td>([\d.]+)</td>", section) == [str(one.settings.lr) for one in swept.candidates]


def test_figures_are_written_or_refused_before_any_work(place, tmp_path):
    folders = {"cache_dir": place / "cache", "runs_dir": place / "runs"}
    page = tmp_path / "page.html"
    if find_spec("matplotlib") is None:
        with pytest.raises(UsageError, match="matplotlib"):
            pipeline.report(images=False, output=page, figures=tmp_path / "plots", **folders)
        assert not page.exists()
        return
    made = pipeline.report(images=False, output=page, figures=tmp_path / "plots", **folders)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == set(made.figures)
    assert {"confusion.png", "reliability.svg", "training.svg"} <= set(made.figures)
