"""The entry point: the group of commands, global options, and what every error becomes."""

import io
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from pipeline import __version__
from pipeline.cli.options import global_options
from pipeline.console import NoteHandler, Screen, print_json
from pipeline.errors import DataError, PipelineError, UsageError, nearest

INTERRUPTED = 130
NOT_RESUMED = ("train-head", "sweep", "learn-curve", "audit", "report")
"""Commands that leave nothing where they are interrupted."""
LONGEST = 500
"""Characters of a command that is worth repeating."""

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Work": {
        "extract": ("extract", "Stage 1: images through a frozen backbone, features into the cache."),
        "train-head": ("train_head", "Stage 2: train a head on cached features."),
        "finetune": ("finetune", "Train the layers behind a cached cut-point, and a new head."),
        "sweep": ("sweep", "Many heads at once; the best on validation rows becomes a run."),
        "learn-curve": ("learn_curve", "Accuracy over training-set size: does more data help?"),
        "evaluate": ("evaluate", "Metrics of a run; --end-to-end proves it is the same model."),
        "report": ("report", "All that is known of a run as one HTML file."),
        "predict": ("predict", "Classify new images with a run."),
        "export": ("export", "Backbone and head as one file: ONNX, torch.export, safetensors."),
        "run": ("run", "Extract, train-head and evaluate from one TOML file."),
    },
    "Look": {
        "runs": ("runs", "What was trained."),
        "compare": ("compare", "Runs side by side on the same test rows, with paired tests."),
        "audit": ("audit", "What is wrong with the data: copies, leaks, labels, outliers."),
        "cache": ("cache", "List, inspect, verify and remove cache entries."),
        "backbones": ("backbones", "The networks that can be used."),
    },
    "Start": {
        "demo": ("demo", "The whole job on bundled data, offline, under a minute."),
        "benchmark": ("benchmark", "This machine's speed against the plain loop and the bare forward."),
        "doctor": ("doctor", "Explain this installation and what is wrong with it."),
    },
}
"""Sections of the help: command name to (module, one-line help), so that help imports no command."""

COMMANDS = {name: where for section in SECTIONS.values() for name, where in section.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return its command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"pipeline.cli.{COMMANDS[cmd_name][0]}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UsageError(
                f"unknown command {args[0]!r}.{nearest(args[0], COMMANDS)}", "`pipeline --help` lists all commands."
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, help_line) for name, (_, help_line) in commands.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `pipeline demo`. Each command's --help has examples.",
)
@click.version_option(__version__, message="pipeline %(version)s")
@global_options
def cli() -> None:
    r"""Run a frozen backbone once, keep its features, train heads on them in seconds.

    \b
      pipeline extract ./photos --backbone resnet18     images -> features in the cache (once)
      pipeline train-head latest                        features -> a new linear head (seconds)
      pipeline evaluate latest --end-to-end             metrics, and the proof of parity
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # terminals that are not UTF-8
    screen = Screen(json="--json" in given, traceback="--traceback" in given)
    handler = NoteHandler(screen)
    logger = logging.getLogger("pipeline")
    logger.addHandler(handler)
    logger.propagate = False
    # A job manager's SIGTERM ends like Ctrl-C: workers stopped, the way to go on said.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(_run(given, screen))
    finally:
        signal.signal(signal.SIGTERM, before)
        logger.removeHandler(handler)


def _run(arguments: list[str], screen: Screen) -> int:
    """Run a command and return the exit code of what became of it."""
    try:
        result = cli.main(arguments, prog_name="pipeline", standalone_mode=False, obj=screen)
    except PipelineError as error:
        if screen.traceback:
            raise
        screen.error(error)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        screen.error(_usage_error(error))
        return UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(screen, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PermissionError, FileNotFoundError) as error:
        if screen.traceback:
            raise
        screen.error(DataError(f"{error.filename}: {error.strerror}", "Check the path and who may read and write it."))
        return DataError.exit_code
    except Exception as error:
        if screen.traceback:
            raise
        screen.error(
            PipelineError(
                f"unexpected {type(error).__name__}: {error}",
                "This is probably a fault of this package: run again with --traceback and report what it says.",
            )
        )
        return 1
    return result if isinstance(result, int) else 0


def _usage_error(error: click.UsageError) -> UsageError:
    command = error.ctx.command_path if error.ctx is not None else "pipeline"
    return UsageError(error.format_message(), f"`{command} --help` shows how it is used.")


def _interrupted(screen: Screen, arguments: list[str]) -> int:
    again = shlex.join(["pipeline", *arguments])
    if len(again) > LONGEST:
        again = "the same command"
    trains = next((word for word in arguments if not word.startswith("-")), "") in NOT_RESUMED
    left = "nothing is left behind. Start again with" if trains else "what is finished is kept. Go on with"
    if screen.json:
        print_json(
            {"error": {"kind": "interrupted", "message": "interrupted", "hint": f"{left.capitalize()}: {again}"}}
        )
    else:
        screen.warn(f"interrupted; {left}: {again}")
    return INTERRUPTED
