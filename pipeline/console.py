"""What people see: plans, bars, tables, errors. The only file that knows rich.

Results go to stdout, everything else to stderr. On a terminal there are colours and bars, otherwise a plain line
every 10 seconds.
"""

import json
import logging
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from pipeline.errors import PipelineError
from pipeline.progress import OnProgress, Progress, ignore

PLAIN_SECONDS = 10.0
FIRST_LINE_SECONDS = 3.0
LABEL_WIDTH = 10
WIDTH_WITHOUT_TERMINAL = 100


@dataclass
class Screen:
    """Where a command's words go, and which of them."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    traceback: bool = False

    def __post_init__(self) -> None:
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    # --- results, to stdout ---

    def result(self, document: Any, *lines: str, brief: str = "") -> None:  # noqa: ANN401 - any JSON value
        """Print a command's result: the document with --json, `brief` with -q, else the lines."""
        if self.json:
            print_json(document)
        elif self.quiet:
            if brief:
                sys.stdout.write(brief + "\n")
        else:
            for line in lines:
                _say(self.out, line)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
        """Print a table on stdout; columns whose name is in `right` (space-separated) are right-aligned.

        Text folds where the terminal is narrow, but not in these and not in the first, which holds names to copy.
        """
        table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in columns:
            numbers = column in right.split()
            table.add_column(
                column, justify="right" if numbers else "left", overflow="fold", no_wrap=numbers or column == columns[0]
            )
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        self.out.print(table)

    # --- notes, to stderr ---

    def facts(self, pairs: Mapping[str, str]) -> None:
        """Print labelled lines, as plans are shown."""
        if self.quiet:
            return
        if not self.err.is_terminal:  # a log keeps each on one line
            for label, text in pairs.items():
                self.err.print(f"{label:<{LABEL_WIDTH}}{plain(text)}", soft_wrap=True)
            return
        grid = Table.grid()
        grid.add_column(width=LABEL_WIDTH, style="bold")
        grid.add_column(overflow="fold")
        for label, text in pairs.items():
            grid.add_row(label, plain(text))
        self.err.print(grid)

    def note(self, text: str) -> None:
        """Print a note on stderr."""
        if not self.quiet:
            _say(self.err, plain(text))

    def next_step(self, *commands: str) -> None:
        """Say what to do next."""
        if not self.quiet and not self.json:
            _say(self.err, f"[dim]next:[/dim] {plain('   '.join(commands))}")

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        if self.quiet:
            return
        _say(self.err, f"[yellow]![/yellow] {plain(text)}")

    def error(self, error: PipelineError) -> None:
        """Print an error: one line of what is wrong, one of what to do."""
        if self.json:
            body = {"kind": error.kind, "message": error.message, "hint": error.hint}
            print_json({"error": body})
            return
        _say(self.err, f"[bold red]error:[/bold red] {plain(error.message)}")
        if error.hint:
            _say(self.err, f"  [bold]try:[/bold] {plain(error.hint)}")

    # --- progress ---

    @contextmanager
    def bar(self, what: str, unit: str = "img") -> Iterator[OnProgress]:
        """Show progress while the context lasts: a bar on a terminal, else a line every 10 seconds.

        `unit` is what is counted.
        """
        if self.quiet:
            yield ignore
        elif self.err.is_terminal:
            with _terminal_bar(self.err, what, unit) as update:
                yield update
        else:
            yield _plain_lines(self.err, what, unit)

    @contextmanager
    def steps(self) -> Iterator[Callable[[str], None]]:
        """Say what a long job is at while the context lasts: beside a spinner, or a line at most every 10 seconds."""
        if self.quiet:
            yield lambda _: None
        elif self.err.is_terminal:
            with self.err.status("") as status:
                yield lambda text: status.update(plain(text))
        else:
            yield _plain_steps(self.err)


def print_json(document: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, highlight=False, emoji=False, width=width)


