"""Names of many files in one: `shards/{000..031}.tar`, `{train,val}-*.tar`."""

import glob
import re
from collections.abc import Iterator

from pipeline.errors import DataError, UsageError

RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
EXAMPLE = "Like shards/{000..031}.tar or {train,val}-*.tar."
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
    start = pattern.find("{")
    if start < 0:
        if "}" in pattern:
            raise UsageError(f"{pattern} has a brace without its other half", EXAMPLE)
        yield pattern
        return
    end = _closing(pattern, start)
    head, inside, tail = pattern[:start], pattern[start + 1 : end], pattern[end + 1 :]
    for choice in _choices(inside, pattern):
        for middle in _braces(choice):
            for rest in _braces(tail):
                yield head + middle + rest


def _closing(pattern: str, start: int) -> int:
    depth = 0
    for place in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if not depth:
            return place
    raise UsageError(f"{pattern} has a brace without its other half", EXAMPLE)


def _choices(text: str, pattern: str) -> Iterator[str]:
    numbers = RANGE.fullmatch(text)
    if numbers is None:
        parts = _split(text)
        if len(parts) < 2:
            raise UsageError(f"{{{text}}} in {pattern} is neither a range nor a list", EXAMPLE)
        yield from parts
        return
    first, last = int(numbers[1]), int(numbers[2])
    if last < first:
        raise UsageError(f"{{{text}}} in {pattern} is an empty range", EXAMPLE)
    if last - first >= MAX_NAMES:
        raise UsageError(f"{{{text}}} in {pattern} stands for more than {MAX_NAMES:,} files", EXAMPLE)
    width = len(numbers[1])
    for number in range(first, last + 1):
        yield f"{number:0{width}d}"


def _split(text: str) -> list[str]:
    """Split at the commas that are in no braces of their own."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
