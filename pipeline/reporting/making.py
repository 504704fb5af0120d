"""The verb `report`: one HTML file that tells all of a run, from what `evaluate` kept. It measures nothing itself."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.auditing.result import AuditResult, read_audit
from pipeline.backbones.preprocess import Preprocess
from pipeline.binding import entry_of
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.findings import AUDIT, CURVE, findings_folder, has_findings
from pipeline.heads.reading import read_head
from pipeline.heads.rows import CHUNK_MAPS, pick
from pipeline.heads.tuned import TunedHead
from pipeline.learning_curve import read_curve
from pipeline.metrics import confusions
from pipeline.origin import open_images
from pipeline.outcomes import Outcomes, read_outcomes
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.reporting.audit_section import audit_section, audited_ids
from pipeline.reporting.curve_section import curve_section
from pipeline.reporting.embedding import Embedding, embed, map_sample
from pipeline.reporting.figures import require_matplotlib
from pipeline.reporting.page_data import page_data
from pipeline.reporting.pictures import boxed, write_figures
from pipeline.reporting.render import render
from pipeline.reporting.sections import finding_of_run
from pipeline.reporting.tables import MOST_CLASSES, cell_images, confused_pairs, shown_rows, worst_errors
from pipeline.reporting.thumbnails import thumbnails
from pipeline.runs import Run, check_run, find_run, read_evaluations
from pipeline.store.commit import replace_file
from pipeline.store.entry import Entry
from pipeline.streaming import open_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReportResult:
    """A page that was written; `to_json` has the fields other programs rely on."""

    run: str
    path: str
    bytes: int
    images: int
    """Thumbnails in it."""
    missing: tuple[str, ...]
    """What the page had to do without, and why."""
    figures: tuple[str, ...]
    cache: str
    """The run's entry."""
    audited: bool
    """Whether the page has what `audit` found of it."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {**self.__dict__, "missing": list(self.missing), "figures": list(self.figures)}


def report(
    run: str | Path = "latest",
    *,
    output: str | Path | None = None,
    figures: str | Path | None = None,
    findings: str | Path | None = None,
    source: Any = None,  # noqa: ANN401 - a path or name, or any data set
    images: bool = True,
    workers: int | None = None,
    runs_dir: str | Path = "runs",
    cache_dir: str | Path = "cache",
    data_root: str | Path | None = None,
    follow_symlinks: bool = False,
    on_map: OnProgress = ignore,
    on_progress: OnProgress = ignore,
) -> ReportResult:
    """Write a page about a run that opens from disk and asks the network for nothing.

    All its figures are those `evaluate` kept of the test rows; it is not a look at the test split of its own.

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        output: the file; default `report.html` in the run's folder.
        figures: a folder for the main plots as PNG and SVG.
        findings: the folder of `audit` and `learn-curve`; default `audits/<entry id>` beside `runs_dir`.
        source: where the images are now, or a data set as for `extract`; default where they were.
        images: whether images are shown; without them their source is not read.
        workers: loading processes.
        runs_dir: where runs are kept.
        cache_dir: the cache root.
        data_root: as for `extract`.
        follow_symlinks: as for `extract`.
        on_map: called before and after the map is made, which takes longest.
        on_progress: called after every batch of images.

    Raises:
        DataError: if the run was not evaluated, or not by this version.
        UsageError, CacheError: see `pipeline.errors`.
    """
    started = time.perf_counter()
    if figures is not None:
        require_matplotlib()
    found = find_run(Path(runs_dir), str(run))
    check_run(found)
    outcomes = read_outcomes(found)
    evaluation = read_evaluations(found)["test"]
    path = Path(output) if output is not None else found.path / "report.html"
    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"Name a file: -o {path / 'report.html'}")
    missing: list[str] = []
    entry = _entry(found, Path(cache_dir), missing)
    embedding = None if entry is None else _embedding(found, entry, outcomes, missing, on_map)
    totals = np.bincount(outcomes.y, minlength=len(outcomes.classes)).tolist()
    pairs = confused_pairs(confusions(outcomes.y, outcomes.predicted), totals)
    cells = cell_images(outcomes, _cells(pairs, len(outcomes.classes)))
    worst = worst_errors(outcomes)
    folder = _findings(found, findings, Path(runs_dir))
    audited = finding_of_run(folder, AUDIT, found, missing, read_audit, lambda one: one.manifest_sha256)
    curve = finding_of_run(folder, CURVE, found, missing, read_curve, lambda one: str(one["manifest_sha256"]))
    pictures: dict[str, str] = {}
    if images and entry is not None:
        try:
            digests = _digests(entry, outcomes, shown_rows(worst, cells, embedding), audited)
            opened = open_images(entry, source, data_root=data_root, follow_symlinks=follow_symlinks)
            preprocess = Preprocess.from_json(entry.manifest["space"]["preprocess"])
            pictures = thumbnails(opened, digests, preprocess, workers=workers, on_progress=on_progress)
        except DataError as error:
            missing.append(f"No images: {error.message}. {error.hint}")
    sections = {
        "audit": None if audited is None else audit_section(audited, found, outcomes, pictures),
        "learning_curve": None if curve is None else curve_section(curve),
        "commands": _commands(found, Path(cache_dir), Path(runs_dir)),
    }
    page, data = page_data(
        found, entry, evaluation, outcomes, pairs, cells, worst, embedding, pictures, sections, missing
    )
    html = render(page, data).encode()
    replace_file(path, html)
    drawn: tuple[str, ...] = ()
    if figures is not None:
        drawn = write_figures(Path(figures), found, evaluation, outcomes, curve)
        missing.extend(boxed(outcomes.classes) if "confusion.png" in drawn else ())
    seconds = time.perf_counter() - started
    cache, made = found.body["cache"]["id"], tuple(missing)
    return ReportResult(found.id, str(path), len(html), len(pictures), made, drawn, cache, audited is not None, seconds)


def _findings(run: Run, folder: str | Path | None, runs_dir: Path) -> Path:
    """Return the folder of what other commands found of the run's entry.

    Raises:
        DataError: if one was named and there is nothing in it.
    """
    if folder is None:
        return findings_folder(runs_dir, run.body["cache"]["id"])
    if not has_findings(Path(folder)):
        raise DataError(
            f"{folder} has neither {AUDIT.file} nor {CURVE.file}",
            f"They are made by {AUDIT.command} and {CURVE.command}.",
        )
    return Path(folder)


def _commands(run: Run, cache_dir: Path, runs_dir: Path) -> dict[str, str]:
    """Return the commands that make what the page shows or may lack."""
    cache = run.body["cache"]["id"]
    where = [] if cache_dir == Path("cache") else ["--cache-dir", str(cache_dir)]
    where += [] if runs_dir == Path("runs") else ["--runs-dir", str(runs_dir)]
    return {
        "evaluate": shlex.join(["pipeline", "evaluate", run.id, *where]),
        "audit": shlex.join(["pipeline", "audit", cache, *where]),
        "learning_curve": shlex.join(["pipeline", "learn-curve", cache, *where]),
    }


def _digests(entry: Entry, outcomes: Outcomes, rows: list[int], audited: AuditResult | None) -> dict[str, np.ndarray]:
    """Return the image digests of all rows a page shows, by sample id."""
    found = {outcomes.ids[row]: outcomes.digests[row] for row in rows}
    if audited is not None:
        table = entry.read_samples()
        places = {one: place for place, one in enumerate(table.ids)}
        found |= {one: table.digests[places[one]] for one in audited_ids(audited)}
    return found


def _entry(run: Run, cache_dir: Path, missing: list[str]) -> Entry | None:
    try:
        return entry_of(run, None, cache_dir)
    except CacheError as error:
        missing.append(f"No images and no map: {error.message}")
        return None


def _embedding(run: Run, entry: Entry, outcomes: Outcomes, missing: list[str], on_map: OnProgress) -> Embedding | None:
    """Place test rows on a map. Their features are only drawn: nothing is measured or chosen by them."""
    try:
        features, x = open_rows(entry)
    except CacheError as error:
        missing.append(f"No map: {error.message}")
        return None
    test = features.rows("test")
    if [features.ids[row] for row in test.tolist()] != list(outcomes.ids):
        missing.append(f"No map: cache entry {entry.id} has other test rows than were measured.")
        return None
    rows = map_sample(len(outcomes))
    vectors = _as_vectors(run, entry)
    picked = np.concatenate([vectors(part).numpy() for part in pick(x, test[rows]).split(CHUNK_MAPS)])
    on_map(Progress(0, len(rows)))
    found = embed(picked, rows)
    on_map(Progress(len(rows), len(rows)))
    if found is None:
        missing.append("No map: too few rows, or features that do not vary.")
    return found


def _as_vectors(run: Run, entry: Entry) -> "Callable[[Tensor], Tensor]":
    """Return what makes features (n, d) of rows: of a fine-tuned run, whose rows are maps, its trained layers do."""
    head = read_head(run.path) if len(entry.space.row_shape) > 1 else None
    return head.features if isinstance(head, TunedHead) else lambda rows: rows


def _cells(pairs: list[dict[str, Any]], classes: int) -> list[tuple[int, int]]:
    if classes <= MOST_CLASSES:
        return [(true, said) for true in range(classes) for said in range(classes)]
    return [(pair["true"], pair["said"]) for pair in pairs]
