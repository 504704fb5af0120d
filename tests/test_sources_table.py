"""Tables of paths and labels: what is read, and what is refused in one line."""

import os
import sys

import numpy as np
import pytest
from conftest import BACKBONE, make_photos
from images import rows_of, write_table

from pipeline.errors import DataError, PipelineError, UsageError
from pipeline.sources.reading import Reading
from pipeline.sources.resolve import open_source
from pipeline.sources.source import TEST, TRAIN, VAL
from pipeline.sources.table import TableSource


@pytest.fixture
def place(tmp_path):
    make_photos(tmp_path / "photos", 3)
    return tmp_path


def rows(place):
    return [(path.relative_to(place).as_posix(), label) for path, label in rows_of(place / "photos")]


def test_paths_labels_splits_and_groups_come_from_their_columns(place):
    splits = ["train", "Val", "TEST"] * 3
    lines = [(*row, split, f"g{n // 2}") for n, (row, split) in enumerate(zip(rows(place), splits, strict=True))]
    source = open_source(str(write_table(place / "a.csv", ("path", "label", "split", "group"), lines)))
    assert isinstance(source, TableSource)
    listing = source.listing()
    assert list(listing.ids) == [path for path, _ in rows(place)]
    assert listing.classes == ("apple", "beet", "corn")
    assert listing.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert listing.splits.tolist() == [TRAIN, VAL, TEST] * 3
    assert listing.groups == ["g0", "g0", "g1", "g1", "g2", "g2", "g3", "g3", "g4"]
    found = os.stat(place / listing.ids[4])
    assert listing.stats is not None
    assert listing.stats[4].tolist() == [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    assert source.payload(listing.ids[4]).path == str(place / listing.ids[4])


def test_columns_of_other_names_and_another_root(place):
    lines = [(label, path.removeprefix("photos/"), number) for number, (path, label) in enumerate(rows(place))]
    (place / "lists").mkdir()
    table = write_table(place / "lists" / "a.tsv", ("kind", "file", "who"), lines, "\t")
    reading = Reading(path_column="file", label_column="kind", group_by="who")
    source = open_source(str(table), data_root=place / "photos", reading=reading)
    listing = source.listing()
    assert listing.ids[0] == "apple/00.jpg"
    assert listing.groups == [str(number) for number in range(9)]
    assert source.describe()["reading"] == reading.to_json()
    assert source.describe()["data_root"] == source.folder == str(place / "photos")
    again = open_source(
        source.spec, data_root=place / "photos", reading=Reading.from_json(source.describe()["reading"])
    )
    assert again.listing().ids == listing.ids


def test_labels_that_are_numbers_are_ordered_as_numbers(place):
    table = write_table(place / "a.csv", ("path", "label"), [(rows(place)[n][0], n * 2) for n in range(6)])
    listing = open_source(str(table)).listing()
    assert listing.classes == ("0", "2", "4", "6", "8", "10")
    assert listing.labels.tolist() == list(range(6))


def test_the_prefix_takes_a_table_by_any_name_and_a_byte_order_mark_is_no_part_of_it(place):
    text = "path,label\r\n" + "".join(f"./{path},{label}\r\n" for path, label in rows(place)) + "\r\n"
    (place / "list.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert open_source(f"table:{place}/list.txt").listing().ids[0] == "photos/apple/00.jpg"


def test_parquet_is_read_as_csv_is(place):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths, labels = zip(*rows(place), strict=True)
    encoded = arrow.array(labels).dictionary_encode()
    parquet.write_table(arrow.table({"path": paths, "label": encoded, "n": [1.5] * 9}), place / "a.parquet")
    table = write_table(place / "a.csv", ("path", "label"), rows(place))
    ours, theirs = open_source(str(place / "a.parquet")).listing(), open_source(str(table)).listing()
    assert (ours.ids, ours.classes) == (theirs.ids, theirs.classes)
    assert np.array_equal(ours.labels, theirs.labels)
    with pytest.raises(DataError, match=r"labels that are empty or no names, like 1\.5 \(row 0, 1"):
        open_source(str(place / "a.parquet"), reading=Reading(label_column="n")).listing()
    (place / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a Parquet table"):
        open_source(str(place / "b.parquet")).listing()


def test_without_pyarrow_one_line_says_how_to_get_it(place, monkeypatch):
    (place / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(PipelineError, match="needs the package pyarrow") as caught:
        open_source(str(place / "a.parquet")).listing()
    assert caught.value.hint == "pip install 'feature-pipeline[parquet]'"


GOOD = "photos/apple/00.jpg,apple\n"
BAD = {
    "path,labels\n" + GOOD: "has no column 'label'; it has path, labels",
    "path,label\n": "has no rows",
    "": "has no rows",
    "path,path\n" + GOOD: "two columns of one name: path",
    "path,label\n" + GOOD + "photos/gone.jpg,beet\n": r"1 of the 2 files .* not in .*: photos/gone.jpg \(line 3\)",
    "path,label\n" + GOOD + "./photos/apple/00.jpg,beet\n": r"names photos/apple/00.jpg twice: line 2, 3",
    "path,label\n../secret.jpg,a\n": "line 2: ../secret.jpg leads out of",
    "path,label\nphotos/../../secret.jpg,a\n": "leads out of",
    "path,label\n/etc/passwd,a\n": "line 2: /etc/passwd does not lie in",
    "path,label\nphotos,a\n": "photos is not a regular file",
    "path,label\n,a\n": "line 2: '' is no path",
    "path,label\nphotos/apple/00.jpg,\n": r"1 labels that are empty .* \(line 2\)",
    "path,label\nphotos/apple/00.jpg\n": "line 2 has 1 fields, the header 2",
    'path,label\n"photos/apple/00.jpg,a\n': "line 2 is not CSV",
    "path,label,split\nphotos/apple/00.jpg,a,tran\n": "line 2: unknown split 'tran'. Did you mean 'train'",
    "path,label,group\nphotos/apple/00.jpg,a,\n": r"1 rows without a group in column 'group' \(line 2\)",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=range(len(BAD)))
def test_a_bad_table_is_one_clear_line(place, text, message):
    (place / "a.csv").write_text(text)
    (place / "secret.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        open_source(str(place / "a.csv")).listing()


def test_latin_1_is_refused(place):
    (place / "a.csv").write_bytes("path,label\nphotos/apple/00.jpg,Äpfel\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        open_source(str(place / "a.csv")).listing()


def test_links_out_of_the_root_need_leave(place, tmp_path_factory):
    outside = make_photos(tmp_path_factory.mktemp("outside") / "more", 1)
    (place / "far").symlink_to(outside)
    (place / "near.jpg").symlink_to(place / "photos" / "apple" / "00.jpg")
    (place / "away.jpg").symlink_to(outside / "beet" / "00.jpg")
    for path in ("far/apple/00.jpg", "away.jpg"):
        table = write_table(place / "a.csv", ("path", "label"), [("near.jpg", "a"), (path, "b")])
        with pytest.raises(DataError, match=r"line 3: .* by a symbolic link") as caught:
            open_source(str(table)).listing()
        assert "--follow-symlinks" in caught.value.hint
        assert open_source(str(table), follow_symlinks=True).listing().ids == ["near.jpg", path]


def test_absolute_paths_inside_the_root_are_taken_as_relative_ones(place):
    table = write_table(place / "a.csv", ("path", "label"), [(place / path, label) for path, label in rows(place)])
    assert open_source(str(table)).listing().ids == [path for path, _ in rows(place)]


def test_options_that_mean_nothing_for_a_source_are_refused(place):
    with pytest.raises(UsageError, match="--path-column means nothing for a folder"):
        open_source(str(place / "photos"), reading=Reading(path_column="file"))
    with pytest.raises(UsageError, match="--group-by means nothing for the bundled digits"):
        open_source("digits", reading=Reading(group_by="who"))


def test_from_the_command_line_a_bad_table_is_exit_code_3_and_one_line(cli, place):
    write_table(place / "a.csv", ("file", "label"), rows(place))
    result = cli("extract", "a.csv", *BACKBONE, "--path-column", "fle")
    assert (result.code, result.out) == (3, "")
    assert "no column 'fle' (--path-column). Did you mean 'file'?" in " ".join(result.err.split())
    assert cli("extract", "gone.csv", *BACKBONE).code == 3
