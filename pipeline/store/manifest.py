"""What a manifest must hold before any of it is used: it may come from another machine, or from anyone."""

from typing import Any

from pipeline.errors import CacheError
from pipeline.store.fields import HEX, Fields, check_fields
from pipeline.store.key import SPLITS, FeatureSpace, Recipe
from pipeline.textcolumn import text_bytes

FORMAT = "pipeline-entry"
FORMAT_VERSION = 1
MAX_SHARDS = 50_000
"""Of an entry: 100 million rows of 2,048 a shard."""
MAX_VALUES = 40 * MAX_SHARDS
"""In a manifest, which has 36 a shard at most."""

FIELDS: Fields = {
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
SHARD_FIELDS: Fields = {
    "sha256": str,
    "bytes": int,
    "rows": int,
    "recipe": dict,
    "facts": dict,
}
FILE_FIELDS: Fields = {"sha256": str, "bytes": int}


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
    check_fields(manifest, FIELDS, where)
    for name in ("samples", "skipped"):
        check_fields(manifest[name], FILE_FIELDS, f"{where}: {name}")
    for number, shard in enumerate(manifest["shards"]):
        check_fields(shard if isinstance(shard, dict) else {}, SHARD_FIELDS, f"{where}: shard {number}")
    check_fields(manifest["skipped"], {"count": int}, f"{where}: skipped")
    check_fields(manifest["source"], {"spec": str, "kind": str}, f"{where}: source")
    check_fields(manifest["backbone"], {"name": str, "weights": str}, f"{where}: backbone")
    hashes = [manifest["id"], manifest["space_sha256"], manifest["samples"]["sha256"], manifest["skipped"]["sha256"]]
    hashes += [shard["sha256"] for shard in manifest["shards"]]
    if not all(HEX.fullmatch(text) for text in hashes):
        raise CacheError(f"{where} has a SHA-256 that is none")
    classes = manifest["classes"]
    if not all(isinstance(name, str) and _is_text(name) for name in classes) or len(set(classes)) != len(classes):
        raise CacheError(f"{where} has class names that are no text, or one of them twice")
    if not set(manifest["splits"]) <= set(SPLITS):
        raise CacheError(f"{where} has splits {sorted(manifest['splits'])}, known are {', '.join(SPLITS)}")
    check_fields(manifest["splits"], dict.fromkeys(manifest["splits"], int), f"{where}: splits")
    if FeatureSpace.from_json(manifest["space"]).sha256 != manifest["space_sha256"]:
        raise CacheError(f"{where}: the feature space does not have the SHA-256 it is named by")
    Recipe.from_json(manifest["recipe"])
    listed = sum(shard["rows"] for shard in manifest["shards"])
    if listed != manifest["samples_listed"] or not 0 <= manifest["rows"] <= listed:
        raise CacheError(f"{where}: the shards have {listed:,} rows, the entry {manifest['samples_listed']:,}")


def _is_text(name: str) -> bool:
    try:
        text_bytes(name)
    except UnicodeEncodeError:
        return False
    return True