def _say(console: Console, line: str) -> None:
    """Print one line: on a terminal broken at words, so that long ids and paths can be copied; in a log not at all."""
    text = Text.from_markup(line)
    if not console.is_terminal:
        console.print(text, soft_wrap=True)
        return
    indent = " " * LABEL_WIDTH
    broken = textwrap.wrap(
        text.plain,
        console.width,
        subsequent_indent=indent,
        expand_tabs=False,
        drop_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lengths = [len(piece) - (len(indent) if number else 0) for number, piece in enumerate(broken)]
    for number, piece in enumerate(text.divide(accumulate(lengths[:-1]))):
        piece.rstrip()
        start = len(piece) - len(piece.plain.lstrip()) if number else 0
        console.print(Text(indent if number else "") + piece[start:], soft_wrap=True)


def plain(text: str) -> str:
    """Return text without meaning to rich, and without what a terminal cannot show or would obey."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return escape(shown.encode("utf-8", "backslashreplace").decode())


class _LeftColumn(ProgressColumn):
    """Time left at the rate of what is computed: rows taken from the cache come in no time and say nothing of it."""

    def render(self, task: Task) -> Text:
        rate, left = task.fields.get("rate", 0.0), (task.total or 0) - task.completed
        return Text(f"{duration(left / rate)} left" if rate and left > 0 else "", style="cyan")


class _RateColumn(ProgressColumn):
    """What is computed a second, and what holds it back."""

    def render(self, task: Task) -> Text:
        rate = task.fields.get("rate", 0.0)
        bound = task.fields.get("bottleneck", "")
        return Text(f"{_speed(rate, task.fields['unit'])}" + (f"  {bound}-bound" if bound and rate else ""))


@contextmanager
def _terminal_bar(console: Console, what: str, unit: str) -> Iterator[OnProgress]:
    bar = _Bar(console, what, unit)
    try:
        yield bar.update
    finally:
        bar.stop()


class _Bar:
    """A bar that is there from the first report to the last, so that what is printed afterwards has its own line."""

    def __init__(self, console: Console, what: str, unit: str) -> None:
        self.console, self.what, self.unit = console, what, unit
        self.bars: Bars | None = None

    def update(self, progress: Progress) -> None:
        if self.bars is None:
            self.bars, self.rate = self._start(), _Rate()
        self.bars.update(
            TaskID(0),
            total=progress.total,
            completed=progress.done,
            rate=self.rate.of(progress),
            bottleneck=progress.bottleneck,
        )
        if progress.total is not None and progress.done >= progress.total:
            self.stop()

    def stop(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def _start(self) -> Bars:
        label = TextColumn(f"{self.what:<{LABEL_WIDTH - 1}}")
        bars = Bars(label, BarColumn(), MofNCompleteColumn(), _RateColumn(), _LeftColumn(), console=self.console)
        bars.add_task(self.what, total=None, rate=0.0, bottleneck="", unit=self.unit)
        bars.start()
        return bars


class _Rate:
    """Computed rows a second since the first that was computed: warm-up is left out."""

    def __init__(self) -> None:
        self.started, self.first = 0.0, 0

    def of(self, progress: Progress) -> float:
        now = time.monotonic()
        if not progress.computed:
            return 0.0
        if not self.started:
            self.started, self.first = now, progress.computed
        elapsed = now - self.started
        return (progress.computed - self.first) / elapsed if elapsed > 0 else 0.0


def _speed(rate: float, unit: str) -> str:
    return f"{rate:,.0f} {unit}/s" if rate >= 1 or not rate else f"{rate:.1f} {unit}/s"


def _plain_lines(console: Console, what: str, unit: str) -> OnProgress:
    rate, last = _Rate(), time.monotonic()
    wait = FIRST_LINE_SECONDS

    def update(progress: Progress) -> None:
        nonlocal last, wait
        speed, now = rate.of(progress), time.monotonic()
        # The first line says how long it will take, as soon as the first batches tell.
        if now - last < wait or (wait < PLAIN_SECONDS and not speed):
            return
        last, wait = now, PLAIN_SECONDS
        of_all = ahead = ""
        if progress.total is not None:
            of_all = f"/{progress.total:,}"
            ahead = f", {duration((progress.total - progress.done) / speed)} left" if speed else ""
        console.print(f"{what} {progress.done:,}{of_all}, {_speed(speed, unit)}{ahead}", soft_wrap=True)

    return update


def _plain_steps(console: Console) -> Callable[[str], None]:
    last = -PLAIN_SECONDS

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            console.print(plain(text), soft_wrap=True)

    return say


class NoteHandler(logging.Handler):
    """Shows the library's warnings on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.DEBUG if screen.verbose else logging.WARNING)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        self.screen.warn(record.getMessage())


def count(number: int, thing: str) -> str:
    """Return `1,234 things` or `1 thing`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "es" if thing.endswith("s") else "s")


def size(number: float) -> str:
    """Return bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds for people."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def ago(seconds: float) -> str:
    """Return a time since 1970 as how long ago it was."""
    gone = max(0.0, time.time() - seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if gone >= length:
            return f"{gone / length:.0f} {unit} ago"
    return "now"


def percent(share: float) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * share:.1f} %"
