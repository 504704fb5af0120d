"""How figures are shown: a table a claim that fits 80 columns."""

from pipeline.benchmark.figures import BYTES, BYTES_A_SECOND, IMAGES_A_SECOND, SECONDS, TIMES, Claim, Figure
from pipeline.benchmark.machine import Machine
from pipeline.console import LABEL_WIDTH, Screen, plain, size

COLUMNS = ("measured", "median", "low – high", "n", "goal")
SCALES = {
    SECONDS: ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    BYTES: ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    BYTES_A_SECOND: ((1e9, "GB/s"), (1e6, "MB/s")),
    IMAGES_A_SECOND: ((1.0, "img/s"),),
    TIMES: ((1.0, "x"),),
}
"""By unit: what it is shown in, the largest first."""


def show_machine(screen: Screen, machine: Machine, date: str) -> None:
    """Say what the figures are measured on; nothing with --json or -q."""
    if screen.json or screen.quiet:
        return
    versions = dict(machine.versions)
    python = versions.pop("python")
    lines = {
        "machine": f"{machine.cpu} · {machine.cores} cores to use · {size(machine.memory)}",
        "gpu": machine.gpu or "none that torch can use",
        "system": f"{machine.system} · Python {python}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": date,
    }
    screen.result(None, *(f"{name:<{LABEL_WIDTH}}{plain(text)}" for name, text in lines.items()))


def show_claim(screen: Screen, claim: Claim) -> None:
    """Print a claim's table and notes; nothing with --json or -q."""
    if screen.json or screen.quiet:
        return
    asked = any(figure.met is not None for figure in claim.figures)
    columns = COLUMNS if asked else COLUMNS[:-1]
    rows = [_row(figure)[: len(columns)] for figure in claim.figures]
    screen.result(None, "", f"[bold]({plain(claim.key)})[/bold] {plain(claim.title)}")
    if rows:
        screen.table("", columns, rows, right="median n")
    for table in claim.tables:
        cells = [[cell if isinstance(cell, str) else _count(cell) for cell in row] for row in table.rows]
        right = " ".join(name for name, cell in zip(table.columns, table.rows[0], strict=True) if cell != str(cell))
        screen.table("", table.columns, cells, right=right)
    notes = [*claim.notes, *(f"{figure.name}: {figure.note}" for figure in claim.figures if figure.note)]
    screen.result(None, *(plain(note) for note in notes))


def _row(figure: Figure) -> tuple[str, ...]:
    spread = figure.spread
    scale, label = _scale(figure.unit, spread.median)
    median, low, high = (_number(value / scale) for value in (spread.median, spread.low, spread.high))
    spanned = f"{low} – {high}" if len(spread.values) > 1 else ""
    return figure.name, f"{median} {label}".strip(), spanned, str(len(spread.values)), _goal(figure)


def _scale(unit: str, value: float) -> tuple[float, str]:
    """Return what a value is shown in: the largest of which there is at least one, else the smallest."""
    scales = SCALES.get(unit, ((1.0, ""),))
    return next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])


def _number(value: float) -> str:
    """Return three digits that count, or all before the point."""
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else 3
    return f"{value:,.{digits}f}"


def _count(value: float) -> str:
    """Return a whole number as it is, any other with the digits that count."""
    return f"{value:,}" if isinstance(value, int) else _number(value)


def _goal(figure: Figure) -> str:
    if figure.met is None:
        return ""
    sign, limit = ("≥", figure.at_least) if figure.at_least is not None else ("≤", figure.at_most)
    return f"{sign} {limit:,g} {'yes' if figure.met else 'no'}"
