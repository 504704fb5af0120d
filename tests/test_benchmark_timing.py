"""Medians, spreads, ratios and turns; what a figure says of itself."""

import json

import pytest

from pipeline.benchmark.figures import SHARE, Claim, Figure, Report
from pipeline.benchmark.machine import describe_machine
from pipeline.benchmark.timing import Spread, combined, interleaved, ratio, seconds_of


def test_a_spread_knows_its_middle_and_its_ends():
    assert (Spread.of(3, 1, 2).median, Spread.of(3, 1, 2).low, Spread.of(3, 1, 2).high) == (2, 1, 3)
    assert Spread.of(1, 2, 4, 9).median == 3
    assert Spread.of(1, 2).map(lambda seconds: 10 / seconds).values == (10, 5)
    with pytest.raises(ValueError, match="at least one"):
        Spread(())


def test_ratios_are_taken_within_a_round():
    assert ratio(Spread.of(10, 40), Spread.of(1, 2)).values == (10, 20)
    assert ratio(Spread.of(10, 40), Spread.of(2)).values == (5, 20)
    assert combined(lambda a, b, c: a + b + c, Spread.of(1, 2), Spread.of(10), Spread.of(3, 5)).values == (14, 17)


def test_alternatives_take_turns():
    calls, steps = [], []

    def counted(name):
        return lambda: calls.append(name) or float(len(calls))

    found = interleaved({"a": counted("a"), "b": counted("b")}, 2, steps.append)
    assert calls == ["a", "b", "a", "b"]
    assert found == {"a": Spread.of(1, 3), "b": Spread.of(2, 4)}
    assert steps == ["a (1 of 2)", "b (1 of 2)", "a (2 of 2)", "b (2 of 2)"]
    assert seconds_of(lambda: None)() >= 0


def test_a_figure_says_whether_it_is_what_is_asked():
    assert Figure("f", SHARE, Spread.of(0.9, 0.95, 0.99), at_least=0.92).met is True
    assert Figure("f", SHARE, Spread.of(1.1), at_most=1.05).met is False
    plain = Figure("f", SHARE, Spread.of(1.1))
    assert plain.met is None
    assert plain.to_json() == {"name": "f", "unit": "share", "median": 1.1, "low": 1.1, "high": 1.1, "values": [1.1]}


def test_a_report_is_plain_json_with_the_machine():
    claim = Claim("a", "something", (Figure("f", SHARE, Spread.of(1.0), at_least=0.5, note="why"),), {"rows": 3})
    report = Report(describe_machine(), (claim,), "2026-01-01T00:00:00+00:00", 1.0, quick=True)
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(found["machine"]) == {"cpu", "cores", "memory", "gpu", "system", "versions"}
    assert found["machine"]["cpu"]
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory"] > 2**28
    assert "torch" in found["machine"]["versions"]
    (figure,) = found["claims"][0]["figures"]
    assert (figure["met"], figure["note"]) == (True, "why")
