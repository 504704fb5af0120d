"""What differs between two entries: every field by name with both values, every sample by what became of it."""

from dataclasses import fields, replace

import numpy as np
import pytest
from entries import CLASSES, PREPROCESS, RECIPE, ROWS, flip, make_entry

from pipeline.errors import CacheError
from pipeline.store.diff import FieldDifference, diff_entries
from pipeline.store.entry import Entry
from pipeline.store.key import FeatureSpace, Recipe

OTHER = {
    **{name: f"other {name}" for name in ("architecture", "layer", "pool", "dtype", "engine", "engine_version")},
    "weights": "1" * 64,
    "store_dtype": "float16",
    "row_shape": (5,),
    "device": "cuda",
    "threads": 4,
    "batch_size": 2,
    "shard_rows": 16,
}
"""Another value of each field of a space and a recipe, but for `preprocess`."""


@pytest.fixture
def entry(tmp_path) -> Entry:
    return make_entry(tmp_path / "a")


def other(tmp_path, **changes) -> Entry:
    """The same entry with changes, in a root of its own."""
    return make_entry(tmp_path / "b", **changes)


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_an_entry_does_not_differ_from_itself_or_a_copy(entry, tmp_path):
    for copy in (entry, other(tmp_path)):
        found = diff_entries(entry, copy)
        assert (found.fields, found.samples, found.shards_shared, found.same) == ([], {}, len(entry.shards), True)


@pytest.mark.parametrize("name", [field.name for field in fields(FeatureSpace) if field.name != "preprocess"])
def test_every_field_of_a_space_that_differs_is_named_with_both_values(entry, tmp_path, name):
    found = diff_entries(entry, other(tmp_path, space=replace(entry.space, **{name: OTHER[name]})))
    assert found.fields == [FieldDifference(f"space.{name}", plain(getattr(entry.space, name)), plain(OTHER[name]))]
    assert (found.samples, found.same) == ({}, False)


@pytest.mark.parametrize("name", PREPROCESS)
def test_every_field_of_the_preprocess_that_differs_is_named_with_both_values(entry, tmp_path, name):
    changed = {**PREPROCESS, name: "another"}
    found = diff_entries(entry, other(tmp_path, space=replace(entry.space, preprocess=changed)))
    assert found.fields == [FieldDifference(f"space.preprocess.{name}", PREPROCESS[name], "another")]
    assert not found.same


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_field_of_a_recipe_that_differs_is_named_but_the_content_is_the_same(entry, tmp_path, name):
    found = diff_entries(entry, other(tmp_path, recipe=replace(RECIPE, **{name: OTHER[name]})))
    assert found.fields == [FieldDifference(f"recipe.{name}", getattr(RECIPE, name), OTHER[name])]
    assert (found.samples, found.same) == ({}, True)
    assert found.shards_shared == (1 if name == "shard_rows" else len(entry.shards))


@pytest.mark.parametrize(
    ("section", "a", "b", "named"),
    [
        ("versions", {"torch": "2.1"}, {"torch": "2.2"}, ("versions.torch", "2.1", "2.2")),
        ("versions", {}, {"pillow": "12"}, ("versions.pillow", None, "12")),
        ("versions", {"pillow": "12"}, {}, ("versions.pillow", "12", None)),
        ("split_rule", None, {"seed": 0}, ("split_rule.seed", None, 0)),
        ("split_rule", {"seed": 0}, {"seed": 1}, ("split_rule.seed", 0, 1)),
        ("rounding", {"rows": 3}, {"rows": 4}, ("rounding.rows", 3, 4)),
        ("source", {"spec": "a", "kind": "x"}, {"spec": "b", "kind": "x"}, ("source.spec", "a", "b")),
        ("backbone", {"name": "n", "weights": "v1"}, {"name": "n", "weights": "v2"}, ("backbone.weights", "v1", "v2")),
    ],
)
def test_how_an_entry_was_made_is_compared_but_its_content_is_what_its_id_names(tmp_path, section, a, b, named):
    first, second = make_entry(tmp_path / "a", **{section: a}), make_entry(tmp_path / "b", **{section: b})
    found = diff_entries(first, second)
    assert found.fields == [FieldDifference(*named)]
    assert first.manifest["id"] == second.manifest["id"]
    assert found.same


def test_a_field_of_another_kind_is_a_difference_of_the_whole_field(tmp_path):
    first = make_entry(tmp_path / "a", versions={"python": {"major": 3}})
    second = make_entry(tmp_path / "b", versions={"python": "3"})
    assert diff_entries(first, second).fields == [FieldDifference("versions.python", {"major": 3}, "3")]


SEEDS = list(range(ROWS))
LABELS = [row % len(CLASSES) for row in range(ROWS)]
SPLITS = [2 * (row % 5 == 4) for row in range(ROWS)]
IDS = [f"{row:04d}.jpg" for row in range(ROWS)]


def without(values: list, *rows: int) -> list:
    return [value for row, value in enumerate(values) if row not in rows]


def columns(*rows: int) -> dict[str, list]:
    """The samples without those of some rows."""
    named = {"seeds": SEEDS, "labels": LABELS, "splits": SPLITS, "ids": IDS}
    return {name: without(values, *rows) for name, values in named.items()}


