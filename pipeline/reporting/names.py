"""Names as a page shows them: they come from folders and files, and may be anyone's."""

import unicodedata

OBEYED = ("Cc", "Cs", "Zl", "Zp")
"""Control characters, halves of pairs (bytes of a file's name that are no UTF-8), line and paragraph separators."""
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn text around: a file could show another ending than it has. Joiners, which some scripts need, are none."""


def visible(text: str) -> str:
    r"""Return text with what browsers would obey or could not encode spelt out, like `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape", "surrogatepass").decode()
        if c in DIRECTIONS or unicodedata.category(c) in OBEYED
        else c
        for c in text
    )
