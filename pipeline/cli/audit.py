"""`pipeline audit`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, device_option, global_options, images_options, runs_dir_option
from pipeline.cli.recipe_options import number
from pipeline.cli.steps import cache_dir_words
from pipeline.console import Screen


@click.command("audit")
@click.argument("cache", default="latest")
@click.option("--run", help="Whose accuracy to tell without leaked test rows.  [default: the latest measured on CACHE]")
@number("--folds", 5, "Parts that rows are judged in, each by a head of the others.")
@number("--split-seed", 0, "Of the folds.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the lists.  [default: audits/CACHE beside the runs]",
)
@click.option("--near/--no-near", default=True, help="Look for near-duplicates, on images that are close in features.")
@images_options
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
    screen.next_step(f"pipeline learn-curve {result.cache}{cache_dir_words(options['cache_dir'])}")
