"""How an audit looks: a line a question, then the worst few of each list."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.auditing.leaks import COPIES
from pipeline.auditing.result import AuditResult, Labels, Suspect
from pipeline.console import Screen, count, duration, percent, plain

FEW, MANY, ID_WIDTH = 5, 20, 40
NEAR = {"confirmed": "", "features": " · no images to confirm", "no": " · near ones not looked for"}


def show_audit(screen: Screen, result: AuditResult, folder: Path) -> None:
    """Show what was found, the worst first, and where the lists are."""
    if not (screen.json or screen.quiet):
        _show_lists(screen, result, MANY if screen.verbose else FEW)
    screen.result(
        {**result.to_json(), "path": str(folder)},
        *_sentences(result),
        f"lists in {plain(str(folder))} · in {duration(result.seconds)}",
        brief=str(folder),
    )
    if not screen.json:
        screen.note("mend files and labels where they are, and extract again: only what changed is computed")


def _sentences(result: AuditResult) -> list[str]:
    rows = " · ".join(f"{split} {n:,}" for split, n in result.rows.items())
    return [
        f"[bold]{result.cache}[/bold]  {rows}",
        f"copies    {_copies(result)}",
        f"leaks     {_leaks(result)}",
        f"labels    {_labels(result.labels, 'train and validation rows')}",
        f"test      {_labels(result.test_labels, 'test rows')}" if result.test_labels.judged else "test      no rows",
        f"outliers  {len(result.outliers.rows):,} farther than {result.outliers.fence:.2f} from their "
        f"{result.outliers.k} nearest (median {result.outliers.median:.2f})",
        f"classes   {_balance(result)}",
        f"groups    {_groups(result)}",
    ]


def _copies(result: AuditResult) -> str:
    kinds: dict[str, int] = {}
    for one in result.duplicates:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    none = "none found" if result.near_checked == "confirmed" else "none exact"
    found = " · ".join(f"{kind} {n:,}" for kind, n in kinds.items()) or none
    conflicts = f" · {count(len(result.conflicts), 'pair')} with two labels" if result.conflicts else ""
    why = f": {plain(result.near_note)}" if result.near_checked == "features" else ""
    return found + conflicts + NEAR[result.near_checked] + why


def _leaks(result: AuditResult) -> str:
    if not result.leaks:
        return "no test row has a copy in train or validation"
    found = f"{count(len(result.leaks), 'test row')} of {result.rows.get('test', 0):,} known from train or validation"
    effect = result.effect
    if effect is None:
        return f"{found} · evaluate a run to see what that does"
    without = "none is left" if effect.clean_accuracy is None else f"{percent(effect.clean_accuracy)} without"
    return f"{found} · run {effect.run}: {percent(effect.accuracy)}, {without}"


def _labels(labels: Labels, rows: str) -> str:
    sure = sum(one.confident for one in labels.suspects)
    said = f"{len(labels.suspects):,} suspect of {labels.judged:,} {rows}, {sure:,} confidently"
    if labels.accuracy is None:
        return said
    weak = "; a weak judge: most are hard images" if labels.weak_judge else ""
    return f"{said} · judge {percent(labels.accuracy)} right{weak}"


def _balance(result: AuditResult) -> str:
    classes, ratio = result.balance.classes, result.balance.ratio
    largest, smallest = classes[0], classes[-1]
    if ratio == 1:
        said = f"{count(largest.train, 'train image')} each"
    else:
        said = f"{plain(largest.name)} {largest.train:,} train images, {plain(smallest.name)} {smallest.train:,}"
        said += f" ({ratio:.1f} : 1)" if ratio is not None else ""
    absent = ", ".join(f"{plain(name)} in {split}" for name, split in result.balance.absent[:3])
    return said + (f" · none of {absent}" if absent else "")


def _groups(result: AuditResult) -> str:
    groups = result.groups
    if not groups.tested:
        return "none to test: the source names none, and folders are classes"
    return f"{len(groups.weak):,} of {groups.tested:,} significantly below the rest"


def _show_lists(screen: Screen, result: AuditResult, most: int) -> None:
    _show_pairs(screen, result, most)
    _show_suspects(screen, "suspect labels", result.labels.suspects, most)
    _show_suspects(screen, "suspect labels of test rows", result.test_labels.suspects, most)
    if result.outliers.rows:
        rows = [(_cut(one.id), one.label, f"{one.distance:.3f}") for one in result.outliers.rows[:most]]
        title = _title("outliers", result.outliers.rows, most)
        screen.table(title, ("id", "label", "distance"), rows, right="distance")
    if result.groups.weak:
        weak = [
            (_cut(one.group), one.by, f"{one.n:,}", percent(one.accuracy), percent(one.rest), f"{one.p_holm:.1g}")
            for one in result.groups.weak[:most]
        ]
        columns = ("group", "by", "n", "accuracy", "rest", "p")
        screen.table(_title("weak groups", result.groups.weak, most), columns, weak, right="n accuracy rest p")


def _title(name: str, found: Sequence[object], most: int) -> str:
    """Return a list's name, and how much of it is shown if that is not all."""
    return f"{name}, {most} of {len(found):,}" if len(found) > most else name


def _show_pairs(screen: Screen, result: AuditResult, most: int) -> None:
    """Show conflicts first, then copies across splits, then others, and last what may be none."""
    ranked = sorted(result.duplicates, key=lambda one: (not one.conflict, one.kind not in COPIES, not one.across))
    if ranked:
        rows = [
            (_cut(one.a.id, 27), _cut(one.b.id, 27), one.kind, "labels differ" if one.conflict else "")
            for one in ranked[:most]
        ]
        screen.table(_title("copies", result.duplicates, most), ("id", "copy of", "kind", ""), rows)


def _show_suspects(screen: Screen, name: str, suspects: Sequence[Suspect], most: int) -> None:
    if suspects:
        rows = [
            (_cut(one.id, 30), _cut(one.label, 16), _cut(one.suggested, 16), f"{one.margin:.2f}")
            for one in suspects[:most]
        ]
        screen.table(_title(name, suspects, most), ("id", "label", "rather", "margin"), rows, right="margin")


def _cut(text: str, width: int = ID_WIDTH) -> str:
    """Return what tells an id that is too wide from others: its first folder, mostly the split, and its end."""
    if len(text) <= width:
        return text
    folder, slash, _ = text.partition("/")
    start = folder + slash if slash and len(folder) <= width // 3 else ""
    return start + "…" + text[len(start) + 1 - width :]
