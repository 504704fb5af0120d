"""An audit's folder: `audit.json` with everything, and a CSV file a list. Each file is replaced whole."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.auditing.result import AuditResult, Suspect
from pipeline.csvtext import csv_text
from pipeline.findings import AUDIT, write_finding
from pipeline.store.commit import make_folder, replace_file

ROWS = ("id", "split", "label")
LABELS = (*ROWS, "suggested", "p_label", "p_suggested", "margin", "confident")


def write_audit(folder: Path, result: AuditResult) -> None:
    """Write an audit's lists; `audit.json` comes last.

    Raises:
        CacheError: if the folder cannot be written.
    """
    make_folder(folder)
    for name, (header, rows) in _tables(result).items():
        replace_file(folder / name, csv_text(header, rows).encode("utf-8", "surrogateescape"))
    write_finding(folder, AUDIT, result.to_json())


def _tables(result: AuditResult) -> dict[str, tuple[Sequence[str], Iterable[Sequence[object]]]]:
    """Return header and rows of each CSV file."""
    ends = ("kind", "a", "a_split", "a_label", "b", "b_split", "b_label", "similarity", "difference", "conflict")
    weak = ("by", "group", "n", "accuracy", "low", "high", "rest", "p_holm")
    return {
        "duplicates.csv": (ends, _duplicates(result)),
        "leaks.csv": (("id", "kind", "of", "of_split"), ((x.id, x.kind, x.of, x.of_split) for x in result.leaks)),
        "labels.csv": (LABELS, map(_suspect, result.labels.suspects)),
        "labels-test.csv": (LABELS, map(_suspect, result.test_labels.suspects)),
        "outliers.csv": ((*ROWS, "distance"), ((x.id, x.split, x.label, x.distance) for x in result.outliers.rows)),
        "classes.csv": (
            ("class", "train", "val", "test"),
            ((x.name, x.train, x.val, x.test) for x in result.balance.classes),
        ),
        "groups.csv": (
            weak,
            ((x.by, x.group, x.n, x.accuracy, *x.interval, x.rest, x.p_holm) for x in result.groups.weak),
        ),
    }


def _duplicates(result: AuditResult) -> Iterator[Sequence[object]]:
    for one in result.duplicates:
        a, b = one.a, one.b
        numbers = (one.similarity, "" if one.difference is None else one.difference, int(one.conflict))
        yield one.kind, a.id, a.split, a.label, b.id, b.split, b.label, *numbers


def _suspect(one: Suspect) -> Sequence[object]:
    numbers = (one.p_label, one.p_suggested, one.margin, int(one.confident))
    return one.id, one.split, one.label, one.suggested, *numbers
