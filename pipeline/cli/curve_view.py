"""How a learning curve looks: its plan, its table with a plot beside it, and the same as files."""

from pathlib import Path

from pipeline.console import Screen, count, duration, percent
from pipeline.csvtext import csv_text
from pipeline.extrapolation import VERDICTS
from pipeline.learning_curve import CurvePlan, CurvePoint, CurveResult
from pipeline.outputs import check_output, write_output

PLOT_WIDTH = 36
COLUMNS = ("images", "shots", "draws", "accuracy", "±")
PICTURES = (".svg", ".png")


def show_curve_plan(screen: Screen, plan: CurvePlan) -> None:
    """Show what is about to be trained."""
    settings = plan.settings
    sizes = f"{count(len(plan.sizes), 'size')} from {plan.sizes[0]:,} to {plan.sizes[-1]:,} images"
    regularisation = f" · C {settings.C:.2g}" if settings.C is not None else ""
    screen.facts(
        {
            "cache": f"{plan.cache} verified · {plan.backbone} · {plan.dim:,} features · "
            f"{count(plan.classes, 'class')}",
            "rows": f"train {plan.train:,} · measured on val {plan.val:,} · test never looked at",
            "heads": f"{count(plan.heads, 'head')} of {sizes} · {settings.solver}{regularisation}"
            + (" · standardized" if settings.standardize else "")
            + f" · {plan.device}",
        }
    )


def show_curve(screen: Screen, result: CurveResult) -> None:
    """Show the curve and what it says."""
    if not (screen.json or screen.quiet):
        low, high = _span(result)
        rows = [_row(point, low, high) for point in result.points]
        foretold = result.extrapolation
        if foretold is not None:
            last = result.points[-1]
            mean, ends = last.mean + foretold.gain, [last.mean + gain for gain in foretold.gain_ci95]
            rows.append(
                [f"{2 * last.size.rows:,}", "", "", percent(mean), "", _strip(mean, ends[0], ends[1], low, high, "○")]
            )
        axis = f"{percent(low)}".ljust(PLOT_WIDTH - 7) + f"{percent(high)}".rjust(7)
        screen.table("", (*COLUMNS, axis), rows, right=" ".join(COLUMNS))
        screen.note(_legend(result))
    screen.result(
        result.to_json(),
        *sentences(result),
        brief=result.verdict or "unknown",
    )


def sentences(result: CurveResult) -> list[str]:
    """Return what the curve says: the last measured step, what doubling would bring, and the verdict."""
    last = result.points[-1]
    said = [
        f"[bold]{percent(last.mean)}[/bold] with {last.size.rows:,} images, on "
        f"{count(result.val_rows, 'validation row')} {_interval(result.val_ci95)} · test not measured · "
        f"in {duration(result.seconds)}",
    ]
    if result.last_gain is not None and result.last_gain_ci95 is not None:
        said.append(
            f"from {result.points[-2].size.rows:,} to {last.size.rows:,} images: "
            f"{_points(result.last_gain, result.last_gain_ci95)}"
        )
    found = result.extrapolation
    if found is None:
        said.append(f"what more data would bring is not foretold: {result.why_none}")
        return said
    said.append(
        f"twice as many, {2 * last.size.rows:,}: {_points(found.gain, found.gain_ci95)} foretold by "
        f"{found.law.a:.3f} - b n^-{found.law.c:.2f}"
    )
    return [*said, f"[bold]{VERDICTS[result.verdict or 'unclear']}.[/bold]"]


def check_outputs(picture: Path | None, table: Path | None) -> None:
    """Refuse outputs that cannot be, before anything is trained."""
    for path, known in ((picture, PICTURES), (table, (".csv",))):
        if path is not None:
            check_output(path, known)
    if picture is not None:
        from pipeline.reporting.figures import require_matplotlib

        require_matplotlib()


def write_points(result: CurveResult, path: Path) -> None:
    """Write a line a head: size, draw, accuracy on validation rows."""
    rows = [
        (point.size.rows, point.size.shots, point.size.fraction, draw, accuracy)
        for point in result.points
        for draw, accuracy in enumerate(point.accuracies)
    ]
    write_output(path, csv_text(("rows", "shots", "fraction", "draw", "val_accuracy"), rows))


def draw_plot(result: CurveResult, path: Path) -> None:
    """Write the curve as a picture."""
    from pipeline.reporting.figures import learning_curve

    found = result.extrapolation
    data = learning_curve(
        [point.size.rows for point in result.points],
        [point.mean for point in result.points],
        [point.std or 0.0 for point in result.points],
        foretold=None if found is None else (found.law.at, found.gain_ci95),
        kind="png" if path.suffix.lower() == ".png" else "svg",
    )
    write_output(path, data)


def _row(point: CurvePoint, low: float, high: float) -> list[str]:
    spread = point.std or 0.0
    return [
        f"{point.size.rows:,}",
        "" if point.size.shots is None else f"{point.size.shots:,}",
        str(len(point.accuracies)),
        percent(point.mean),
        "" if point.std is None else f"{100 * point.std:.1f}",
        _strip(point.mean, point.mean - spread, point.mean + spread, low, high, "●"),
    ]


def _strip(mean: float, left: float, right: float, low: float, high: float, mark: str) -> str:
    """Return a line of a sideways plot: a mark at the mean, a dash from `left` to `right`."""
    scale = (PLOT_WIDTH - 1) / (high - low)
    first, at, last = (min(PLOT_WIDTH - 1, max(0, round((value - low) * scale))) for value in (left, mean, right))
    cells = ["─" if first <= place <= last else " " for place in range(last + 1)]
    cells[at] = mark
    return "".join(cells)


def _span(result: CurveResult) -> tuple[float, float]:
    """Return the ends of the plot's axis: whole tenths around everything on it."""
    means = [point.mean for point in result.points]
    if result.extrapolation is not None:
        means.append(means[-1] + result.extrapolation.gain_ci95[1])
    low, high = int(10 * min(means)) / 10, min(10, int(10 * max(means)) + 1) / 10
    return (low, high) if low < high else (low - 0.1, high)


def _legend(result: CurveResult) -> str:
    foretold = ", ○ foretold" if result.extrapolation is not None else ""
    return f"● mean of the draws, ─ ± their standard deviation in points{foretold}"


def _points(gain: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * gain:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def _interval(ends: tuple[float, float]) -> str:
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
