"""What the scripts beside this one share: `script(measure, full=…, quick=…)` is a whole command line.

A script is a claim: a function `measure(*, on_step, **sizes) -> Claim`, the sizes docs/PERFORMANCE.md names, and
small ones to try it with. Each size becomes an option of its own type.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.benchmark.figures import Claim, Report
from pipeline.benchmark.machine import describe_machine
from pipeline.cli.figures import show_claim, show_machine
from pipeline.console import Screen
from pipeline.errors import PipelineError


def script(
    measure: Callable[..., Claim | Sequence[Claim]],
    *,
    full: dict[str, Any],
    quick: dict[str, Any],
    arguments: Sequence[str] | None = None,
) -> None:
    """Read the command line, measure, print the tables and write `--json FILE`.

    Args:
        measure: called with `on_step` and a value for each name in `full`.
        full: the sizes of the claim: numbers, strings, or tuples of them (several values on the command line).
        quick: what differs with `--quick`.
        arguments: of the command line, by default this process's own.
    """
    parser = argparse.ArgumentParser(description=(sys.modules[measure.__module__].__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help=f"small sizes: {_said(quick)}")
    for name, value in full.items():
        _add(parser, name, value)
    given = vars(parser.parse_args(arguments))
    target, small = given.pop("json"), given.pop("quick")
    sizes = {**full, **(quick if small else {}), **{name: value for name, value in given.items() if value is not None}}
    screen = Screen()
    machine, date, started = describe_machine(), datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    show_machine(screen, machine, date)
    try:
        found = measure(on_step=lambda what: screen.note(f"measuring: {what}"), **sizes)
    except PipelineError as error:
        screen.error(error)
        sys.exit(error.exit_code)
    claims = (found,) if isinstance(found, Claim) else tuple(found)
    for claim in claims:
        show_claim(screen, claim)
    report = Report(machine, claims, date, time.perf_counter() - started, small)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report.to_json(), indent=1) + "\n")


def _add(parser: argparse.ArgumentParser, name: str, value: Any) -> None:  # noqa: ANN401 - a number, a string, a tuple
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, tuple):
        parser.add_argument(flag, type=type(value[0]), nargs="+", help=f"default: {' '.join(map(str, value))}")
    else:
        parser.add_argument(flag, type=type(value), help=f"default: {value}")


def _said(sizes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sizes.items())
