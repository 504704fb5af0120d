"""What people see: plans, bars, tables, errors. The only folder that knows rich.

Results go to stdout, everything else to stderr. On a terminal there are colours and bars, otherwise a plain line
every 10 seconds.
"""

import json
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.console.bars import Growing, plain_lines, plain_steps, terminal_bar, terminal_rows
from pipeline.console.words import LABEL_WIDTH, ago, count, duration, percent, plain, size
from pipeline.errors import PipelineError
from pipeline.progress import OnProgress, ignore

__all__ = [
    "LABEL_WIDTH",
    "Growing",
    "NoteHandler",
    "Screen",
    "ago",
    "count",
    "duration",
    "percent",
    "plain",
    "print_json",
    "size",
]

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

    @property
    def has_terminal(self) -> bool:
        """Whether notes and bars are seen by somebody now, and not read later."""
        return self.err.is_terminal

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

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: str = "",
        spare: str = "",
        whole: Sequence[str] = (),
    ) -> None:
        """Print a table on stdout; columns whose name is in `right` (space-separated) are right-aligned.

        Where the terminal is narrow the column `spare` is left out. If that is not enough text folds, but not in
        those on the right, not in `whole`, and not in the first, which holds names to copy.
        """
        if spare and _width(columns, rows) > self.out.width:
            place = columns.index(spare)
            columns, *rows = ([*cells[:place], *cells[place + 1 :]] for cells in (columns, *rows))
        if title:
            self.out.print(Text(title, "italic"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            numbers = column in right.split()
            table.add_column(
                column,
                justify="right" if numbers else "left",
                overflow="fold",
                no_wrap=numbers or column == columns[0] or column in whole,
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
            with terminal_bar(self.err, what, unit) as update:
                yield update
        else:
            yield plain_lines(self.err, what, unit)

    @contextmanager
    def rows(self) -> Iterator[Growing]:
        """Show a table that grows while the context lasts: live on a terminal, else a line a row."""
        if self.err.is_terminal and not self.quiet:
            with terminal_rows(self.err) as rows:
                yield rows
        else:
            yield Growing(self.note)

    @contextmanager
    def steps(self) -> Iterator[Callable[[str], None]]:
        """Say what a long job is at while the context lasts: beside a spinner, or a line at most every 10 seconds."""
        if self.quiet:
            yield lambda _: None
        elif self.err.is_terminal:
            with self.err.status("") as status:
                yield lambda text: status.update(plain(text))
        else:
            yield plain_steps(self.err)


def print_json(document: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, highlight=False, emoji=False, width=width)


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the columns that a table takes without folding: its cells, and two spaces between them."""
    return sum(max(cell_len(cell) for cell in cells) + 2 for cells in zip(columns, *rows, strict=True)) - 2


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


class NoteHandler(logging.Handler):
    """Shows the library's warnings on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.DEBUG if screen.verbose else logging.WARNING)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        self.screen.warn(record.getMessage())
