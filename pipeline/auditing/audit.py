"""The verb `audit`: suspect labels, leaks, outliers, balance and weak groups of a cache entry."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.auditing.balance import balance_of
from pipeline.auditing.copies import Images, find_copies
from pipeline.auditing.duplicates import Pair
from pipeline.auditing.groups import weak_groups
from pipeline.auditing.judging import Judged, check_judging, judge
from pipeline.auditing.labels import find_suspects
from pipeline.auditing.leaks import find_leaks, leak_effect, measured_run
from pipeline.auditing.outliers import neighbour_distances
from pipeline.auditing.result import AuditResult, Duplicate, Groups, Labels, Outlier, Outliers, Row, Suspect
from pipeline.auditing.writing import write_audit
from pipeline.errors import DataError
from pipeline.features import Features
from pipeline.findings import check_findings, findings_folder
from pipeline.heads.settings import width_neutral
from pipeline.progress import Stages, silent
from pipeline.selection import choose_rows
from pipeline.store.catalog import find_entry
from pipeline.streaming import features_in_memory

CHUNK = 4096


def audit(
    cache: str | Path = "latest",
    *,
    run: str | Path | None = None,
    folds: int = 5,
    split_seed: int = 0,
    near: bool = True,
    source: Any = None,  # noqa: ANN401 - a path or name, or any data set
    data_root: str | Path | None = None,
    follow_symlinks: bool = False,
    workers: int | None = None,
    device: str = "auto",
    output: str | Path | None = None,
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
    stages: Stages = silent,
) -> tuple[AuditResult, Path]:
    """Look for what is wrong with the data of a cache entry, and write it as lists.

    Labels of test rows are looked at, to find those that are wrong, and listed apart. No head is measured on test rows:
    what leaks do to a run's accuracy is taken from what `evaluate` kept.

    Args:
        cache: a unique prefix of the entry's id, its path, or `latest`.
        run: whose accuracy is told without leaked test rows; default the latest that was measured on this entry.
        folds: parts that train and validation rows are judged in, each by a head of the others.
        split_seed: of the folds.
        near: look for near-duplicates, on images that are close in features; where there are none, by features alone.
        source: where the images are now, as for `evaluate`; default where they were.
        data_root: as for `extract`.
        follow_symlinks: as for `extract`.
        workers: loading processes; by default one a core.
        device: where heads are trained.
        output: folder of the lists; default `audits/<entry id>` beside `runs_dir`. An audit that is there is replaced.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        stages: told of each stage, see `Stages`.

    Returns:
        What was found, and the folder it was written to.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    entry = find_entry(Path(cache_dir), str(cache))
    folder = Path(output) if output is not None else findings_folder(runs_dir, entry.id)
    check_findings(folder)
    features = features_in_memory(entry, "an audit")
    # All that can be refused is refused before what takes minutes.
    _check_finite(features)
    check_judging(features, folds, split_seed, device)
    measured = measured_run(features, run, Path(runs_dir))
    pool = choose_rows(features, refit=True).train
    images = Images(source, data_root, follow_symlinks, workers)
    copies = find_copies(entry, features, images, near=near, stages=stages)
    leaks = find_leaks(features, copies.pairs)
    with stages("labels", "heads") as report:
        learnt, test = judge(features, folds=folds, split_seed=split_seed, device=device, on_progress=report)
    with stages("outliers", "rows") as report:
        distances = neighbour_distances(features.x, pool, on_progress=report)
    weak, tested = weak_groups(features, learnt.rows, learnt.right)
    far = [Outlier(*_name(features, row), float(distances.values[row])) for row in distances.far.tolist()]
    result = AuditResult(
        features.cache,
        features.cache_digest,
        _counts(features),
        copies.checked,
        copies.note,
        tuple(_duplicate(features, pair) for pair in copies.pairs),
        tuple(leaks),
        leak_effect(*measured, leaks) if measured is not None and leaks else None,
        _labels(features, learnt, measured=True),
        _labels(features, test, measured=False),
        Outliers(distances.k, distances.references, float(np.median(distances.values)), distances.fence, tuple(far)),
        balance_of(features),
        Groups(tested, tuple(weak)),
        _settings(features, folds, split_seed),
        time.perf_counter() - started,
    )
    write_audit(folder, result)
    return result, folder


def _check_finite(features: Features) -> None:
    """Refuse rows that are neither near to others nor far from them.

    Raises:
        DataError: naming the first.
    """
    for first in range(0, len(features), CHUNK):
        squares = features.x[first : first + CHUNK].float().square().sum(dim=1)
        bad = (~squares.isfinite()).nonzero()
        if len(bad):
            raise DataError(
                f"the features of {_name(features, first + int(bad[0]))[0]} are not finite, or their squares are not: "
                f"no row is near to it or far from it",
                "Extract again; --store-dtype float16 ends at 65,504.",
            )


def _settings(features: Features, folds: int, split_seed: int) -> dict[str, Any]:
    head = width_neutral(features.x.shape[1])
    return {"solver": head.solver, "standardize": True, "C": head.C, "folds": folds, "split_seed": split_seed}


def _counts(features: Features) -> dict[str, int]:
    if not len(features.split):
        return {"all": len(features)}
    return {name: len(features.rows(name)) for name in ("train", "val", "test") if len(features.rows(name))}


def _name(features: Features, row: int) -> tuple[str, str, str]:
    """Return a row's id, split and label."""
    split = str(features.split[row]) if len(features.split) else "train"
    return features.ids[row] if features.ids else str(row), split, features.classes[int(features.y[row])]


def _duplicate(features: Features, pair: Pair) -> Duplicate:
    a, b = (Row(*_name(features, row)) for row in (pair.a, pair.b))
    return Duplicate(pair.kind, a, b, pair.similarity, pair.difference)


def _labels(features: Features, judged: Judged, *, measured: bool) -> Labels:
    if not len(judged.rows):
        return Labels(0, None, 0.0, ())
    found = find_suspects(judged.probabilities, judged.y)
    return Labels(
        len(judged.rows),
        float(judged.right.mean()) if measured else None,
        found.joint.wrong,
        tuple(_suspects(features, judged, found.places, found.suggested, found.confident)),
    )


def _suspects(
    features: Features, judged: Judged, places: np.ndarray, suggested: np.ndarray, confident: np.ndarray
) -> Sequence[Suspect]:
    found = []
    for place, other, sure in zip(places.tolist(), suggested.tolist(), confident.tolist(), strict=True):
        own, its = judged.probabilities[place, judged.y[place]], judged.probabilities[place, other]
        name = _name(features, int(judged.rows[place]))
        found.append(Suspect(*name, features.classes[other], float(own), float(its), float(own - its), sure))
    return found
