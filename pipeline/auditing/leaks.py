"""What copies do: test rows that training knows already, and labels that contradict each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.auditing.duplicates import Pair
from pipeline.errors import DataError
from pipeline.features import Features
from pipeline.metrics import wilson_interval
from pipeline.outcomes import Outcomes, read_outcomes
from pipeline.runs import Run, find_run, list_runs, read_evaluations

COPIES = ("exact", "copy", "mirrored")
"""Kinds of pairs that are one picture; twins are two, and of unconfirmed ones nobody knows."""


@dataclass(frozen=True)
class Leak:
    """A test row whose picture is among the rows that train or choose."""

    id: str
    kind: str
    """How it is a copy: `exact`, `copy` or `mirrored`; `chain` where only through copies of copies."""
    of: str
    """Id of the train or validation row."""
    of_split: str


def find_leaks(features: Features, pairs: Sequence[Pair]) -> list[Leak]:
    """Return the test rows that have a copy in train or validation, in source order.

    Copies of copies are copies: a row that is only reached through others counts.
    """
    copies = [pair for pair in pairs if pair.kind in COPIES]
    if not copies or not len(features.split):
        return []
    # Exact copies are paired with the first of them alone, which may be another test row.
    direct = {row: ("exact", of) for row, of in _known(features, [pair for pair in copies if pair.kind == "exact"])}
    for pair in sorted(copies, key=lambda pair: COPIES.index(pair.kind)):
        for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
            if features.split[one] == "test" != features.split[other]:
                direct.setdefault(one, (pair.kind, other))
    found = []
    for row, first in _known(features, copies):
        kind, of = direct.get(row, ("chain", first))
        found.append(Leak(features.ids[row], kind, features.ids[of], str(features.split[of])))
    return found


def _known(features: Features, pairs: Sequence[Pair]) -> Iterator[tuple[int, int]]:
    """Yield test rows that pairs, or pairs of pairs, lead to a row of another split, and the first such row."""
    if not pairs:
        return
    sets = _connected(len(features), pairs)
    others = np.flatnonzero(features.split != "test")
    first = dict(zip(sets[others][::-1].tolist(), others[::-1].tolist(), strict=True))
    for row in features.rows("test").tolist():
        if sets[row] in first:
            yield row, first[sets[row]]


def _connected(n: int, pairs: Sequence[Pair]) -> np.ndarray:
    """Return the number (n,) of the set of copies that each row is in."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array([(pair.a, pair.b) for pair in pairs])
    links = csr_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), (n, n))
    return np.asarray(connected_components(links, directed=False)[1])


@dataclass(frozen=True)
class LeakEffect:
    """What a run's test accuracy is without the leaked rows."""

    run: str
    n: int
    accuracy: float
    interval: tuple[float, float]
    """Wilson, 95 %, as is the other."""
    clean_n: int
    clean_accuracy: float | None
    """None where every test row leaked, and so is its interval."""
    clean_interval: tuple[float, float] | None


def leak_effect(run: Run, outcomes: Outcomes, leaks: Sequence[Leak]) -> LeakEffect:
    """Return a run's accuracy with and without leaked rows, by what `evaluate` kept of test rows."""
    leaked = {leak.id for leak in leaks}
    clean = outcomes.right[[one not in leaked for one in outcomes.ids]]
    hits, kept = int(outcomes.right.sum()), len(clean)
    return LeakEffect(
        run.id,
        len(outcomes),
        hits / len(outcomes),
        wilson_interval(hits, len(outcomes)),
        kept,
        float(clean.mean()) if kept else None,
        wilson_interval(int(clean.sum()), kept) if kept else None,
    )


def measured_run(features: Features, run: str | Path | None, runs_dir: Path) -> tuple[Run, Outcomes] | None:
    """Return the run to tell the effect of leaks for, and what `evaluate` kept of it on the test rows of an entry.

    It is the one asked for, else the latest of which that can be read; None if there is none.

    Raises:
        DataError: if the one asked for is not there, or was not measured on these rows; and as `read_outcomes`.
    """
    candidates = [find_run(runs_dir, str(run))] if run is not None else list_runs(runs_dir)[::-1]
    for one in candidates:
        for name, evaluation in read_evaluations(one).items():
            measured = (evaluation.get("split"), evaluation.get("cache"))
            if measured != ("test", features.cache):
                continue
            try:
                return one, read_outcomes(one, name)
            except DataError:
                if run is not None:
                    raise
    if run is None:
        return None
    [asked] = candidates
    raise DataError(
        f"run {asked.id} was not measured on the test rows of cache entry {features.cache}",
        f"Measure it: pipeline evaluate {asked.id} --cache {features.cache}",
    )
