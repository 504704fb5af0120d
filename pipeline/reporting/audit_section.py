"""What an audit found of the data a run learnt from: copies, leaks and suspect labels, the worst of each to look at."""

from typing import Any

from pipeline.auditing.leaks import COPIES, leak_effect
from pipeline.auditing.result import AuditResult, Duplicate, Labels, Row, Suspect
from pipeline.outcomes import Outcomes
from pipeline.runs import Run

PAIRS, SUSPECTS = 24, 24
"""Pairs and suspects shown, of each list; the lists themselves have all."""


def audit_section(found: AuditResult, run: Run, outcomes: Outcomes, pictures: dict[str, str]) -> dict[str, Any]:
    """Return what the template shows of an audit.

    Args:
        found: the audit.
        run: whose page it is; the audit may have looked at what leaks do to another.
        outcomes: of its test rows.
        pictures: JPEG files in base64 by sample id; rows without one are shown as text.
    """
    pairs = shown_pairs(found)
    return {
        "cache": found.cache,
        "near": found.near_checked,
        "kinds": _kinds(found),
        "conflicts": len(found.conflicts),
        "leaks": len(found.leaks),
        "test_rows": found.rows.get("test", 0),
        "effect": leak_effect(run, outcomes, found.leaks) if found.leaks else None,
        "copies": sum(_worth_showing(one) for one in found.duplicates),
        "pairs": [{"duplicate": one, "rows": [_pictured(row, pictures) for row in (one.a, one.b)]} for one in pairs],
        "lists": [
            _list(name, labels, pictures)
            for name, labels in (("Train and validation", found.labels), ("Test", found.test_labels))
            if labels.judged
        ],
    }


def audited_ids(found: AuditResult) -> list[str]:
    """Return the ids of all rows that the section shows."""
    rows = [row.id for one in shown_pairs(found) for row in (one.a, one.b)]
    return rows + [one.id for labels in (found.labels, found.test_labels) for one in labels.suspects[:SUSPECTS]]


def shown_pairs(found: AuditResult) -> list[Duplicate]:
    """Return up to 24 pairs of one picture: two labels first, then across splits; then the closest features."""
    pairs = [one for one in found.duplicates if _worth_showing(one)]
    return sorted(pairs, key=lambda one: (not one.conflict, not one.across, -one.similarity))[:PAIRS]


def _worth_showing(one: Duplicate) -> bool:
    """Twins are two pictures, found out to be by their pixels."""
    return one.kind in COPIES or one.kind == "unconfirmed"


def _kinds(found: AuditResult) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for one in found.duplicates:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    return kinds


def _list(name: str, labels: Labels, pictures: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "found": labels,
        "rows": [_pictured(one, pictures) for one in labels.suspects[:SUSPECTS]],
    }


def _pictured(row: Row | Suspect, pictures: dict[str, str]) -> dict[str, Any]:
    return {"row": row, "picture": pictures.get(row.id)}
