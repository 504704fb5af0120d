"""What people see: numbers in words, hostile names shown harmless, progress off a terminal."""

import pytest

from pipeline import console
from pipeline.console import Screen, count, duration, percent, plain, size
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


def test_names_cannot_speak_to_the_terminal():
    assert plain("a\x1b[31m[red]\nb") == "a\\x1b[31m\\[red]\\nb"
    assert plain("caf\udce9") == "caf\\udce9"


def test_error_is_two_lines_on_stderr(capsys):
    Screen().error(DataError("[bold]no such[/bold] thing", "do this"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: [bold]no such[/bold] thing\n  try: do this\n"


def test_off_a_terminal_progress_is_a_plain_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(console, "FIRST_LINE_SECONDS", 0.0)
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
