"""Names of many files in one: `shards/{000..031}.tar`, `{train,val}-*.tar`."""

import glob
import re
from collections.abc import Iterator

from pipeline.errors import DataError, UsageError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MAX_NAMES = 1_000_000


def expand(pattern: str) -> list[str]:
    """Return the names that a pattern stands for: braces in their order, then `*` and `?` by what is there, sorted.

    Raises:
        UsageError: if braces are not closed, a range is empty, or there are more than a million names.
        DataError: if a pattern fits no file.
    """
    names: list[str] = []
    for name in _braces(pattern):
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        if not found:
            raise DataError(f"no file fits {name}", "Check the pattern; quote it, so that the shell leaves it alone.")
        names += found
        if len(names) > MAX_NAMES:
            raise UsageError(f"{pattern} stands for more than {MAX_NAMES:,} files")
    return names


def _braces(pattern: str) -> Iterator[str]:
    match = BRACES.search(pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise UsageError(f"{pattern} has a brace without its other half", "Like shards/{000..031}.tar")
        yield pattern
        return
    for choice in _choices(match[1], pattern):
        yield from _braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _choices(text: str, pattern: str) -> Iterator[str]:
    numbers = RANGE.fullmatch(text)
    if numbers is None:
        if "," not in text:
            raise UsageError(f"{{{text}}} in {pattern} is neither a range nor a list", "Like {000..031} or {a,b}.")
        yield from text.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    if last < first:
        raise UsageError(f"{{{text}}} in {pattern} is an empty range")
    width = len(numbers[1])
    for number in range(first, last + 1):
        yield f"{number:0{width}d}"
