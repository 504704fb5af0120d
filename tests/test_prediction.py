"""New images: files, folders, a list on stdin; broken ones are rows with their errors."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE, make_photos

import pipeline
from pipeline.errors import DataError, UsageError
from pipeline.prediction.images import image_files
from pipeline.prediction.write import prediction_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, pipeline.TrainResult]:
    root = tmp_path_factory.mktemp("prediction")
    make_photos(root / "photos", per_class=6)
    made = pipeline.extract(str(root / "photos"), cache_dir=root / "cache", workers=1, test_fraction=0, **SPACE)
    return root, pipeline.train_head(made.path, runs_dir=root / "runs", epochs=2, val_fraction=0)


def predict(trained, *images, **options) -> list[pipeline.Prediction]:
    return list(pipeline.predict(trained[1].path, images, workers=1, **options))


def test_predictions_are_those_of_the_cached_features(trained):
    root, run = trained
    features = pipeline.open_cache(cache_dir=root / "cache")
    wanted = run.head.logits(features.x).softmax(1).numpy()
    found = predict(trained, root / "photos", batch_size=4, top_k=3)
    assert [prediction.path for prediction in found] == [str(root / "photos" / name) for name in features.ids]
    for prediction, row in zip(found, wanted, strict=True):
        order = np.argsort(-row)
        assert [label for label, _ in prediction.top] == [features.classes[place] for place in order]
        assert np.allclose([share for _, share in prediction.top], row[order], atol=1e-5)


def test_what_cannot_be_used_is_a_row_with_its_error(trained, tmp_path):
    root, _ = trained
    good = root / "photos" / "apple" / "00.jpg"
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:300])
    found = predict(trained, tmp_path / "text.jpg", good, tmp_path / "gone.jpg", tmp_path / "cut.jpg", good)
    assert [bool(prediction.error) for prediction in found] == [True, False, True, True, False]
    assert found[1].top == found[4].top
    assert found[0].to_json()["label"] is None
    assert "No such file" in found[2].error


def test_images_are_read_as_they_are_asked_for(trained):
    root, _ = trained
    taken = 0

    def named():
        nonlocal taken
        for path in sorted((root / "photos").rglob("*.jpg")) * 20:
            taken += 1
            yield path

    stream = pipeline.predict(trained[1].path, named(), workers=1, batch_size=2)
    assert taken == 0
    next(stream)
    assert taken <= 2 * 4
    stream.close()


def test_folders_are_gone_through_in_order_and_links_to_folders_are_not_entered(tmp_path):
    for name in ("b/2.png", "a.JPG", "b/1.jpg", ".hidden/3.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    assert [image.path for image in image_files([tmp_path])] == [
        str(tmp_path / name) for name in ("a.JPG", "b/1.jpg", "b/2.png")
    ]
    assert [image.path for image in image_files([tmp_path / "notes.txt"])] == [str(tmp_path / "notes.txt")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        list(image_files([tmp_path / "empty"]))


def test_a_table_lists_images_by_the_names_it_has_for_them(trained, tmp_path):
    root, _ = trained
    (root / "list.csv").write_text("file,note\nphotos/beet/01.jpg,x\nphotos/gone.jpg,y\n")
    found = predict(trained, root / "list.csv", path_column="file")
    assert [(one.path, bool(one.error)) for one in found] == [("photos/beet/01.jpg", False), ("photos/gone.jpg", True)]
    assert found[0].top == predict(trained, root / "photos" / "beet" / "01.jpg")[0].top
    shutil.copy(root / "list.csv", tmp_path / "list.csv")
    moved = predict(trained, tmp_path / "list.csv", path_column="file", data_root=root)
    assert moved == found
    with pytest.raises(DataError, match="no column 'path'"):
        predict(trained, root / "list.csv")


def test_an_entry_is_predicted_from_its_features_with_labels_or_without(cli, trained):
    root, run = trained
    wanted = {one.path: one.top[0][0] for one in predict(trained, root / "photos")}
    made = pipeline.extract(str(root / "photos"), cache_dir=root / "other", workers=1, unlabelled=True, **SPACE)
    said = cli("predict", run.path, "--cache", made.cache, "--cache-dir", root / "other", "--json")
    assert said.code == 0, said.err
    found = {one["path"]: one["label"] for one in json.loads(said.out)["predictions"]}
    assert {str(root / "photos" / name): label for name, label in found.items()} == wanted
    other = pipeline.extract(str(root / "photos"), cache_dir=root / "other", workers=1, **{**SPACE, "image_size": 40})
    refused = cli("predict", run.path, "--cache", other.cache, "--cache-dir", root / "other")
    assert refused.code == 3
    assert "another feature space" in refused.err
    both = cli("predict", run.path, "a.jpg", "--cache", made.cache)
    assert both.code == 2


PREDICTIONS = [
    pipeline.Prediction("a.jpg", (("apple", 0.75), ("beet", 0.25))),
    pipeline.Prediction("odd,\n\udcff.jpg", (), "is empty (0 bytes)"),
]


def test_a_carriage_return_in_a_name_does_not_end_its_row(tmp_path):
    path = tmp_path / "out.csv"
    names = ["plain.jpg", "odd\rname.jpg", "line\nname.jpg"]
    with prediction_file(path, 1) as write:
        for name in names:
            write(pipeline.Prediction(name, (("cat", 1.0),)))
    with path.open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names


def test_csv_has_a_column_a_class_and_the_error(tmp_path):
    with prediction_file(tmp_path / "out.csv", 2) as write:
        for prediction in PREDICTIONS:
            write(prediction)
    data = (tmp_path / "out.csv").read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(data, newline="")))
    assert rows == [
        ["path", "label", "probability", "label_2", "probability_2", "error"],
        ["a.jpg", "apple", "0.750000", "beet", "0.250000", ""],
        ["odd,\n\udcff.jpg", "", "", "", "", "is empty (0 bytes)"],
    ]


def test_json_lines_and_parquet_have_the_same_fields(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for ending in ("jsonl", "parquet"):
        with prediction_file(tmp_path / f"out.{ending}", 2) as write:
            for prediction in PREDICTIONS:
                write(prediction)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [prediction.to_json() for prediction in PREDICTIONS]
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert table[0] == lines[0]
    assert table[1] == {**lines[1], "path": "odd,\n\\xff.jpg"}


def test_a_file_has_its_name_when_all_is_written(tmp_path):
    with pytest.raises(RuntimeError), prediction_file(tmp_path / "out.csv", 1) as write:
        write(PREDICTIONS[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(UsageError, match="exists"), prediction_file(tmp_path / "out.csv", 1):
        pass
    with prediction_file(tmp_path / "out.csv", 1, overwrite=True):
        pass
    assert (tmp_path / "out.csv").read_text().startswith("path,")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"top_k": 0}, "top-k"), ({"batch_size": 0}, "batch-size"), ({"device": "cuda:99"}, "cuda:99")],
)
def test_wrong_wishes_are_refused_at_once(trained, options, said):
    with pytest.raises(UsageError, match=said):
        pipeline.predict(trained[1].path, [], **options)


def test_the_command_writes_csv_to_stdout_and_files_where_asked(cli, trained, monkeypatch):
    root, run = trained
    good = root / "photos" / "apple" / "00.jpg"
    said = cli("predict", run.path, good, "gone.jpg", "--workers", 1, "--top-k", 2)
    assert said.code == 0, said.err
    assert said.out.splitlines()[0] == "path,label,probability,label_2,probability_2,error"
    assert len(said.out.splitlines()) == 3
    assert "1 of 2 images could not be used" in said.err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{good}\n\n{good}\n"))
    listed = cli("predict", run.path, "-", "--workers", 1, "--json")
    document = json.loads(listed.out)
    assert (document["n"], document["failed"], len(document["predictions"])) == (2, 0, 2)
    assert document["run"] == "0001"
    wrote = cli("predict", run.path, root / "photos", "-o", "out.jsonl", "--workers", 1)
    assert "wrote out.jsonl  18 images" in wrote.out
    assert len(Path("out.jsonl").read_text().splitlines()) == 18


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gone.jpg"], 3, "No such file"),
        (["-"], 3, "no image was named"),
        (["gone.jpg", "-o", "out.xlsx"], 2, ".csv, .jsonl, .parquet"),
        (["gone.jpg", "-o", "out.cvs"], 2, "Did you mean '.csv'"),
    ],
    ids=["no file", "no list", "ending", "misspelt"],
)
def test_mistakes_are_one_line(cli, trained, monkeypatch, arguments, code, words):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    done = cli("predict", trained[1].path, *arguments, "--workers", 1)
    assert done.code == code
    assert words in done.err
    assert done.err.count("error:") == 1
    assert "Traceback" not in done.err
