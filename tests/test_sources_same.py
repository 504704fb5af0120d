"""The same images from every kind of source are the same rows: none is computed twice. Groups, and no labels."""

import numpy as np
import pytest
from conftest import BACKBONE, SPACE, make_photos
from images import hugging, rows_of, write_shards, write_table

import pipeline
from pipeline.errors import DataError
from pipeline.store.catalog import find_entry


@pytest.fixture
def place(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos", 8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(place, name="photos.csv"):
    rows = [
        (path.relative_to(place).as_posix(), label, f"p{row // 2}")
        for row, (path, label) in enumerate(rows_of(place / "photos"))
    ]
    return write_table(place / name, ("path", "label", "patient"), rows)


def extract(source, **options):
    return pipeline.extract(str(source), cache_dir="cache", workers=1, **{**SPACE, **options})


def test_folder_table_shards_and_hugging_face_share_their_rows(place, remembered, monkeypatch):
    rows = rows_of(place / "photos")
    sources = [table(place), write_shards(place / "shards", rows)]
    try:
        import pyarrow.csv as csv
        import pyarrow.parquet as parquet
    except ImportError:
        pass
    else:
        parquet.write_table(csv.read_csv(sources[0]), "photos.parquet")
        sources.append(place / "photos.parquet")
    try:
        import datasets  # noqa: F401
    except ImportError:
        pass
    else:
        hugging(rows).save_to_disk("saved")
        sources.append(place / "saved")
    made = extract("photos")
    assert (made.computed, made.rows) == (24, 24)
    first = {sample.tobytes() for sample in pipeline.open_cache(made.cache).digests}
    for source in sources:
        again = extract(source)
        assert (again.computed, again.reused, again.rows) == (0, 24, 24), source
        features = pipeline.open_cache(again.cache)
        assert {sample.tobytes() for sample in features.digests} == first
        assert features.classes == ("apple", "beet", "corn")
        # Rows of train and test are drawn by content: the same images are on the same sides.
        assert again.splits == made.splits
        # A second time nothing is opened: digests of members are remembered as those of files are.
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.loading.loader.Loader.request", None)
            assert extract(source).cache == again.cache


def test_an_entry_of_a_table_is_proven_end_to_end_as_it_was_read(cli, place):
    table(place, "list.csv").rename(place / "elsewhere.csv")
    extracted = cli(
        "extract", "elsewhere.csv", *BACKBONE, "--workers", "1", "--group-by", "patient", "--test-fraction", "0.3",
        "--data-root", ".",
    )  # fmt: skip
    assert extracted.code == 0, extracted.err
    assert "test by group hash" in extracted.err
    assert cli("train-head", "latest", "--epochs", "1").code == 0
    proof = cli("evaluate", "latest", "--end-to-end", "--workers", "1")
    assert (proof.code, "the same model" in proof.out) == (0, True), proof.err
    assert cli("cache", "verify", "latest", "--recompute", "4", "--workers", "1").code == 0


def test_groups_stay_on_one_side_of_test_and_validation(place, caplog):
    plain = extract(table(place))
    made = extract(table(place), group_by="patient", test_fraction=0.3)
    assert (made.computed, made.reused) == (0, 24)
    assert made.cache != plain.cache
    features = pipeline.open_cache(made.cache)
    assert features.groups == [f"p{row // 2}" for row in range(24)]
    assert pipeline.open_cache(plain.cache).groups == []
    sides = {}
    for group, split in zip(features.groups, features.split.tolist(), strict=True):
        sides.setdefault(group, set()).add(split)
    assert {len(side) for side in sides.values()} == {1}
    assert set().union(*sides.values()) == {"train", "test"}

    from pipeline.selection import choose_rows

    rows = choose_rows(features, val_fraction=0.3)
    assert len(rows.val)
    assert not {features.groups[row] for row in rows.val} & {features.groups[row] for row in rows.train}
    choose_rows(features, val_fraction=0.001)
    assert "validation rows are none" in caplog.text


def test_groups_by_folder_and_one_group_that_is_all_of_a_side(place, caplog):
    made = extract("photos", group_by="folder:1", test_fraction=0.5)
    assert set(pipeline.open_cache(made.cache).groups) == {"apple", "beet", "corn"}
    assert "split is all of one group" in caplog.text
    with pytest.raises(DataError, match=r"--group-by folder:2: apple/00\.jpg lies in 1 folders"):
        extract("photos", group_by="folder:2")


def test_without_labels_everything_below_a_folder_is_a_sample_and_no_head_is_trained(place, cli):
    (place / "photos" / "00.jpg").write_bytes((place / "photos" / "corn" / "00.jpg").read_bytes())
    made = extract("photos", unlabelled=True)
    assert (made.rows, made.classes, made.splits) == (25, 0, {"train": 25})
    features = pipeline.open_cache(made.cache)
    assert (features.classes, set(features.y.tolist())) == ((), {-1})
    assert features.ids[0] == "00.jpg"
    result = cli("train-head", made.cache)
    assert result.code == 3
    assert "has no labels" in result.err
    labelled = extract("photos")
    assert labelled.computed == 0
    run = pipeline.train_head(labelled.cache, epochs=1)
    with pytest.raises(DataError, match="has no labels to measure against"):
        pipeline.evaluate(run.run, cache=made.cache, split="train")
    assert find_entry(place / "cache", made.cache).manifest["source"]["reading"] == {"unlabelled": True}


def test_groups_and_no_labels_travel_with_exports(place):
    from pipeline.store.diff import diff_entries
    from pipeline.store.npz import export_npz
    from pipeline.store.single import export_single, import_single

    grouped = find_entry(place / "cache", extract(table(place), group_by="patient").cache)
    bare = find_entry(place / "cache", extract("photos", unlabelled=True).cache)
    for number, entry in enumerate((grouped, bare)):
        export_single(entry, place / f"{number}.h5")
        taken = import_single(place / f"{number}.h5", place / "other")
        assert taken.manifest == entry.manifest
        assert taken.read_samples().groups == entry.read_samples().groups
    export_npz(grouped, place / "a.npz")
    with np.load(place / "a.npz") as arrays:
        assert arrays["group"].tolist() == grouped.read_samples().groups
    plain = find_entry(place / "cache", extract(table(place)).cache)
    found = diff_entries(plain, grouped)
    assert not found.same
    assert len(found.samples["regrouped"]) == 24
