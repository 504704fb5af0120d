"""Options and small helpers that several commands share."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.console import Screen

F = TypeVar("F", bound=Callable[..., Any])


def _set(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.obj, Screen) and param.name is not None:
        setattr(ctx.obj, param.name, True)


def global_options(command: F) -> F:
    """Add the options that every command takes, before its name or after it."""
    flags = (
        (("--json",), "json", "Print one JSON document on stdout."),
        (("-q", "--quiet"), "quiet", "Print ids and errors only."),
        (("-v", "--verbose"), "verbose", "Print more."),
        (("--traceback",), "traceback", "Show Python's traceback of an error."),
    )
    if command.__doc__:  # docstrings are raw; click wants the character before a paragraph that is not to be wrapped
        command.__doc__ = command.__doc__.replace("\\b\n", "\b\n")
    for names, key, text in reversed(flags):
        command = click.option(*names, key, is_flag=True, is_eager=True, expose_value=False, callback=_set, help=text)(
            command
        )
    return command


def cache_dir_option(command: F) -> F:
    """Add --cache-dir."""
    return click.option(
        "--cache-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("cache"),
        show_default=True,
        envvar="PIPELINE_CACHE_DIR",
        help="The cache root.",
    )(command)


def stream_option(command: F) -> F:
    """Add --stream."""
    return click.option(
        "--stream",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Leave features on disk; auto: those too large for memory.",
    )(command)


def runs_dir_option(command: F) -> F:
    """Add --runs-dir."""
    return click.option(
        "--runs-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("runs"),
        show_default=True,
        envvar="PIPELINE_RUNS_DIR",
        help="Where runs are kept.",
    )(command)


def data_root_option(command: F) -> F:
    """Add --data-root."""
    return click.option(
        "--data-root",
        type=click.Path(file_okay=False, path_type=Path),
        help="Of torchvision's data sets, where they are or go [default: data]; of a table, what its paths are "
        "relative to [default: the table's folder].",
    )(command)


def images_options(command: F) -> F:
    """Add the options that say where the images of an entry are now, and how they are read again."""
    links = click.option("--follow-symlinks", is_flag=True, help="Accept links that lead out of the source folder.")
    workers = click.option("--workers", type=click.IntRange(min=1), help="Loading processes.  [default: one a core]")
    source = click.option("--source", help="Where the images are now.  [default: where they were]")
    return source(workers(data_root_option(links(command))))


def reading_options(command: F) -> F:
    """Add the options that say how a source is read."""
    columns = (
        ("--path-column", "The table's column of paths.  [default: path]"),
        ("--label-column", "The column (of shards: the field of .json) with the labels.  [default: label]"),
        ("--split-column", "The table's column of train, val and test.  [default: split, if it is there]"),
        ("--image-column", "The Hugging Face data set's column of images.  [default: the only one]"),
        ("--group-by", "A column, or folder:N: a group stays on one side.  [default: column group of a table]"),
    )
    command = click.option("--unlabelled", is_flag=True, help="Take images without labels, to predict on.")(command)
    for name, text in reversed(columns):
        command = click.option(name, metavar="NAME", help=text)(command)
    return command


def device_option(command: F) -> F:
    """Add --device."""
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")(command)


class Measure(click.ParamType[float]):
    """A number with a unit, like `30d` or `10GB`."""

    def __init__(self, name: str, units: dict[str, float], examples: str) -> None:
        self.name, self.units, self.examples = name, units, examples

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - as click has it
        """Parse a number and its unit."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
        unit = match[2].lower() if match else None
        if match is None or unit not in self.units:
            self.fail(f"{value!r} is no {self.name}: write {self.examples}", param, ctx)
        found = float(match[1]) * self.units[unit]
        if not math.isfinite(found):
            self.fail(f"{value!r} is too large a {self.name}", param, ctx)
        return found


AGE = Measure("age", {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}, "30d, 12h, 2w, 90m or 45s")
SIZE = Measure(
    "size",
    {
        "": 1,
        "b": 1,
        "kb": 1e3,
        "mb": 1e6,
        "gb": 1e9,
        "tb": 1e12,
        "kib": 2**10,
        "mib": 2**20,
        "gib": 2**30,
        "tib": 2**40,
    },
    "10GB, 500MB or 2TiB",
)


class Numbers(click.ParamType[tuple[float, ...]]):
    """One number, or three separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:  # noqa: ANN401 - as click has it
        """Parse `0.5` or `0.485,0.456,0.406`."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} is not one number or three, like 0.5 or 0.485,0.456,0.406", param, ctx)
        return numbers
