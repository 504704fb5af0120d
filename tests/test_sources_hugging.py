"""Hugging Face data sets: made here, saved, opened again without a network."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import make_photos
from images import hugging, rows_of

from pipeline.errors import DataError, PipelineError, UsageError
from pipeline.sources.dataset import dataset_source
from pipeline.sources.hugging import HuggingSource
from pipeline.sources.reading import Reading
from pipeline.sources.resolve import open_source
from pipeline.sources.source import TEST, TRAIN, VAL

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the library's own dependencies


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return rows_of(make_photos(tmp_path_factory.mktemp("hugging") / "photos", 3))


@pytest.fixture
def saved(tmp_path, rows):
    both = {"validation": hugging(rows[:4]), "train": hugging(rows), "odd": hugging(rows[:1])}
    datasets.DatasetDict(both).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_saved_data_set_gives_the_bytes_of_its_files(saved, rows, prefix):
    source = open_source(f"{prefix}{saved}")
    assert isinstance(source, HuggingSource)
    assert source.spec == f"hf:{saved}"
    listing = source.listing()
    assert list(listing.ids) == [f"train/{n}" for n in range(9)] + [f"validation/{n}" for n in range(4)]
    assert listing.splits.tolist() == [TRAIN] * 9 + [VAL] * 4
    assert listing.classes == ("apple", "beet", "corn")
    assert listing.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 3 + [1]
    assert listing.notes == ("splits of other names are left out: odd",)
    for row, path in enumerate([path for path, _ in rows]):
        assert source.payload(f"train/{row}").data == path.read_bytes()
        assert listing.digests[row].tobytes() == hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(DataError, match="no sample train/9"):
        source.payload("train/9")


def test_one_data_set_has_plain_ids_and_columns_are_named(tmp_path, rows):
    one = hugging(rows).rename_columns({"image": "scan", "label": "finding"})
    one.save_to_disk(str(tmp_path / "one"))
    listing = open_source(f"hf:{tmp_path}/one", reading=Reading(group_by="patient")).listing()
    assert list(listing.ids) == [str(n) for n in range(9)]
    assert listing.groups == [f"p{n // 3}" for n in range(9)]
    assert listing.classes == ("apple", "beet", "corn")  # the only ClassLabel
    reading = Reading(image_column="scan", label_column="patient")
    assert open_source(f"hf:{tmp_path}/one", reading=reading).listing().classes == ("p0", "p1", "p2")
    assert open_source(f"hf:{tmp_path}/one", reading=Reading(unlabelled=True)).listing().classes == ()
    for wrong, message in (
        (Reading(label_column="findin"), "no column 'findin' in train; .* Did you mean 'finding'"),
        (Reading(image_column="patient"), "holds str, not encoded images"),
        (Reading(group_by="folder:1"), "no folders to group by"),
        (Reading(group_by="who"), "no column 'who'"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(f"hf:{tmp_path}/one", reading=wrong).listing()


def test_objects_in_memory_are_taken_as_they_are(rows):
    both = datasets.DatasetDict({"test": hugging(rows[:3]), "train": hugging(rows)})
    source = dataset_source(both, "mine", Reading(group_by="patient"))
    listing = source.listing()
    assert (source.spec, len(listing), listing.ids[9]) == ("python:mine", 12, "test/0")
    assert source.payload("test/0").data == rows[0][0].read_bytes()
    assert dataset_source(hugging(rows), None, Reading()).spec == "python:Dataset"
    with pytest.raises(UsageError, match="--path-column means nothing"):
        dataset_source(both, None, Reading(path_column="x"))


def test_rows_without_label_or_image(tmp_path, rows):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    image = {"bytes": rows[0][0].read_bytes(), "path": None}
    table = datasets.Dataset.from_dict({"image": [image, None], "label": [0, -1]}, features=features)
    table.save_to_disk(str(tmp_path / "one"))
    with pytest.raises(DataError, match="1 samples have no label in column 'label': 1"):
        open_source(f"hf:{tmp_path}/one").listing()
    source = open_source(f"hf:{tmp_path}/one", reading=Reading(unlabelled=True))
    assert np.flatnonzero(source.listing().digests.any(axis=1)).tolist() == [0]
    assert source.payload("1").data == b""


def test_files_outside_of_a_saved_data_set_are_not_read(tmp_path):
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("string")})
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": "/etc/passwd"}], "label": ["a"]}, features=features
    )
    source = HuggingSource("hf", "x", (), "image", Reading(), str(tmp_path))
    with pytest.raises(DataError, match="sample 0 is the file /etc/passwd, outside of the data set"):
        source._encoded(table[0]["image"], "0")


def test_what_is_no_data_set_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data set made by save_to_disk"):
        open_source(f"hf:{tmp_path}/empty")
    (tmp_path / "empty" / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match="cannot be opened"):
        open_source(f"hf:{tmp_path}/empty")
    with pytest.raises(DataError, match="no folder"):
        open_source("hf:./gone")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PipelineError, match="needs the package datasets") as caught:
        open_source("hf:somebody/something")
    assert caught.value.hint == "pip install 'feature-pipeline[hf]'"


def test_no_socket_is_opened_for_a_saved_one(saved):
    script = f"""
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event in ("socket.connect", "socket.getaddrinfo") else 0)
from pipeline.sources.resolve import open_source
source = open_source("hf:{saved}")
assert len(source.listing()) == 13
assert source.payload("train/0").data
assert not opened, opened
import os
assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_splits_go_by_their_names(tmp_path, rows):
    datasets.DatasetDict({"test": hugging(rows[:2])}).save_to_disk(str(tmp_path / "a"))
    assert open_source(f"hf:{tmp_path}/a").listing().splits.tolist() == [TEST, TEST]
    datasets.DatasetDict({"a": hugging(rows[:1]), "b": hugging(rows[:1])}).save_to_disk(str(tmp_path / "b"))
    with pytest.raises(DataError, match="has the splits a, b, none of train"):
        open_source(f"hf:{tmp_path}/b")
