"""`pipeline cache verify|diff`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, data_root_option, global_options
from pipeline.cli.steps import cache_dir_words
from pipeline.console import Screen, count, plain
from pipeline.errors import CacheError
from pipeline.store.catalog import entry_folders, find_entry
from pipeline.store.diff import Difference, diff_entries

SHOWN = 5


@click.command("verify")
@click.argument("caches", nargs=-1, metavar="[CACHE]...")
@click.option("--repair", is_flag=True, help="Make damaged shards whole, from the cache or from the images.")
@click.option("--recompute", type=click.IntRange(min=0), default=0, metavar="N", help="Compute N rows again too.")
@click.option("--source", help="Where the images are now.  [default: where they were]")
@click.option("--workers", type=click.IntRange(min=1), help="Loading processes.  [default: one a core]")
@data_root_option
@click.option("--follow-symlinks", is_flag=True, help="As for extract.")
@cache_dir_option
@global_options
@click.pass_obj
def verify_command(
    screen: Screen,
    /,
    caches: tuple[str, ...],
    repair: bool,
    recompute: int,
    cache_dir: Path,
    **images: Any,  # noqa: ANN401
) -> None:
    r"""Check every byte of entries (all without CACHE) against their manifests; name what is damaged.

    \b
      pipeline cache verify
      pipeline cache verify latest --recompute 64     64 rows again, from their images
      pipeline cache verify 3f9a --repair             damaged shards made whole, bit for bit, or not at all
    """
    from pipeline.verification import Images, Verified, verify

    folders = [find_entry(cache_dir, cache).path for cache in caches] or entry_folders(cache_dir)
    done: list[Verified] = []
    with screen.bar("verify") as on_progress:
        for folder in folders:
            done.append(
                verify(folder, repair=repair, recompute=recompute, images=Images(**images), on_progress=on_progress)
            )
    for item in done:
        _show(screen, item)
    wrong = [damage for item in done for damage in item.damaged]
    if wrong:
        names = "; ".join(f"{damage.path}: {damage.reason}" for damage in wrong[:SHOWN])
        hint = next(item.hint for item in done if item.damaged)
        raise CacheError(f"{count(len(wrong), 'damaged file')}: {names}", hint)
    differing = [item for item in done if not item.holds]
    if differing and (found := differing[0].recomputed) is not None:
        raise CacheError(
            f"{differing[0].cache}: rows computed again differ by up to {found.max_abs_difference:.2e} "
            f"(largest feature {found.scale:.2e}), most for {found.worst}",
            "Other hardware or versions? `pipeline cache info` shows what made it; --restart makes it anew.",
        )
    entries = "1 entry" if len(done) == 1 else f"{len(done):,} entries"
    screen.result({"verified": [item.to_json() for item in done]}, f"{entries} verified")
    screen.next_step("pipeline cache ls")


def _show(screen: Screen, item: Any) -> None:  # noqa: ANN401 - verification.Verified, which is imported late
    for path, how in item.repaired.items():
        screen.note(f"repaired {path}: {how}")
    if item.damaged:
        return
    again = ""
    if (found := item.recomputed) is not None:
        again = (
            f" · {count(found.rows, 'row')} computed again: {found.equal:,} equal bit for bit, "
            f"largest difference {found.max_abs_difference:.1e}"
        )
    screen.note(f"{item.cache} whole: {count(item.shards, 'shard')}, {count(item.rows, 'row')}{again}")


@click.command("diff")
@click.argument("a")
@click.argument("b")
@cache_dir_option
@global_options
@click.pass_obj
def diff_command(screen: Screen, a: str, b: str, cache_dir: Path) -> None:
    """Name every field in which two entries differ, with both values, and the samples that differ."""
    first, second = find_entry(cache_dir, a), find_entry(cache_dir, b)
    found = diff_entries(first, second)
    document = {
        "a": first.id,
        "b": second.id,
        "same_content": found.same,
        "fields": [item.__dict__ for item in found.fields],
        "samples": found.samples,
        "shards_shared": found.shards_shared,
    }
    if screen.json or screen.quiet:
        screen.result(document, brief="same" if found.same else "different")
        return
    _show_difference(screen, found, first.id, second.id)
    screen.result(
        document,
        f"{count(found.shards_shared, 'shard')} shared of {len(first.shards):,} and {len(second.shards):,}; "
        + ("the content is the same" if found.same else "the content differs"),
    )
    screen.next_step(f"pipeline cache info {second.id}{cache_dir_words(cache_dir)}")


def _show_difference(screen: Screen, found: Difference, a: str, b: str) -> None:
    if found.fields:
        rows = [(item.field, _short(item.a), _short(item.b)) for item in found.fields]
        screen.table("", ("field", a, b), rows)
    for what, ids in found.samples.items():
        some = ", ".join(ids[:SHOWN]) + (", …" if len(ids) > SHOWN else "")
        screen.result(None, f"[bold]{what:<11}[/bold]{count(len(ids), 'sample')}: {plain(some)}")


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 64 else text[:61] + "…"
