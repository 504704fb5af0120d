"""Types of fields in documents that may come from another machine, or from anyone."""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import CacheError

Fields = dict[str, type | tuple[type, ...]]
HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check_fields(value: Mapping[str, Any], fields: Fields, where: str) -> None:
    """Refuse a document in which one of `fields` is missing, of another type, or a negative number.

    Raises:
        CacheError: naming `where` and the field.
    """
    for name, kind in fields.items():
        if name not in value or not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise CacheError(f"{where}: field {name!r} is missing or not what it must be")
        if kind is int and value[name] < 0:
            raise CacheError(f"{where}: field {name!r} is negative")
