"""Numbers and names in words."""

import time

from rich.markup import escape

LABEL_WIDTH = 10
"""Of what stands in front of a labelled line."""


def plain(text: str) -> str:
    """Return text without meaning to rich, and without what a terminal cannot show or would obey."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return escape(shown.encode("utf-8", "backslashreplace").decode())


def count(number: int, thing: str) -> str:
    """Return `1,234 things` or `1 thing`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "es" if thing.endswith("s") else "s")


def size(number: float) -> str:
    """Return bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds for people."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def ago(seconds: float) -> str:
    """Return a time since 1970 as how long ago it was."""
    gone = max(0.0, time.time() - seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if gone >= length:
            return f"{gone / length:.0f} {unit} ago"
    return "now"


def percent(share: float) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * share:.1f} %"
