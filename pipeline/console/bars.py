"""Progress: bars and growing tables on a terminal, else a plain line every 10 seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.console.words import LABEL_WIDTH, duration, plain
from pipeline.progress import OnProgress, Progress

PLAIN_SECONDS = 10.0
FIRST_LINE_SECONDS = 3.0


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
        return Text(_speed(rate, task.fields["unit"]) + (f"  {bound}-bound" if bound else "") if rate else "")


@contextmanager
def terminal_bar(console: Console, what: str, unit: str) -> Iterator[OnProgress]:
    """Show a bar while the context lasts."""
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
            (task,) = self.bars.tasks
            if task.total is None and task.completed:  # nobody knew how many there would be; now it is known
                self.bars.update(TaskID(0), total=task.completed)
            self.bars.stop()
            self.bars = None

    def _start(self) -> Bars:
        label = TextColumn(f"{self.what:<{LABEL_WIDTH - 1}}")
        bars = Bars(label, BarColumn(), MofNCompleteColumn(), _RateColumn(), _LeftColumn(), console=self.console)
        bars.add_task(self.what, total=None, rate=0.0, bottleneck="", unit=self.unit)
        bars.start()
        return bars


class _Rate:
    """Rows a second that this process and others compute, since the first of them: warm-up is left out."""

    def __init__(self) -> None:
        self.started, self.first = 0.0, 0

    def of(self, progress: Progress) -> float:
        now, made = time.monotonic(), progress.computed + progress.elsewhere
        if not made:
            return 0.0
        if not self.started:
            self.started, self.first = now, made
        elapsed = now - self.started
        return (made - self.first) / elapsed if elapsed > 0 else 0.0


def _speed(rate: float, unit: str) -> str:
    return f"{rate:,.0f} {unit}/s" if rate >= 1 or not rate else f"{rate:.1f} {unit}/s"


def plain_lines(console: Console, what: str, unit: str) -> OnProgress:
    """Return what prints a line at most every PLAIN_SECONDS."""
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


def plain_steps(console: Console) -> Callable[[str], None]:
    """Return what prints what it is given at most every PLAIN_SECONDS."""
    last = -PLAIN_SECONDS

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            console.print(plain(text), soft_wrap=True)

    return say


@dataclass
class Growing:
    """A table whose rows come one by one; off a terminal each is a line as it comes."""

    say: Callable[[str], None]
    lines: list[str] = field(default_factory=list)

    def start(self, header: str, total: int) -> None:
        """Begin, with how many rows there may be."""
        self.say(header)

    def add(self, line: str, loss: float | None) -> None:
        """Add a row; the first with the lowest `loss` is marked where that can be shown."""
        self.say(line)


@contextmanager
def terminal_rows(console: Console) -> Iterator[Growing]:
    """Show a live table while the context lasts; it stays when it is done."""
    rows = _LiveRows(console)
    try:
        yield rows
    finally:
        rows.stop()


class _LiveRows(Growing):
    """Rows as they come, that with the lowest loss marked, beneath them a bar with the time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console.print)
        self.console, self.losses = console, list[float]()
        self.live: Live | None = None

    def start(self, header: str, total: int) -> None:
        self.header, self.total, self.started = Text(header, "bold"), total, time.monotonic()
        self.finished = self.started
        self.live = Live(console=self.console, get_renderable=self._view, transient=True, refresh_per_second=4)
        self.live.start()

    def add(self, line: str, loss: float | None) -> None:
        self.lines.append(line)
        self.losses.append(float("inf") if loss is None else loss)
        self.finished = time.monotonic()
        if len(self.lines) >= self.total:
            self.stop()

    def stop(self) -> None:
        """Leave the rows on the screen, without the bar."""
        if self.live is not None:
            live, self.live = self.live, None
            live.stop()
            self.console.print(Group(self.header, *self._rows()), soft_wrap=True)

    def _rows(self, last: int | None = None) -> list[Text]:
        lowest = min(self.losses, default=float("inf"))
        best = self.losses.index(lowest) if lowest < float("inf") else -1
        rows = [
            Text(f"{line}  ◂ lowest loss", "green") if place == best and len(self.lines) > 1 else Text(line)
            for place, line in enumerate(self.lines)
        ]
        return rows[-last:] if last else rows

    def _view(self) -> Group:
        """Return what fits: a live display taller than the screen cannot be drawn over."""
        now, done = time.monotonic(), len(self.lines)
        left = (self.finished - self.started) / done * (self.total - done) - (now - self.finished) if done else 0.0
        status = Table.grid(padding=(0, 1))
        status.add_row(
            Text(f"{done:>6}/{self.total}"),
            ProgressBar(total=self.total, completed=done, width=40),
            Text(f"{duration(max(0.0, left))} left" if done else "", "cyan"),
        )
        return Group(self.header, *self._rows(max(1, self.console.height - 4)), status)
