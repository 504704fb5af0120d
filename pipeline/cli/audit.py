"""`pipeline audit`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, data_root_option, device_option, global_options, runs_dir_option
from pipeline.cli.train_head import number
from pipeline.console import Screen


@click.command("audit")
@click.argument("cache", default="latest")
@click.option("--run", help="Whose accuracy to tell without leaked test rows.  [default: the latest measured on CACHE]")
@number("--folds", 5, "Parts that rows are judged in, each by a head of the others.")
@click.option("--split-seed", type=int, default=0, show_default=True, help="Of the folds.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the lists.  [default: audits/CACHE beside the runs]",
)
@click.option("--near/--no-near", default=True, help="Look for near-duplicates, on images that are close in features.")
@click.option("--source", help="Where the images are now, for that.  [default: where they were]")
@data_root_option
@click.option("--follow-symlinks", is_flag=True, help="Accept links that lead out of the source folder.")
@click.option("--workers", type=click.IntRange(min=1), help="Loading processes.  [default: one a core]")
@device_option
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, /, cache: str, **options: Any) -> None:  # noqa: ANN401
    r"""Look for what is wrong with the data of CACHE: a prefix of its id, a path, or `latest`.

    Copies within and across splits, and the accuracy without test rows that leaked; labels that are probably wrong;
    outliers; classes of different size; groups that do badly. Labels of test rows are looked at too, and listed apart.
    docs/AUDIT.md says how each is found.

    \b
      pipeline audit latest
      pipeline audit 3f9a --run 0007 -o lists
    """
    from pipeline.auditing.audit import audit
    from pipeline.cli.audit_view import show_audit

    result, folder = audit(cache, stages=screen.bar, **options)
    show_audit(screen, result, folder)
    where = "" if options["cache_dir"] == Path("cache") else f" --cache-dir {options['cache_dir']}"
    screen.next_step(f"pipeline learn-curve {result.cache}{where}")
