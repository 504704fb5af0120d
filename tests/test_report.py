"""`report`: one page whose figures are those of `evaluate`, escaped, and with nothing from outside."""

import html
import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos

import pipeline
from pipeline.auditing.leaks import Leak
from pipeline.auditing.result import Duplicate, Row
from pipeline.errors import DataError, UsageError
from pipeline.learning_curve import read_curve, write_curve
from pipeline.metrics import calibration_error, reliability_bins
from pipeline.outcomes import outcomes_of
from pipeline.progress import Progress
from pipeline.reporting.audit_section import SUSPECTS, audit_section, shown_pairs
from pipeline.reporting.charts import scale
from pipeline.reporting.curve_section import curve_section
from pipeline.reporting.embedding import embed, map_sample
from pipeline.reporting.names import visible
from pipeline.reporting.render import embedded
from pipeline.reporting.tables import CELL_IMAGES, cell_images, confused_pairs, worst_errors
from pipeline.runs import find_run
from pipeline.store.commit import read_json, write_json

CURVE = {"fractions": (0.5, 0.75, 1.0)}
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A run of photographs that was evaluated; one class has a hostile name."""
    root = tmp_path_factory.mktemp("report")
    make_photos(root / "photos", per_class=12)
    first = sorted(path for path in (root / "photos").iterdir() if path.is_dir())[0]
    first.rename(first.with_name("<b>&'\"x\u202e"))
    pipeline.extract(
        str(root / "photos"), cache_dir=root / "cache", workers=1, test_fraction=0.4, backbone="shufflenet_v2_x0_5",
        weights="none", image_size=32,
    )  # fmt: skip
    pipeline.train_head(cache_dir=root / "cache", runs_dir=root / "runs", epochs=3, val_fraction=0.25)
    pipeline.evaluate(cache_dir=root / "cache", runs_dir=root / "runs", end_to_end=True, workers=1)
    _, folder = pipeline.audit(cache_dir=root / "cache", runs_dir=root / "runs", folds=2, workers=1)
    write_curve(folder, pipeline.learn_curve(cache_dir=root / "cache", val_fraction=0.25, draws=2, **CURVE))
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


def test_intervals_are_those_of_evaluate(place):
    metrics, page = kept(place)["metrics"], page_of(place)
    cards = re.findall(r'data-metric="(\w+)".*?class="interval">95% ([\d.]+)–([\d.]+)(%?)<', page, re.DOTALL)
    assert {name for name, *_ in cards} >= {"accuracy", "macro_f1", "nll", "brier", "ece"}
    for name, low, high, percent in cards:
        scale, digits = (100, 1) if percent else (1, 3)
        assert [low, high] == [f"{scale * end:.{digits}f}" for end in metrics["intervals"][name]]


def test_classes_are_those_of_evaluate(place):
    table = page_of(place).split('id="per-class"')[1].split("</table>")[0]
    rows = re.findall(
        r'<th scope="row"><bdi>(.*?)</bdi></th>' + 4 * r'<td class="number" data-value="([^"]+)">(.*?)</td>', table
    )
    assert len(rows) == len(kept(place)["metrics"]["per_class"]) == 3
    for (name, n, _, *shares), row in zip(rows, kept(place)["metrics"]["per_class"], strict=True):
        assert (html.unescape(name), int(n)) == (visible(row["class"]), row["n"])
        expected = [row[key] for key in ("precision", "recall", "f1")]
        assert [float(value) for value in shares[::2]] == expected
        assert shares[1::2] == [f"{100 * share:.2f}%" for share in expected]


def test_end_to_end_is_that_of_evaluate(place):
    shown = dict(re.findall(r'data-end="(\w+)" data-value="([^"]+)"', page_of(place)))
    assert set(shown) == {"accuracy", "prediction_agreement", "max_abs_logit_difference"}
    assert {name: float(value) for name, value in shown.items()} == {
        name: kept(place)["end_to_end"][name] for name in shown
    }


def findings(place: Path) -> Path:
    [folder] = (place / "audits").iterdir()
    return folder


def section_of(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_suspects_of_the_audit_are_shown_with_their_images(place):
    found, section = pipeline.read_audit(findings(place)), section_of(page_of(place), "audit")
    suspects = [one for labels in (found.labels, found.test_labels) for one in labels.suspects[:SUSPECTS]]
    assert suspects
    alts = [
        html.unescape(alt) for alt in re.findall(r'<img src="data:image/jpeg;base64,[\w+/=]+" alt="(.*?)">', section)
    ]
    wanted = [f"{one.id}: labelled {one.label}, suggested {one.suggested}" for one in suspects]
    assert alts[-len(suspects) :] == [visible(alt) for alt in wanted]
    assert f'data-leaks="{len(found.leaks)}"' in section


def row(name: str, split: str = "train", label: str = "apple") -> Row:
    return Row(name, split, label)


def test_copies_with_two_labels_come_first_then_those_across_splits(place):
    pairs = [
        Duplicate("copy", row("a"), row("b"), 0.8, 0.1),
        Duplicate("copy", row("c"), row("d"), 0.9, 0.1),
        Duplicate("mirrored", row("e"), row("f", "test"), 0.7, 0.1),
        Duplicate("exact", row("g"), row("h", label="beet"), 1.0, 0.0),
        Duplicate("twin", row("i"), row("j", "test"), 0.95, 0.5),
    ]
    found = replace(pipeline.read_audit(findings(place)), duplicates=tuple(pairs))
    assert [one.a.id for one in shown_pairs(found)] == ["g", "e", "c", "a"]
    run = find_run(place / "runs", "0001")
    section = audit_section(found, run, pipeline.read_outcomes(run), {})
    assert (section["copies"], section["conflicts"]) == (4, 1)


def test_accuracy_without_leaks_is_of_the_run_whose_page_it_is(place):
    run = find_run(place / "runs", "0001")
    outcomes = pipeline.read_outcomes(run)
    leaks = (Leak(outcomes.ids[0], "exact", "a", "train"),)
    found = replace(pipeline.read_audit(findings(place)), leaks=leaks, effect=None)
    effect = audit_section(found, run, outcomes, {})["effect"]
    assert (effect.run, effect.accuracy) == ("0001", kept(place)["metrics"]["accuracy"])
    assert effect.clean_accuracy == pytest.approx(outcomes.right[1:].mean())


def test_learning_curve_is_the_one_that_was_kept(place):
    curve, section = read_curve(findings(place)), section_of(page_of(place), "learning-curve")
    shown = re.findall(r'<td class="number" data-value="([^"]+)">(.*?)</td>', section)
    means = [point["val_accuracy"] for point in curve["points"]]
    assert shown == [(str(mean), f"{100 * mean:.2f}%") for mean in means]
    assert section.count("<circle") == len(means)
    assert curve["no_extrapolation"] in section


def test_foretold_accuracy_is_drawn_above_the_last(place):
    curve = read_curve(findings(place))
    found = {
        "a": 0.9,
        "b": 0.5,
        "c": 0.5,
        "rows": 2 * curve["points"][-1]["rows"],
        "gain": 0.02,
        "gain_ci95": [0.01, 0.03],
    }
    drawn = curve_section({**curve, "extrapolation": found, "verdict": "yes"})
    last, foretold = drawn["dots"][-1], drawn["foretold"]
    assert foretold["accuracy"] == curve["points"][-1]["val_accuracy"] + 0.02
    assert foretold["x"] > last["x"]
    assert foretold["bar"][1] < foretold["y"] < foretold["bar"][0] < last["y"]
    assert drawn["verdict"] == "More data helps"


@pytest.mark.parametrize(
    ("low", "high"), [(0.2, 0.73), (0.0, 1.0), (0.99, 1.0), (0.26, 1.03), (0.7, 0.7), (12.0, 90.0)]
)
def test_scales_are_round_and_hold_their_values(low, high):
    ticks = scale(low, high)
    assert 2 <= len(ticks) <= 6
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])


def test_what_is_missing_names_its_command(place, cli, tmp_path):
    (tmp_path / "none").mkdir()
    where = ("--cache-dir", place / "cache", "--runs-dir", place / "runs", "--no-images", "-o", tmp_path / "page.html")
    done = cli("report", "latest", "--findings", tmp_path / "none", *where)
    assert done.code == 3
    assert "has neither audit.json nor learning-curve.json" in done.err
    folder = findings(place)
    shutil.copytree(folder, tmp_path / "kept")
    (tmp_path / "kept" / "audit.json").unlink()
    body = read_json(tmp_path / "kept" / "learning-curve.json")
    write_json(tmp_path / "kept" / "learning-curve.json", {**body, "manifest_sha256": "0" * 64}, replace=True)
    done = cli("report", "latest", "--findings", tmp_path / "kept", *where)
    assert "is of other data than this run was trained on" in done.err
    assert f"next: pipeline audit {folder.name}" in done.err
    page = html.unescape((tmp_path / "page.html").read_text())
    for name, command in (("audit", "audit"), ("learning-curve", "learn-curve")):
        assert f"pipeline {command} {folder.name} --cache-dir {place / 'cache'}" in section_of(page, name)


def test_names_are_text_and_nothing_is_loaded(place):
    page = page_of(place)
    assert "<b>&'" not in page
    assert "&lt;b&gt;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:image/jpeg;base64,)""", page)
    assert "default-src 'none'" in html.unescape(page)


