"""`pipeline cache ls|info|verify|rm`."""

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, global_options
from pipeline.console import Screen, count, plain, size
from pipeline.errors import CacheError, UsageError
from pipeline.store.catalog import entry_folders, find_entry, list_entries
from pipeline.store.commit import temporary_name
from pipeline.store.entry import Entry, open_entry
from pipeline.store.verify import find_damage
from pipeline.store.work import list_work


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
@global_options
def command() -> None:
    r"""List, inspect, verify and remove what `extract` keeps.

    \b
      pipeline cache ls
      pipeline cache verify latest
      pipeline cache rm 3f9a --yes
    """


@command.command("ls")
@cache_dir_option
@global_options
@click.pass_obj
def list_command(screen: Screen, cache_dir: Path) -> None:
    """List entries, oldest first, and extractions that are not finished."""
    entries, work = list(list_entries(cache_dir)), list_work(cache_dir)
    documents = [_summary(entry) for entry in entries]
    unfinished = [_unfinished(body) for body in work]
    if screen.json:
        screen.result({"entries": documents, "unfinished": unfinished})
        return
    if screen.quiet:
        screen.result(None, brief="\n".join(str(document["cache"]) for document in documents))
        return
    rows = [
        (
            str(d["cache"]),
            str(d["source"]),
            str(d["backbone"]).rpartition("/")[2],
            f"{d['rows']:,}",
            f"{d['dim']:,}",
            size(d["bytes"]),
            str(d["created"])[:16].replace("T", " "),
        )
        for d in documents
    ]
    if rows:
        screen.table("", ("cache", "source", "backbone", "rows", "dim", "size", "created"), rows, right="rows dim size")
    else:
        screen.note(f"no cache entries under {cache_dir} yet")
        screen.next_step("pipeline extract SOURCE --backbone NAME")
    for item in unfinished:
        screen.note(f"not finished: {item['source']} with {item['backbone']}, {item['shards_done']} shards done")


def _summary(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "cache": entry.id,
        "path": str(entry.path),
        "source": manifest["source"]["spec"],
        "backbone": manifest["backbone"]["name"],
        "weights": manifest["backbone"]["weights"],
        "space": manifest["space_sha256"],
        "rows": entry.rows,
        "dim": int(_product(manifest["space"]["row_shape"])),
        "classes": len(entry.classes),
        "splits": manifest["splits"],
        "skipped": manifest["skipped"]["count"],
        "bytes": sum(shard["bytes"] for shard in entry.shards) + manifest["samples"]["bytes"],
        "created": manifest["created"],
    }


def _product(numbers: list[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


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
    some = ", ".join(entry.classes[:8]) + (", …" if len(entry.classes) > 8 else "")
    lines = {
        "cache": f"{entry.id} · {entry.path} · {manifest['created']}",
        "source": f"{summary['source']} · {count(entry.rows, 'row')} · {splits}"
        + ("" if rule is None else f" · test drawn by content hash, fraction {rule['test_fraction']:g}"),
        "classes": f"{len(entry.classes)}: {some}",
        "backbone": f"{summary['backbone']} · weights {summary['weights']} · {entry.space.layer} · "
        f"{summary['dim']:,} features",
        "images": ", ".join(f"{name} {value}" for name, value in entry.space.preprocess.items()),
        "recipe": ", ".join(f"{name} {value}" for name, value in manifest["recipe"].items()),
        "size": f"{size(summary['bytes'])} in {count(len(entry.shards), 'shard')}, stored as {entry.space.store_dtype}",
        "skipped": str(summary["skipped"]) + (f" · see {entry.path}/skipped.csv" if summary["skipped"] else ""),
        "versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
        "command": manifest["command"],
    }
    for label, text in lines.items():
        screen.result(None, f"[bold]{label:<10}[/bold]{plain(str(text))}", brief=entry.id if label == "cache" else "")


@command.command("verify")
@click.argument("caches", nargs=-1, metavar="[CACHE]...")
@cache_dir_option
@global_options
@click.pass_obj
def verify_command(screen: Screen, caches: tuple[str, ...], cache_dir: Path) -> None:
    """Check every byte of entries (all without CACHE) against their manifests; name what is damaged."""
    entries = [find_entry(cache_dir, cache) for cache in caches] or [open_entry(f) for f in entry_folders(cache_dir)]
    damage = {entry.id: find_damage(entry) for entry in entries}
    documents = [
        {"cache": name, "damaged": [{"path": str(item.path), "reason": item.reason} for item in found]}
        for name, found in damage.items()
    ]
    wrong = [item for found in damage.values() for item in found]
    if wrong:
        names = "; ".join(f"{item.path}: {item.reason}" for item in wrong[:5])
        raise CacheError(
            f"{count(len(wrong), 'damaged file')}: {names}",
            "Run the `pipeline extract` that made it again (`pipeline cache info` shows it): "
            "damaged files are set aside and only their rows are computed.",
        )
    for entry in entries:
        screen.note(f"{entry.id} whole: {count(len(entry.shards), 'shard')}, {count(entry.rows, 'row')}")
    screen.result({"verified": documents}, f"{count(len(entries), 'entry').replace('entrys', 'entries')} verified")


@command.command("rm")
@click.argument("caches", nargs=-1, metavar="[CACHE]...")
@click.option("--unfinished", is_flag=True, help="Remove extractions that are not finished.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@cache_dir_option
@global_options
@click.pass_obj
def remove_command(screen: Screen, caches: tuple[str, ...], unfinished: bool, yes: bool, cache_dir: Path) -> None:
    """Remove entries. Shards that other entries share stay with them."""
    entries = [find_entry(cache_dir, cache) for cache in caches]
    folders = {str(entry.path): entry.path.resolve() for entry in entries}
    if unfinished:
        folders |= {str(body["path"]): body["path"] for body in list_work(cache_dir)}
    if not folders and not unfinished:
        raise UsageError("nothing to remove was named", "Give CACHE ids (`pipeline cache ls`), or --unfinished.")
    if folders and not yes:
        screen.note("to be removed: " + ", ".join(folders))
        if screen.json or not sys.stdin.isatty():
            raise UsageError("removing asks for confirmation, and there is no terminal to ask on", "Pass --yes.")
        click.confirm("Remove?", abort=True, err=True)
    for folder in folders.values():
        gone = temporary_name(folder)
        folder.rename(gone)  # at once, so that no reader sees half an entry
        shutil.rmtree(gone)
    screen.result({"removed": list(folders)}, *(f"removed {plain(name)}" for name in folders))
