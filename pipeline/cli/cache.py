"""`pipeline cache ls|info`, and the group of all cache commands."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click

from pipeline.cli import cache_check, cache_files
from pipeline.cli.options import cache_dir_option, global_options
from pipeline.cli.steps import after_entry
from pipeline.console import Screen, ago, count, plain, size
from pipeline.store.catalog import find_entry, last_used, list_entries
from pipeline.store.entry import Entry
from pipeline.store.prune import disk_usage
from pipeline.store.work import list_work


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
@global_options
def command() -> None:
    r"""List, inspect, verify, compare, move and remove what `extract` keeps.

    \b
      pipeline cache ls
      pipeline cache verify latest
      pipeline cache diff 3f9a 77c0
      pipeline cache prune --older-than 30d --dry-run
    """


for subcommand in (
    cache_check.verify_command,
    cache_check.diff_command,
    cache_files.remove_command,
    cache_files.prune_command,
    cache_files.export_command,
    cache_files.import_command,
):
    command.add_command(subcommand)


@command.command("ls")
@click.option("--backbone", help="Only entries whose backbone has this in its name, or fits this pattern (res*).")
@click.option("--source", help="Only entries whose source has this in its name, or fits this pattern.")
@click.option("--space", help="Only entries of the feature space whose SHA-256 begins so.")
@cache_dir_option
@global_options
@click.pass_obj
def list_command(screen: Screen, backbone: str | None, source: str | None, space: str | None, cache_dir: Path) -> None:
    """List entries, oldest first, and extractions that are not finished."""
    entries = [
        entry
        for entry in list_entries(cache_dir)
        if _fits(backbone, entry.manifest["backbone"]["name"])
        and _fits(source, entry.manifest["source"]["spec"])
        and entry.manifest["space_sha256"].startswith((space or "").lower())
    ]
    documents = [_summary(entry) for entry in entries]
    unfinished = [_unfinished(body) for body in list_work(cache_dir)]
    total = disk_usage(entries)
    if screen.json:
        screen.result({"entries": documents, "unfinished": unfinished, "bytes_on_disk": total})
        return
    if screen.quiet:
        screen.result(None, brief="\n".join(str(document["cache"]) for document in documents))
        return
    rows = [
        (
            str(d["cache"]),
            str(d["backbone"]).removeprefix("torchvision/"),
            f"{d['rows']:,} x {d['dim']:,}",
            size(d["bytes"]),
            str(d["space"])[:8],
            ago(float(d["last_used"])).removesuffix(" ago"),
            Path(str(d["source"])).name + (f" · view {d['view']}" if d["view"] else ""),
        )
        for d in documents
    ]
    if rows:
        columns = ("cache", "backbone", "features", "size", "space", "used", "source")
        screen.table("", columns, rows, right="features size used", spare="space")
        entry_word = "entry" if len(rows) == 1 else "entries"
        screen.note(f"{len(rows):,} {entry_word}, {size(total)} on disk (shards that entries share count once)")
    else:
        chosen = " that fit" if backbone or source or space else " yet"
        screen.note(f"no cache entries under {cache_dir}{chosen}")
        screen.next_step("pipeline extract SOURCE --backbone NAME")
    for item in unfinished:
        screen.note(f"not finished: {item['source']} with {item['backbone']}, {item['shards_done']} shards done")
    if entries:
        last = next((entry for entry in reversed(entries) if not entry.space.view[1]), entries[-1])
        screen.next_step(after_entry(last, cache_dir))


def _fits(pattern: str | None, text: str) -> bool:
    return not pattern or pattern.lower() in text.lower() or fnmatch(text.lower(), f"*{pattern.lower()}")


def _summary(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    augment, view = entry.space.view
    return {
        "cache": entry.id,
        "path": str(entry.path),
        "source": manifest["source"]["spec"],
        "backbone": manifest["backbone"]["name"],
        "weights": manifest["backbone"]["weights"],
        "space": manifest["space_sha256"],
        "view": view,
        "augment": augment,
        "rows": entry.rows,
        "dim": entry.dim,
        "classes": len(entry.classes),
        "splits": manifest["splits"],
        "skipped": manifest["skipped"]["count"],
        "bytes": sum(shard["bytes"] for shard in entry.shards) + manifest["samples"]["bytes"],
        "created": manifest["created"],
        "last_used": last_used(entry),
    }


def _unfinished(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": str(body["path"]),
        "source": body["about"]["source"],
        "backbone": body["space"]["architecture"],
        "shards_done": body["done"],
    }


@command.command("info")
@click.argument("cache", default="latest")
@cache_dir_option
@global_options
@click.pass_obj
def info_command(screen: Screen, cache: str, cache_dir: Path) -> None:
    """Show what made an entry: space, recipe, source, splits, skipped images, versions."""
    entry = find_entry(cache_dir, cache)
    if screen.json:
        screen.result({**_summary(entry), "manifest": entry.manifest})
        return
    manifest, summary = entry.manifest, _summary(entry)
    splits = ", ".join(f"{name} {number:,}" for name, number in entry.manifest["splits"].items())
    rule = manifest["split_rule"]
    plain_space = entry.space.of_view("", 0)
    some = ", ".join(entry.classes[:8]) + (", …" if len(entry.classes) > 8 else "")
    lines = {
        "cache": f"{entry.id} · {entry.path} · {manifest['created']} · used {ago(summary['last_used'])}",
        "source": f"{summary['source']} · {count(entry.rows, 'row')} · {splits}"
        + ("" if rule is None else f" · test drawn by content hash, fraction {rule['test_fraction']:g}"),
        "classes": f"{len(entry.classes)}: {some}",
        "backbone": f"{summary['backbone']} · weights {summary['weights']} · {entry.space.layer} · "
        f"{summary['dim']:,} features",
        "space": summary["space"],
        "images": ", ".join(f"{name} {value}" for name, value in plain_space.preprocess.items())
        + (f" · view {summary['view']} of {summary['augment']}" if summary["view"] else ""),
        "recipe": ", ".join(f"{name} {value}" for name, value in manifest["recipe"].items()),
        "size": f"{size(summary['bytes'])} in {count(len(entry.shards), 'shard')}, stored as {entry.space.store_dtype}",
        "skipped": str(summary["skipped"]) + (f" · see {entry.path}/skipped.csv" if summary["skipped"] else ""),
        "versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
        "command": manifest["command"],
    }
    for label, text in lines.items():
        screen.result(None, f"[bold]{label:<10}[/bold]{plain(str(text))}", brief=entry.id if label == "cache" else "")
    screen.next_step(after_entry(entry, cache_dir))