def test_directions_and_separators_in_names_are_spelt_out(place):
    page = page_of(place)
    assert "\u202e" not in page
    assert page.count("x\\u202e") > 5
    [data] = re.findall(r'id="data">(.*?)</script>', page)
    assert "<b>&'\"x\\u202e" in json.loads(data)["classes"]
    assert visible("\u202egnp.exe\u2028 caf\udce9\x1b") == "\\u202egnp.exe\\u2028 caf\\udce9\\x1b"
    assert visible("می\u200cخواهم 猫") == "می\u200cخواهم 猫"


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
    assert said["audited"]
    done = cli("report", "latest", "--no-images", "-o", tmp_path / "page.html", *where)
    assert "next: pipeline export 0001" in done.err


def test_run_without_evaluation_is_refused_with_the_command(place, tmp_path):
    shutil.copytree(place / "runs" / "0001", tmp_path / "0001")
    (tmp_path / "0001" / "evaluation-test.json").unlink()
    with pytest.raises(DataError) as error:
        pipeline.report("0001", runs_dir=tmp_path, cache_dir=place / "cache")
    assert f"pipeline evaluate {tmp_path / '0001'}" in error.value.hint


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
    assert confused_pairs([[1, 0, 3], [0, 1, 1]], [6, 4]) == [
        {"true": 1, "said": 0, "n": 3, "share": 0.75},
        {"true": 0, "said": 1, "n": 1, "share": 1 / 6},
    ]


def test_bins_add_up_to_the_calibration_error():
    found = outcomes()
    bins = reliability_bins(found.confidence, found.right)
    assert sum(b.n for b in bins) == len(found)
    assert sum(b.n * b.accuracy for b in bins) == pytest.approx(found.right.sum())
    gaps = sum(b.n * abs(b.accuracy - b.confidence) for b in bins)
    assert gaps / len(found) == pytest.approx(calibration_error(found.confidence, found.right))


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
    told: list[Progress] = []
    pipeline.report(images=False, output=tmp_path / "page.html", on_map=told.append, **folders)
    assert [(one.done, one.total) for one in told] == [(0, told[1].done), (told[1].done, told[1].done)]
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
    assert {name.partition(".")[0] for name in made.figures} == {
        "confusion",
        "learning-curve",
        "reliability",
        "training",
    }
    assert len(made.figures) == 8
