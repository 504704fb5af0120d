"""What can go wrong, as one tree; each kind has its exit code.

PipelineError            1  anything that is none of the kinds below
├── UsageError           2  the command or its options make no sense
├── DataError            3  images, labels, splits or weights are not what was asked for
└── CacheError           4  the cache is damaged, missing or cannot be written
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class PipelineError(Exception):
    """Base of all errors a user can act on: `message` says what is wrong, `hint` what to do."""

    kind = "failure"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PipelineError):
    """The command or its options make no sense."""

    kind = "usage"
    exit_code = 2


class DataError(PipelineError):
    """Images, labels, splits or weights are not what was asked for."""

    kind = "data"
    exit_code = 3


class CacheError(PipelineError):
    """The cache is damaged, missing, or cannot be written."""

    kind = "cache"
    exit_code = 4


def error_to_json(error: PipelineError) -> dict[str, str]:
    """Return an error's kind, message and hint."""
    return {"kind": error.kind, "message": error.message, "hint": error.hint}


def error_from_json(value: Mapping[str, str]) -> PipelineError:
    """Return the error that `error_to_json` was given, for another process to raise."""
    kinds: dict[str, type[PipelineError]] = {kind.kind: kind for kind in (UsageError, DataError, CacheError)}
    return kinds.get(value["kind"], PipelineError)(value["message"], value["hint"])


def first_line(error: BaseException) -> str:
    """Return what another library says of an error, without its pages of advice."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(asked: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x' or 'y'?` for the names closest to `asked`, or an empty string."""
    names = {name.lower(): name for name in known}
    close = [names[match] for match in get_close_matches(asked.lower(), names, n=3, cutoff=0.55)]
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(name) for name in close)}?"
