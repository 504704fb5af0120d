"""What an audit found, as values and as plain JSON; `read_audit` gets it back."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.auditing.balance import Balance, ClassCount
from pipeline.auditing.groups import WeakGroup
from pipeline.auditing.leaks import COPIES, Leak, LeakEffect
from pipeline.errors import DataError
from pipeline.findings import AUDIT, read_finding

WEAK_JUDGE = 0.9
"""Out-of-fold accuracy below which most suspects are hard images rather than wrong labels."""


@dataclass(frozen=True)
class Row:
    """A row of the entry, as people know it."""

    id: str
    split: str
    label: str


@dataclass(frozen=True)
class Duplicate:
    """Two rows that hold the same picture, or nearly: see `pipeline.auditing.duplicates.Pair`."""

    kind: str
    a: Row
    b: Row
    similarity: float
    difference: float | None

    @property
    def conflict(self) -> bool:
        """Whether one picture has two labels."""
        return self.kind in COPIES and self.a.label != self.b.label

    @property
    def across(self) -> bool:
        """Whether the two lie in different splits."""
        return self.a.split != self.b.split


@dataclass(frozen=True)
class Suspect:
    """A row whose label is probably wrong: see `pipeline.auditing.labels`."""

    id: str
    split: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float
    margin: float
    """p_label - p_suggested, in [-1, 0); the lower, the surer."""
    confident: bool


@dataclass(frozen=True)
class Labels:
    """Suspect labels of train and validation rows, or of test rows, the surest first."""

    judged: int
    """Rows that heads which had not seen them spoke of."""
    accuracy: float | None
    """Of those heads on these rows; None of test rows, which only `evaluate` measures on."""
    estimated: float
    """Wrong labels among them, as confident learning estimates."""
    suspects: tuple[Suspect, ...]

    @property
    def weak_judge(self) -> bool:
        """Whether most suspects are hard images rather than wrong labels."""
        return self.accuracy is not None and self.accuracy < WEAK_JUDGE and bool(self.suspects)


@dataclass(frozen=True)
class Outlier:
    """A row far from all others: see `pipeline.auditing.outliers`."""

    id: str
    split: str
    label: str
    distance: float


@dataclass(frozen=True)
class Outliers:
    """Outliers, the farthest first."""

    k: int
    references: int
    median: float
    fence: float
    rows: tuple[Outlier, ...]


@dataclass(frozen=True)
class Groups:
    """Groups that do significantly worse than the rest, and how many were tested."""

    tested: int
    weak: tuple[WeakGroup, ...]


@dataclass(frozen=True)
class AuditResult:
    """What an audit found; `to_json` is what `audit.json` holds, `read_audit` reads it."""

    cache: str
    manifest_sha256: str
    """Of the entry, which names these very bytes."""
    rows: dict[str, int]
    """By split; under `all` where there are none."""
    near_checked: str
    """`confirmed` on images, `features` alone where no images were to be had, or `no`."""
    near_note: str
    """Why not `confirmed`."""
    duplicates: tuple[Duplicate, ...]
    leaks: tuple[Leak, ...]
    effect: LeakEffect | None
    """None without leaks, or without a run that was measured."""
    labels: Labels
    test_labels: Labels
    outliers: Outliers
    balance: Balance
    groups: Groups
    settings: dict[str, Any]
    """How rows were judged: solver, C, folds, split_seed."""
    seconds: float

    @property
    def conflicts(self) -> tuple[Duplicate, ...]:
        """Pairs of one picture with two labels."""
        return tuple(one for one in self.duplicates if one.conflict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields; docs/AUDIT.md lists them."""
        body = asdict(self)
        body["balance"] |= {"ratio": self.balance.ratio, "absent": [list(one) for one in self.balance.absent]}
        for document, one in zip(body["duplicates"], self.duplicates, strict=True):
            document |= {"conflict": one.conflict, "across": one.across}
        plain: dict[str, Any] = _lists(body)
        return plain


def read_audit(folder: str | Path) -> AuditResult:
    """Read what an audit wrote: `read_audit("audits/<entry id>") -> AuditResult`.

    Raises:
        DataError: if there is no audit, it is damaged, or of another version.
    """
    body = read_finding(folder, AUDIT)
    try:
        return _parse(body)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{Path(folder) / AUDIT.file} lacks what an audit has: {error}", f"Make it again: {AUDIT.command}"
        ) from error


def _parse(body: dict[str, Any]) -> AuditResult:
    fields = {name: body[name] for name in AuditResult.__dataclass_fields__}
    fields["duplicates"] = tuple(
        Duplicate(one["kind"], Row(**one["a"]), Row(**one["b"]), one["similarity"], one["difference"])
        for one in body["duplicates"]
    )
    fields["leaks"] = tuple(Leak(**one) for one in body["leaks"])
    fields["effect"] = None if body["effect"] is None else LeakEffect(**_tuples(body["effect"]))
    for name in ("labels", "test_labels"):
        fields[name] = Labels(**{**body[name], "suspects": tuple(Suspect(**one) for one in body[name]["suspects"])})
    fields["outliers"] = Outliers(
        **{**body["outliers"], "rows": tuple(Outlier(**one) for one in body["outliers"]["rows"])}
    )
    fields["balance"] = Balance(tuple(ClassCount(**one) for one in body["balance"]["classes"]))
    weak = tuple(WeakGroup(**_tuples(one)) for one in body["groups"]["weak"])
    fields["groups"] = Groups(body["groups"]["tested"], weak)
    return AuditResult(**fields)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _lists(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the same with lists for tuples, as it comes back from a file."""
    if isinstance(value, dict):
        return {name: _lists(one) for name, one in value.items()}
    return [_lists(one) for one in value] if isinstance(value, list | tuple) else value
