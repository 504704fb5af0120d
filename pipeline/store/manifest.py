"""What a manifest must hold before any of it is used: it may come from another machine, or from anyone."""

import re
from typing import Any

from pipeline.errors import CacheError
from pipeline.store.key import SPLITS

FORMAT = "pipeline-entry"
FORMAT_VERSION = 1
HEX = re.compile(r"[0-9a-f]{64}")

FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "space": dict,
    "space_sha256": str,
    "backbone": dict,
    "source": dict,
    "classes": list,
    "rows": int,
    "samples_listed": int,
    "splits": dict,
    "split_rule": (dict, type(None)),
    "samples": dict,
    "skipped": dict,
    "shards": list,
    "recipe": dict,
    "versions": dict,
    "command": str,
    "created": str,
}
SHARD_FIELDS: dict[str, type | tuple[type, ...]] = {
    "sha256": str,
    "bytes": int,
    "rows": int,
    "recipe": dict,
    "facts": dict,
}
FILE_FIELDS: dict[str, type | tuple[type, ...]] = {"sha256": str, "bytes": int}


def check_manifest(manifest: dict[str, Any], where: str) -> None:
    """Refuse a manifest of another format or version, or with fields that are not what they must be.

    Raises:
        CacheError: naming `where` and the field.
    """
    if manifest.get("format") != FORMAT or manifest.get("format_version") != FORMAT_VERSION:
        raise CacheError(
            f"{where} is {manifest.get('format')!r} version {manifest.get('format_version')!r}, "
            f"this package reads {FORMAT!r} version {FORMAT_VERSION}",
            "Extract again, or use the version of this package that wrote it.",
        )
    _check(manifest, FIELDS, where)
    for name in ("samples", "skipped"):
        _check(manifest[name], FILE_FIELDS, f"{where}: {name}")
    for number, shard in enumerate(manifest["shards"]):
        _check(shard if isinstance(shard, dict) else {}, SHARD_FIELDS, f"{where}: shard {number}")
    _check(manifest["skipped"], {"count": int}, f"{where}: skipped")
    _check(manifest["source"], {"spec": str, "kind": str}, f"{where}: source")
    _check(manifest["backbone"], {"name": str, "weights": str}, f"{where}: backbone")
    hashes = [manifest["id"], manifest["space_sha256"], manifest["samples"]["sha256"], manifest["skipped"]["sha256"]]
    hashes += [shard["sha256"] for shard in manifest["shards"]]
    if not all(HEX.fullmatch(text) for text in hashes):
        raise CacheError(f"{where} has a SHA-256 that is none")
    if not all(isinstance(name, str) for name in manifest["classes"]):
        raise CacheError(f"{where} has class names that are no text")
    if not set(manifest["splits"]) <= set(SPLITS):
        raise CacheError(f"{where} has splits {sorted(manifest['splits'])}, known are {', '.join(SPLITS)}")
    listed = sum(shard["rows"] for shard in manifest["shards"])
    if listed != manifest["samples_listed"] or not 0 <= manifest["rows"] <= listed:
        raise CacheError(f"{where}: the shards have {listed:,} rows, the entry {manifest['samples_listed']:,}")


def _check(value: dict[str, Any], fields: dict[str, type | tuple[type, ...]], where: str) -> None:
    for name, kind in fields.items():
        if not isinstance(value.get(name), kind) or isinstance(value.get(name), bool):
            raise CacheError(f"{where}: field {name!r} is missing or not what it must be")
        if kind is int and value[name] < 0:
            raise CacheError(f"{where}: field {name!r} is negative")
