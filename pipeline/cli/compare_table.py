"""How a comparison looks: two tables on the screen, one as a file."""

import json

from pipeline.backbone_choice import BackbonesResult
from pipeline.cli.runs import head_words
from pipeline.cli.show_evaluation import NAMES, SHARES, figure, plus_minus
from pipeline.comparison import ComparisonResult, Line
from pipeline.console import Screen, count, duration, percent, plain, size
from pipeline.csvtext import csv_text
from pipeline.intervals import RESAMPLES

FIELDS = (
    *("runs", "seeds", "head", "backbone", "cache", "metric", "value", "std", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm", "val_accuracy"),
    *("extraction_seconds", "training_seconds", "dim", "head_bytes"),
)
"""Columns of the CSV table."""
AGAINST = "to the best, 95 %"
COSTS = ("run", "backbone", "val", "extract", "train", "features", "head")
"""Columns of the second table on the screen."""


def show_comparison(screen: Screen, result: ComparisonResult) -> None:
    """Show who is how far from the best, and what each takes."""
    if not (screen.json or screen.quiet):
        name, title = result.metric, NAMES[result.metric]
        columns = ("run", "head", title, AGAINST, "p")
        rows = [(_name(one), head_words(one.runs[0]), _value(one, name), *_against(one, name)) for one in result.lines]
        screen.table("", columns, rows, right="p", whole=(title, AGAINST))
        screen.table("", COSTS, [_costs(one) for one in result.lines], right=" ".join(COSTS[2:]))
        screen.note(_method(result))
        if result.left_out:
            shown = ", ".join(result.left_out[:5]) + (", …" if len(result.left_out) > 5 else "")
            screen.note(f"left out, not measured or on other test rows: {shown}")
    best = result.lines[0]
    screen.result(
        result.to_json(),
        f"[bold]best {_name(best)}[/bold]  {NAMES[result.metric]} {_value(best, result.metric)} on "
        f"{count(result.n, 'test row')}{_verdict(result)}",
        brief="\n".join(run.id for one in result.lines for run in one.runs),
    )


def show_backbones(screen: Screen, result: BackbonesResult) -> None:
    """Show each backbone on validation rows, and the chosen one on test rows."""
    if not (screen.json or screen.quiet):
        columns = ("backbone", "val accuracy", "features", "extract", "train", "run")
        rows = []
        for one in result.candidates:
            low, high = (one.trained.metrics or {})["accuracy_ci95"]
            extract = duration(one.extracted.seconds) if one.extracted.computed else "cached"
            accuracy = f"{percent(one.val_accuracy)} [{100 * low:.1f}, {100 * high:.1f}]"
            rows.append(
                (
                    one.backbone,
                    accuracy,
                    f"{one.extracted.dim:,}",
                    extract,
                    duration(one.trained.seconds),
                    one.trained.run,
                )
            )
        screen.table("", columns, rows, right="features extract train")
    best, test = result.candidates[0], result.evaluation
    low, high = test.metrics["accuracy_ci95"]
    screen.result(
        result.to_json(),
        f"[bold]{plain(best.backbone)}[/bold] chosen on {count(best.trained.rows['val'], 'validation row')}  test "
        f"accuracy {percent(test.metrics['accuracy'])} \\[{100 * low:.1f}, {100 * high:.1f}] on "
        f"{count(test.n, 'image')}, run {test.run}",
        brief=best.backbone,
    )


def _verdict(result: ComparisonResult) -> str:
    level = [one for one in result.lines[1:] if (one.standing.p_holm or 0.0) >= 0.05]
    if not level:
        return ", and better than every other (p < 0.05)"
    return f"; not told apart from it: {', '.join(_name(one) for one in level[:3])}{', …' if len(level) > 3 else ''}"


def _method(result: ComparisonResult) -> str:
    best, *others = (len(one.runs) for one in result.lines)
    exact = result.metric == "accuracy" and best == 1 and 1 in others
    seeds = any(runs > 1 for runs in others)
    tests = ["McNemar's exact test"] if exact else []
    tests += ["paired bootstrap" + (" where there are seeds" if exact else "")] if seeds or not exact else []
    return (
        f"intervals: {RESAMPLES:,} paired resamples of the test rows; p: {', '.join(tests)}; "
        f"Holm's correction for {count(len(result.lines) - 1, 'comparison')}"
    )


def _name(line: Line) -> str:
    more = len(line.runs) - 1
    return line.runs[0].id + (f" +{more}" if more else "")


def _value(line: Line, metric: str) -> str:
    value = line.standing.value
    return figure(metric, value) if line.std is None else plus_minus(metric, value, line.std)


def _against(line: Line, metric: str) -> tuple[str, str]:
    standing = line.standing
    if standing.difference is None or standing.difference_interval is None or standing.p_holm is None:
        return "best", ""
    factor, digits = (100, 1) if metric in SHARES else (1, 4)
    value, low, high = (f"{factor * one:+.{digits}f}" for one in (standing.difference, *standing.difference_interval))
    return f"{value} [{low}, {high}]", f"{standing.p_holm:.3f}" if standing.p_holm >= 0.001 else "<0.001"


def _costs(line: Line) -> tuple[str, ...]:
    cost = line.cost
    return (
        _name(line),
        line.runs[0].body["backbone"]["name"].rpartition("/")[2],
        "–" if line.val_accuracy is None else percent(line.val_accuracy),
        "–" if cost.extraction_seconds is None else duration(cost.extraction_seconds),
        duration(cost.training_seconds),
        f"{cost.dim:,}",
        size(cost.head_bytes),
    )


def table_text(result: ComparisonResult, ending: str) -> str:
    """Return the whole comparison as `.csv`, `.md` or `.json`."""
    if ending == ".json":
        return json.dumps(result.to_json(), indent=1) + "\n"
    if ending == ".csv":
        return csv_text(FIELDS, [_fields(line, result.metric) for line in result.lines])
    return _markdown(result)


def _markdown(result: ComparisonResult) -> str:
    """Return what the screen shows as one table; all digits are in the CSV."""
    metric = result.metric
    columns = ("run", "head", "backbone", NAMES[metric], AGAINST, "p", *COSTS[2:-1], "head size")
    rows = [
        (
            _name(line),
            head_words(line.runs[0]),
            _costs(line)[1],
            _value(line, metric),
            *_against(line, metric),
            *_costs(line)[2:],
        )
        for line in result.lines
    ]
    cells = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _fields(line: Line, metric: str) -> list[object]:
    standing, cost, body = line.standing, line.cost, line.runs[0].body
    return [
        " ".join(run.id for run in line.runs),
        len(line.runs),
        head_words(line.runs[0]),
        body["backbone"]["name"],
        body["cache"]["id"],
        metric,
        standing.value,
        line.std,
        *standing.interval,
        standing.difference,
        *(standing.difference_interval or (None, None)),
        standing.p,
        standing.p_holm,
        line.val_accuracy,
        cost.extraction_seconds,
        cost.training_seconds,
        cost.dim,
        cost.head_bytes,
    ]
