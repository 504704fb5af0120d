"""`pipeline cache rm|prune|export|import`."""

import os
import sys
from pathlib import Path

import click

from pipeline.cli.options import AGE, SIZE, cache_dir_option, global_options
from pipeline.cli.steps import after_entry, cache_dir_words
from pipeline.console import Screen, ago, count, plain, size
from pipeline.errors import UsageError
from pipeline.store.catalog import find_entry, last_used
from pipeline.store.commit import remove_folder
from pipeline.store.prune import plan_folders, plan_pruning


@click.command("rm")
@click.argument("caches", nargs=-1, metavar="[CACHE]...")
@click.option("--unfinished", is_flag=True, help="Remove extractions that are not finished.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@cache_dir_option
@global_options
@click.pass_obj
def remove_command(screen: Screen, caches: tuple[str, ...], unfinished: bool, yes: bool, cache_dir: Path) -> None:
    """Remove entries. Shards that other entries share stay with them."""
    entries = [find_entry(cache_dir, cache) for cache in caches]
    folders = {str(entry.path): Path(os.path.abspath(entry.path)) for entry in entries}
    if unfinished:
        folders |= {str(path): path for path in plan_folders(cache_dir)}
    if not folders and not unfinished:
        raise UsageError("nothing to remove was named", "Give CACHE ids (`pipeline cache ls`), or --unfinished.")
    if folders and not yes:
        screen.note("to be removed: " + ", ".join(folders))
        _confirm(screen)
    for folder in folders.values():
        remove_folder(folder)
    screen.result({"removed": list(folders)}, *(f"removed {plain(name)}" for name in folders))


@click.command("prune")
@click.option(
    "--older-than", type=AGE, metavar="AGE", help="Entries and unfinished work not used for so long: 30d, 12h."
)
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Keep the N entries used last, whatever else.")
@click.option("--max-size", type=SIZE, metavar="SIZE", help="Longest unused first, until the rest fits: 10GB.")
@click.option("--dry-run", is_flag=True, help="Show what would go and stop.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@cache_dir_option
@global_options
@click.pass_obj
def prune_command(
    screen: Screen,
    older_than: float | None,
    keep: int | None,
    max_size: float | None,
    dry_run: bool,
    yes: bool,
    cache_dir: Path,
) -> None:
    r"""Remove entries by last use, and what killed processes and repairs left behind.

    Without options only leftovers go: temporary files of processes that were killed, and damaged files that were
    set aside. Shards that other entries share stay with them.

    \b
      pipeline cache prune --older-than 30d --keep 3
      pipeline cache prune --max-size 50GB --dry-run
    """
    pruning = plan_pruning(
        cache_dir, older_than=older_than, keep=keep, max_size=None if max_size is None else int(max_size)
    )
    document = {
        "entries": [entry.id for entry in pruning.entries],
        "unfinished": [str(path) for path in pruning.unfinished],
        "leftovers": [str(path) for path in pruning.rubbish],
        "bytes": pruning.bytes,
        "dry_run": dry_run,
    }
    for entry in pruning.entries:
        what = f"{count(entry.rows, 'row')} of {entry.manifest['source']['spec']}, {entry.manifest['backbone']['name']}"
        screen.note(f"entry {entry.id} · used {ago(last_used(entry))} · {what}")
    for path in pruning.unfinished:
        screen.note(f"unfinished {path}")
    for path in pruning.rubbish:
        screen.note(f"leftover {path}")
    something = pruning.entries or pruning.unfinished or pruning.rubbish
    if something and not dry_run:
        if (pruning.entries or pruning.unfinished) and not yes:
            _confirm(screen)
        pruning.carry_out()
    done = "would be removed" if dry_run else "removed"
    entries = "1 entry" if len(pruning.entries) == 1 else f"{len(pruning.entries):,} entries"
    screen.result(
        document,
        f"{entries}, {len(pruning.unfinished):,} unfinished, {count(len(pruning.rubbish), 'leftover')} {done}: "
        f"{size(pruning.bytes)}",
        brief="\n".join(str(name) for name in document["entries"]),  # type: ignore[attr-defined]
    )
    screen.next_step(f"pipeline cache ls{cache_dir_words(cache_dir)}")


def _confirm(screen: Screen) -> None:
    if screen.json or sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise UsageError("removing asks for confirmation, and there is no terminal to ask on", "Pass --yes.")
    click.confirm("Remove?", abort=True, err=True)


@click.command("export")
@click.argument("cache", default="latest")
@click.option("--single", type=click.Path(dir_okay=False, path_type=Path), help="One plain .h5 that `import` takes.")
@click.option("--npz", type=click.Path(dir_okay=False, path_type=Path), help="numpy arrays of the usable rows.")
@cache_dir_option
@global_options
@click.pass_obj
def export_command(screen: Screen, cache: str, single: Path | None, npz: Path | None, cache_dir: Path) -> None:
    r"""Write an entry as one file, verified on the way.

    \b
      pipeline cache export 3f9a --single photos.h5     any HDF5 reader; `pipeline cache import` elsewhere
      pipeline cache export 3f9a --npz photos.npz       numpy.load("photos.npz")["features"]
    """
    from pipeline.store.npz import export_npz
    from pipeline.store.single import export_single

    if (single is None) == (npz is None):
        raise UsageError("say what to write: --single FILE.h5 or --npz FILE.npz, one of them")
    entry = find_entry(cache_dir, cache)
    path = single or npz
    assert path is not None
    written = export_single(entry, path) if single else export_npz(entry, path)
    screen.result(
        {"cache": entry.id, "path": str(path), "bytes": written, "rows": entry.rows},
        f"{plain(str(path))}  {count(entry.rows, 'row')} of {entry.id}, {size(written)}",
        brief=str(path),
    )
    if single:
        screen.next_step(f"pipeline cache import {path}   (there)")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@cache_dir_option
@global_options
@click.pass_obj
def import_command(screen: Screen, file: Path, cache_dir: Path) -> None:
    """Take in a FILE that `cache export --single` wrote, verified: the entry has the same id and the same bytes."""
    from pipeline.store.single import import_single

    entry = import_single(file, cache_dir)
    screen.result(
        {"cache": entry.id, "path": str(entry.path), "rows": entry.rows},
        f"[bold]cache {entry.id}[/bold]  {count(entry.rows, 'row')} x {entry.dim:,} features, verified",
        brief=entry.id,
    )
    screen.next_step(after_entry(entry, cache_dir))
