"""Options and values that commands which train heads share."""

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from pipeline.cli.options import F


def choice(name: str, *known: str, help: str | None = None) -> Callable[[F], F]:
    """Return an option with a closed set of values, the first by default."""
    return click.option(name, type=click.Choice(known), default=known[0], show_default=True, help=help)


def number(name: str, default: float, help: str | None = None) -> Callable[[F], F]:
    """Return an option that is a number of the default's type."""
    return click.option(name, type=type(default), default=default, show_default=True, help=help)


def validation_options(command: F) -> F:
    """Add --val-fraction and --split-seed."""
    command = number("--split-seed", 0, "Of that draw, or of folds.")(command)
    return number("--val-fraction", 0.1, "Share of train held out where the source names no val split.")(command)


def schedule_options(command: F) -> F:
    """Add --schedule, --warmup-epochs and --early-stopping."""
    text = "Stop after so many epochs without a lower validation loss; keep the best."
    command = number("--early-stopping", 0, text)(command)
    command = number("--warmup-epochs", 0, "In which they rise from 0.")(command)
    return choice("--schedule", "constant", "cosine", help="Of learning rates.")(command)


def name_option(command: F) -> F:
    """Add --name."""
    return click.option("--name", default="", help="Goes behind the run's number.")(command)


class HowManyViews(click.ParamType[int | str]):
    """A number of views, or all."""

    name = "views"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:  # noqa: ANN401 - as click has it
        """Parse `4` or `all`."""
        number = str(value)
        if number != "all" and (not number.isdecimal() or int(number) < 1):
            self.fail(f"{value!r} is no number of views like 4, and not all", param, ctx)
        return "all" if number == "all" else int(number)


def views_options(command: F) -> F:
    """Add --views and --augment."""
    command = click.option("--augment", metavar="STEPS", help="Of --views, where there are several augmentations.")(
        command
    )
    text = "Train on so many views of each image, or all (extract --views makes them)."
    return click.option("--views", type=HowManyViews(), metavar="K|all", default=1, show_default=True, help=text)(
        command
    )


def given_options(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, so that those of another solver can be told from defaults."""
    return {key: value for key, value in options.items() if ctx.get_parameter_source(key) != ParameterSource.DEFAULT}


def list_option(*names: str, of: "click.ParamType[tuple[Any, ...]]", help: str) -> Callable[[F], F]:
    """Return an option that takes a list: after commas, or by being given again."""

    def joined(_ctx: click.Context, _param: click.Parameter, given: tuple[tuple[Any, ...], ...]) -> Any:  # noqa: ANN401
        return tuple(item for part in given for item in part) or None

    return click.option(*names, type=of, multiple=True, callback=joined, help=help)


class Values(click.ParamType[tuple[float, ...]]):
    """Numbers separated by commas."""

    name = "values"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:  # noqa: ANN401 - as click has it
        """Parse `1e-4,1e-3`."""
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers like 1e-4,1e-3", param, ctx)


class Counts(click.ParamType[tuple[int, ...]]):
    """Whole numbers separated by commas."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:  # noqa: ANN401 - as click has it
        """Parse `1,2,4`."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers like 1,2,4", param, ctx)


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:  # noqa: ANN401 - as click has it
        """Parse `plain,standardize`."""
        return tuple(part.strip() for part in str(value).split(","))
