"""What people see: numbers in words, hostile names shown harmless, progress off a terminal."""

import io
import time

import pytest
from rich.console import Console

from pipeline import console
from pipeline.console import Screen, ago, bars, count, duration, percent, plain, size
from pipeline.errors import DataError
from pipeline.progress import Progress


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (duration(0.0123), "12 ms"),
        (duration(5.04), "5.0 s"),
        (duration(125), "2:05 min"),
        (duration(3725), "1:02:05"),
        (size(999), "999 B"),
        (size(33_554_432), "33.6 MB"),
        (size(5.2e12), "5.2 TB"),
        (count(1, "class"), "1 class"),
        (count(1200, "class"), "1,200 classes"),
        (count(2, "shard"), "2 shards"),
        (percent(0.7234), "72.3 %"),
    ],
)
def test_numbers_in_words(said, wanted):
    assert said == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        *((gone, "now") for gone in (-3600, -1, 0, 0.5, 59.9)),
        *((60, "1 min ago"), (119, "2 min ago"), (3599, "60 min ago"), (3600, "1 h ago"), (5 * 3600, "5 h ago")),
        *((86399, "24 h ago"), (86400, "1 d ago"), (40 * 86400, "40 d ago"), (4000 * 86400, "4000 d ago")),
    ],
)
def test_how_long_ago_in_words(monkeypatch, seconds, wanted):
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    assert ago(1.7e9 - seconds) == wanted


def test_names_cannot_speak_to_the_terminal():
    assert plain("a\x1b[31m[red]\nb") == "a\\x1b[31m\\[red]\\nb"
    assert plain("caf\udce9") == "caf\\udce9"