def exchanged(values: list, one: int, two: int) -> list:
    return [values[{one: two, two: one}.get(row, row)] for row in range(len(values))]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (columns(3, 11), {"removed": ["0003.jpg", "0011.jpg"]}),
        ({"seeds": [*SEEDS[:5], 77, *SEEDS[6:]], "ids": IDS}, {"changed": ["0005.jpg"]}),
        ({"labels": [*LABELS[:-1], 0]}, {"relabelled": ["0019.jpg"]}),
        ({"splits": [1, *SPLITS[1:]]}, {"moved": ["0000.jpg"]}),
        ({"bad": {7}}, {"usable": ["0007.jpg"]}),
        (
            {name: exchanged(values, 2, 9) for name, values in columns().items()},
            {"reordered": [f"{row:04d}.jpg" for row in (2, 9)]},
        ),
        ({"ids": [*IDS[:4], "new.jpg", *IDS[5:]]}, {"removed": ["0004.jpg"], "added": ["new.jpg"]}),
        (
            {"labels": [1, *LABELS[1:]], "splits": [2, *SPLITS[1:]], "seeds": [99, *SEEDS[1:]], "ids": IDS},
            {"changed": ["0000.jpg"], "relabelled": ["0000.jpg"], "moved": ["0000.jpg"]},
        ),
    ],
    ids=["removed", "changed", "relabelled", "moved", "unusable", "exchanged", "renamed", "all of one"],
)
def test_what_became_of_samples_is_told_by_their_ids(entry, tmp_path, changes, wanted):
    found = diff_entries(entry, other(tmp_path, **changes))
    assert {name: sorted(ids) for name, ids in found.samples.items()} == wanted
    assert (found.fields, found.same) == ([], False)
    back = diff_entries(other(tmp_path, **changes), entry).samples
    swapped = {"removed": "added", "added": "removed"}
    assert {swapped.get(name, name): sorted(ids) for name, ids in back.items()} == wanted


def test_a_class_that_was_renamed_relabels_its_samples(entry, tmp_path):
    found = diff_entries(entry, other(tmp_path, classes=("apple", "beet", "maize")))
    assert found.fields == [FieldDifference("classes", list(CLASSES), ["apple", "beet", "maize"])]
    assert found.samples == {"relabelled": without(IDS, *(row for row in range(ROWS) if LABELS[row] != 2))}


def test_labels_are_compared_by_name_and_not_by_number(entry, tmp_path):
    found = diff_entries(entry, other(tmp_path, classes=CLASSES[::-1], labels=[2 - label for label in LABELS]))
    assert [item.field for item in found.fields] == ["classes"]
    assert found.samples == {}
    found = diff_entries(entry, other(tmp_path, classes=CLASSES[::-1]))
    assert found.samples == {"relabelled": without(IDS, *(row for row in range(ROWS) if LABELS[row] == 1))}


def test_entries_without_a_sample_in_common_are_told_apart(entry, tmp_path):
    found = diff_entries(entry, other(tmp_path, ids=[f"new-{row}" for row in range(ROWS)]))
    assert (len(found.samples["removed"]), len(found.samples["added"]), len(found.samples)) == (ROWS, ROWS, 2)


def test_names_that_are_no_utf8_are_told(entry, tmp_path):
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    found = diff_entries(entry, other(tmp_path, ids=[odd, *IDS[1:]]))
    assert found.samples == {"removed": ["0000.jpg"], "added": [odd]}


def test_any_mixture_of_changes_is_what_a_plain_comparison_finds(tmp_path):
    rng = np.random.default_rng(0)
    for turn in range(25):
        sides = []
        for name in ("a", "b"):
            chosen = rng.permutation(12)[: rng.integers(4, 12)]
            chosen = np.sort(chosen) if turn % 2 else chosen
            seeds = (chosen + 100 * (rng.random(len(chosen)) < 0.2)).tolist()
            labels, splits = rng.integers(0, 3, len(chosen)).tolist(), rng.integers(0, 3, len(chosen)).tolist()
            ids, bad = [f"{row}" for row in chosen], set(np.flatnonzero(rng.random(len(chosen)) < 0.2).tolist())
            made = make_entry(tmp_path / f"{turn}" / name, seeds=seeds, labels=labels, splits=splits, ids=ids, bad=bad)
            facts = [
                (seed, CLASSES[k], s, row in bad)
                for row, (seed, k, s) in enumerate(zip(seeds, labels, splits, strict=True))
            ]
            sides.append((made, dict(zip(ids, facts, strict=True))))
        (first, a), (second, b) = sides
        common, order = [x for x in a if x in b], [x for x in b if x in a]
        wanted = {"removed": [x for x in a if x not in b], "added": [x for x in b if x not in a]}
        for place, name in enumerate(("changed", "relabelled", "moved", "usable")):
            wanted[name] = [x for x in common if a[x][place] != b[x][place]]
        wanted["reordered"] = [x for place, x in enumerate(common) if order[place] != x]
        found = diff_entries(first, second).samples
        assert {name: sorted(ids) for name, ids in found.items()} == {n: sorted(x) for n, x in wanted.items() if x}


def test_a_damaged_sample_table_is_named_and_not_compared(entry, tmp_path):
    second = other(tmp_path)
    flip(second.path / "samples.h5")
    with pytest.raises(CacheError, match=r"samples\.h5 is damaged"):
        diff_entries(entry, second)
