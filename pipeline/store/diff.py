"""What differs between two entries: every field by name with both values, and which samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.store.entry import Entry
from pipeline.store.samples import SampleTable

SECTIONS = ("space", "recipe", "source", "backbone", "split_rule", "classes", "versions", "rounding")
"""Fields of a manifest that say what an entry is and how it was made. Times, files and hashes follow from them."""


@dataclass(frozen=True)
class FieldDifference:
    """A field that differs: its dotted name and both values, None where an entry has none."""

    field: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Difference:
    """All that differs between the entries `a` and `b`."""

    fields: list[FieldDifference]
    samples: dict[str, list[str]]
    """Sample ids by what became of them from `a` to `b`: removed, added, changed (other image), relabelled,
    moved (other split), regrouped, usable (only in one), reordered."""
    shards_shared: int
    """Shards that are the same bytes."""

    @property
    def same(self) -> bool:
        """Whether the entries have the same content; how they were made may still differ."""
        made = ("recipe", "versions", "source", "backbone", "rounding", "split_rule")
        return not self.samples and all(item.field.startswith(made) for item in self.fields)


def diff_entries(a: Entry, b: Entry) -> Difference:
    """Compare two entries by their manifests and sample tables, which are verified.

    Raises:
        CacheError: if a sample table is missing or damaged.
    """
    fields: list[FieldDifference] = []
    for section in SECTIONS:
        _compare(section, a.manifest.get(section), b.manifest.get(section), fields)
    shared = {shard["sha256"] for shard in a.shards} & {shard["sha256"] for shard in b.shards}
    samples = _compare_samples(a.read_samples(), b.read_samples(), a.classes, b.classes)
    return Difference(fields, {name: ids for name, ids in samples.items() if ids}, len(shared))


def _compare(name: str, a: Any, b: Any, found: list[FieldDifference]) -> None:  # noqa: ANN401 - any JSON values
    if isinstance(a, Mapping | None) and isinstance(b, Mapping | None):
        a, b = a or {}, b or {}
        for key in [*a, *(key for key in b if key not in a)]:
            _compare(f"{name}.{key}", a.get(key), b.get(key), found)
    elif a != b:
        found.append(FieldDifference(name, a, b))


def _compare_samples(
    a: SampleTable, b: SampleTable, classes_a: tuple[str, ...], classes_b: tuple[str, ...]
) -> dict[str, list[str]]:
    row_a, row_b = ({sample_id: row for row, sample_id in enumerate(table.ids)} for table in (a, b))
    common = [sample_id for sample_id in a.ids if sample_id in row_b]
    at_a = np.array([row_a[sample_id] for sample_id in common], np.int64)
    at_b = np.array([row_b[sample_id] for sample_id in common], np.int64)
    names_a, names_b = np.array([*classes_a, ""], object), np.array([*classes_b, ""], object)
    groups_a, groups_b = (np.array(table.groups or [""] * len(table), object) for table in (a, b))
    different = {
        "changed": (a.digests[at_a] != b.digests[at_b]).any(axis=1),
        "relabelled": names_a[a.labels[at_a]] != names_b[b.labels[at_b]],
        "moved": a.splits[at_a] != b.splits[at_b],
        "regrouped": groups_a[at_a] != groups_b[at_b],
        "usable": a.status[at_a] != b.status[at_b],
        "reordered": np.argsort(np.argsort(at_b)) != np.arange(len(common)),
    }
    return {
        "removed": [sample_id for sample_id in a.ids if sample_id not in row_b],
        "added": [sample_id for sample_id in b.ids if sample_id not in row_a],
        **{name: [common[row] for row in np.flatnonzero(mask)] for name, mask in different.items()},
    }