def test_error_is_two_lines_on_stderr(capsys):
    Screen().error(DataError("[bold]no such[/bold] thing", "do this"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: [bold]no such[/bold] thing\n  try: do this\n"


def test_off_a_terminal_progress_is_a_plain_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(bars, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(bars, "FIRST_LINE_SECONDS", 0.0)
    with Screen().bar("extract") as on_progress:
        on_progress(Progress(64, 256, computed=64))
        on_progress(Progress(128, 256, computed=128))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("extract 128/256, ")
    assert lines[1].endswith("left")
    assert "\x1b" not in "".join(lines)


def test_quiet_says_nothing_but_errors(capsys):
    screen = Screen(quiet=True)
    screen.note("note")
    screen.warn("warning")
    screen.next_step("step")
    screen.facts({"a": "b"})
    screen.result({}, "long", brief="id")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("id\n", "")


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def reported(capsys, clock, *steps: tuple[float, Progress]) -> list[str]:
    """The lines printed off a terminal for progress at these times."""
    with Screen().bar("extract") as on_progress:
        for at, progress in steps:
            clock.now = 1000.0 + at
            on_progress(progress)
    return capsys.readouterr().err.splitlines()


def test_the_time_left_is_that_of_rows_still_to_come_at_the_rate_of_those_computed(capsys, clock):
    lines = reported(
        capsys,
        clock,
        (0, Progress(0, 1000)),
        (1, Progress(100, 1000, computed=100)),  # the first rows warm up and are no measure
        (5, Progress(500, 1000, computed=500)),
        (16, Progress(600, 1000, computed=600)),
    )
    assert lines == ["extract 500/1,000, 100 img/s, 5.0 s left", "extract 600/1,000, 33 img/s, 12.0 s left"]


def test_rows_from_the_cache_come_in_no_time_and_say_nothing_of_the_rest(capsys, clock):
    lines = reported(
        capsys,
        clock,
        (0, Progress(900_000, 1_000_000, reused=900_000)),
        (4, Progress(900_100, 1_000_000, computed=100, reused=900_000)),
        (14, Progress(901_100, 1_000_000, computed=1100, reused=900_000)),
    )
    assert lines == ["extract 901,100/1,000,000, 100 img/s, 16:29 min left"]


def test_the_time_left_is_at_the_rate_of_all_workers(capsys, clock):
    lines = reported(
        capsys,
        clock,
        (0, Progress(0, 1000)),
        (1, Progress(50, 1000, computed=50)),
        (5, Progress(450, 1000, computed=150, elsewhere=300)),
    )
    assert lines == ["extract 450/1,000, 100 img/s, 5.5 s left"]


def test_without_anything_computed_no_time_is_promised(capsys, clock):
    lines = reported(
        capsys, clock, *((at, Progress(100 * at, 10_000, reused=100 * at)) for at in (0, 2, 4, 11, 15, 22))
    )
    assert lines == []


def test_before_the_first_ten_seconds_there_is_one_line_and_then_one_every_ten(capsys, clock):
    steps = [(at, Progress(10 * at + 10, 10_000, computed=10 * at + 10)) for at in range(41)]
    lines = reported(capsys, clock, *steps)
    assert [line.split(",")[0] for line in lines] == [f"extract {10 * at + 10}/10" for at in (3, 13, 23, 33)]


def test_no_time_is_left_at_the_end(capsys, clock):
    lines = reported(
        capsys, clock, (0, Progress(1, 11, computed=1)), (5, Progress(11, 11, computed=11)), (6, Progress(11, 11))
    )
    assert lines == ["extract 11/11, 2 img/s, 0 ms left"]


def test_on_a_terminal_lines_break_between_words_and_ids_and_paths_stay_whole():
    path = "/photos/" + "x" * 60 + "/entry"
    line = f"[bold]cache[/bold]     3f9a · {plain(path)} · \\[51.6, 68.1] · one more word and another"
    said = io.StringIO()
    console._say(Console(file=said, force_terminal=True, width=40, color_system=None), line)
    lines = said.getvalue().splitlines()
    assert lines[0].split() == ["cache", "3f9a", "·"]
    assert lines[1] == " " * 10 + path
    assert all(len(one) <= 40 and one.startswith(" " * 10) and one[10] != " " for one in lines[2:])
    assert " ".join(said.getvalue().split()) == f"cache 3f9a · {path} · [51.6, 68.1] · one more word and another"


def live_rows(losses: list[float | None], total: int = 3) -> tuple[list[str], list[str]]:
    """What is on a live table before its end, and what stays."""
    said = io.StringIO()
    terminal = Console(file=said, force_terminal=True, width=40, height=6, color_system=None)
    with bars.terminal_rows(terminal) as rows:
        rows.start("header", total)
        for number, loss in enumerate(losses):
            rows.add(f"row {number}", loss)
        during = io.StringIO()
        Console(file=during, width=60).print(rows._view())
        said.seek(0)
        said.truncate()
    return during.getvalue().splitlines(), said.getvalue().splitlines()


def test_a_live_table_marks_the_lowest_loss_and_stays_when_it_is_done(clock):
    during, after = live_rows([0.5, 0.4, 0.4], total=5)
    assert during[0] == "header"
    assert during[1].startswith("row 1  ◂ lowest loss")  # the screen has room for two rows
    assert during[2].startswith("row 2")
    assert during[3].lstrip().startswith("3/5")
    assert during[3].endswith("0 ms left")
    text = "\n".join(after)
    assert text[text.rindex("header") :].split("\n")[:4] == ["header", "row 0", "row 1  ◂ lowest loss", "row 2"]


def test_a_live_table_without_losses_marks_nothing(clock):
    during, after = live_rows([None, None])
    assert "lowest" not in "".join((*during, *after))
    assert live_rows([])[0][0] == "header"


def test_off_a_terminal_rows_are_lines(capsys):
    with Screen().rows() as rows:
        rows.start("header", 2)
        rows.add("one", 0.5)
    with Screen(quiet=True).rows() as rows:
        rows.start("header", 2)
    assert capsys.readouterr().err == "header\none\n"


def test_a_spare_column_is_left_out_where_the_terminal_is_narrow(capsys):
    for width, wanted in ((30, ["name   spare  last", "a_b_c  12345  z"]), (15, ["name   last", "a_b_c  z"])):
        screen = Screen()
        screen.out = Console(width=width)
        screen.table("", ("name", "spare", "last"), [("a_b_c", "12345", "z")], spare="spare")
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == wanted
