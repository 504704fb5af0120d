"""The commit record of a shard: a shard is done when its record has its name."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.fields import HEX, Fields, check_fields
from pipeline.store.statindex import ROW

RECORD_FORMAT, FORMAT_VERSION = "pipeline-record", 1
RECORD_FIELDS: Fields = {
    **dict.fromkeys(("shard", "bytes", "rows", "computed", "reused"), int),
    "shard_sha256": str,
    "bad": list,
    "stats": str,
    "facts": dict,
}


@dataclass(frozen=True)
class Record:
    """The commit record of a shard: which bytes it is, and how, when and where they were made."""

    shard: int
    sha256: str
    size: int
    rows: int
    computed: int
    reused: int
    bad: dict[int, str]
    """Reason by row (counted within the shard) of every image that could not be used."""
    stats: np.ndarray
    """Stat index rows of the files read, dtype `statindex.ROW`: a resume need not read them again."""
    facts: dict[str, Any]
    """What may differ between equal runs: recipe, versions, seconds, host, time."""
    content: str | None = None
    """SHA-256 of the shard's digest column: tells what the shard is of without a look at it. None in older records."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "format": RECORD_FORMAT,
            "format_version": FORMAT_VERSION,
            "shard": self.shard,
            "shard_sha256": self.sha256,
            "bytes": self.size,
            "rows": self.rows,
            "computed": self.computed,
            "reused": self.reused,
            "bad": [[row, reason] for row, reason in sorted(self.bad.items())],
            "stats": base64.b64encode(self.stats.tobytes()).decode(),
            "facts": self.facts,
            **({"digests_sha256": self.content} if self.content is not None else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Record":
        """Build from `to_json`'s fields, which were verified by the document's seal.

        Raises:
            CacheError: if they are of another format version.
        """
        if (value.get("format"), value.get("format_version")) != (RECORD_FORMAT, FORMAT_VERSION):
            raise CacheError(f"a commit record of version {value.get('format_version')!r}, expected {FORMAT_VERSION}")
        check_fields(value, RECORD_FIELDS, "commit record")
        bad = value["bad"]
        if not all(isinstance(item, list) and [type(part) for part in item] == [int, str] for item in bad):
            raise CacheError("commit record: unusable images that are not pairs of row and reason")
        if not HEX.fullmatch(value["shard_sha256"]) or not all(0 <= row < value["rows"] for row, _ in bad):
            raise CacheError("commit record: a SHA-256 that is none, or rows that the shard has not")
        content = value.get("digests_sha256")
        if content is not None and not (isinstance(content, str) and HEX.fullmatch(content)):
            raise CacheError("commit record: a SHA-256 of digests that is none")
        try:
            stats = np.frombuffer(base64.b64decode(value["stats"], validate=True), ROW)
        except ValueError as error:
            raise CacheError(f"commit record: stat fields that are none: {error}") from error
        return cls(
            value["shard"],
            value["shard_sha256"],
            value["bytes"],
            value["rows"],
            value["computed"],
            value["reused"],
            dict(bad),
            stats,
            value["facts"],
            content,
        )

    def outline(self) -> "Record":
        """Return the record without its stat rows, which are nearly all of it: what can be held of every shard."""
        return replace(self, stats=self.stats[:0].copy())

    def is_of(self, digests: np.ndarray) -> bool:
        """Tell whether the shard's digest column is known to be `digests` (n, 32)."""
        return self.content == digests_sha256(digests)

    @property
    def usable(self) -> np.ndarray:
        """Which rows have features (n,) bool."""
        usable = np.ones(self.rows, bool)
        usable[list(self.bad)] = False
        return usable


def digests_sha256(digests: np.ndarray) -> str:
    """Return the SHA-256 of a shard's digest column (n, 32) uint8, row after row."""
    return sha256_bytes(np.ascontiguousarray(digests, np.uint8).data.cast("B"))
