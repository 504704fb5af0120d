"""Graphs of networks, kept beside the entries because making one again takes seconds. Data alone, no code.

A graph is a few files of bytes and a sealed index that names each with its SHA-256. It can be thrown away at any
time; one that is damaged is made again.
"""

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.digest import sha256_bytes, sha256_json
from pipeline.errors import CacheError
from pipeline.store.catalog import GRAPHS
from pipeline.store.commit import make_folder, read_json, replace_file, write_json
from pipeline.store.key import SHORT
from pipeline.store.verified import read_verified

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphFolder:
    """The graphs of one network under a cache root; `of` tells them from all others'."""

    root: Path
    of: str
    """Such as the SHA-256 of a feature space."""

    def has(self, name: str) -> bool:
        """Tell whether something is kept under `name`, whole or not."""
        return self._index(name).exists()

    def load(self, name: str) -> dict[str, bytes] | None:
        """Return the parts kept under `name`, every byte verified; None if there are none or one is damaged."""
        index = self._index(name)
        try:
            body = read_json(index)
            if (body.get("of"), body.get("name")) != (self.of, name):
                raise CacheError(f"{index} is of another graph")
            parts = body["parts"]
            with contextlib.suppress(OSError):
                for path in index.parent.glob(f"{index.stem}.*"):
                    os.utime(path)  # its last use, by which it is pruned
            return {
                part: bytes(read_verified(index.with_suffix(f".{part}"), parts[part]["sha256"], parts[part]["bytes"]))
                for part in sorted(parts)
            }
        except FileNotFoundError:
            return None
        except CacheError as error:
            logger.warning("%s; the graph is made again", error.message)
            return None

    def save(self, name: str, parts: dict[str, bytes]) -> None:
        """Keep parts; where nothing can be written they are not kept, which is logged."""
        index = self._index(name)
        try:
            make_folder(index.parent)
            for part, data in parts.items():
                replace_file(index.with_suffix(f".{part}"), data)
            facts = {part: {"sha256": sha256_bytes(data), "bytes": len(data)} for part, data in parts.items()}
            write_json(index, {"of": self.of, "name": name, "parts": facts}, replace=True)
        except (CacheError, OSError) as error:
            logger.warning("the graph is not kept: %s", error)

    def _index(self, name: str) -> Path:
        return self.root / GRAPHS / f"{sha256_json([self.of, name])[:SHORT]}.json"
