"""`pipeline compare`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, global_options, runs_dir_option
from pipeline.cli.steps import cache_dir_words, runs_dir_words
from pipeline.console import Screen
from pipeline.errors import UsageError


@click.command("compare")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--backbones", help="Names separated by commas: extract a SOURCE with each, and choose one.")
@click.option("--weights", default="DEFAULT", show_default=True, help="Of all --backbones, as for extract.")
@click.option("--image-size", type=int, help="Of all --backbones.  [default: the weights' own]")
@click.option(
    "--on-bad-image",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="Of all --backbones: what an unusable image does.",
)
@click.option(
    "--solver",
    type=click.Choice(["exact", "minibatch"]),
    default="exact",
    help="exact: to the optimum, on standardised features; minibatch: the reference recipe.",
    show_default=True,
)
@cache_dir_option
@click.option(
    "--metric",
    default="accuracy",
    show_default=True,
    help="What ranks: accuracy, balanced_accuracy, macro_f1, nll, brier or ece.",
)
@click.option("--cache", help="Of evaluations on several entries, those on this one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
@click.option("--md", "--markdown", "as_markdown", is_flag=True, help="Print it as Markdown.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A .csv, .md or .json file.")
@runs_dir_option
@global_options
@click.pass_obj
def command(
    screen: Screen,
    /,
    runs: tuple[str, ...],
    metric: str,
    cache: str | None,
    as_csv: bool,
    as_markdown: bool,
    output: Path | None,
    runs_dir: Path,
    backbones: str | None,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Rank RUNs (prefixes of ids, names, paths, `latest`; default all) on the test rows that all were measured on.

    Each is compared with the best on the same rows: difference with 95 % interval, and p, corrected for the number of
    comparisons. Seeds of one recipe are one line. Only what `evaluate` kept is read, never test features.

    With --backbones a SOURCE stands in place of RUNs. Each backbone's features are extracted, or found in the cache,
    and a head is trained on them; validation rows choose, and the chosen one alone is measured on test rows.

    \b
      pipeline compare
      pipeline compare 0001 0002 0007 --metric nll
      pipeline compare --md -o table.csv
      pipeline compare --backbones resnet18,mobilenet_v2 ./photos
    """
    from pipeline.cli.compare_table import show_comparison, table_text
    from pipeline.comparison import compare
    from pipeline.outputs import check_output, write_output

    if backbones is not None:
        if len(runs) != 1:
            raise UsageError(f"--backbones takes one source, not {len(runs)}", "Like: --backbones a,b ./photos")
        if as_csv or as_markdown or output or cache or metric != "accuracy":
            raise UsageError("--backbones goes with none of --csv, --md, -o, --cache, --metric", "Use --json.")
        _backbones(screen, runs[0], backbones, runs_dir, **options)
        return
    if as_csv and as_markdown:
        raise UsageError("--csv and --md both ask for standard output", "Give one of them, and -o FILE for the other.")
    if output is not None:
        check_output(output, (".csv", ".md", ".json"))
    result = compare(runs, metric=metric, cache=cache, runs_dir=runs_dir)
    if output is not None:
        write_output(output, table_text(result, output.suffix.lower()))
    if (as_csv or as_markdown) and not screen.json:
        click.echo(table_text(result, ".csv" if as_csv else ".md"), nl=False)
        return
    show_comparison(screen, result)
    best = result.lines[0].runs[0].id
    where = runs_dir_words(runs_dir)
    screen.next_step(f"pipeline evaluate {best}{where} --end-to-end")


def _backbones(screen: Screen, source: str, names: str, runs_dir: Path, *, solver: str, **options: Any) -> None:  # noqa: ANN401
    from pipeline.backbone_choice import compare_backbones
    from pipeline.cli.compare_table import show_backbones
    from pipeline.heads.settings import HeadSettings

    settings = HeadSettings.of(solver=solver, standardize=solver == "exact")
    listed = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    with screen.bar("extract") as on_progress:
        result = compare_backbones(
            source,
            listed,
            settings=settings,
            runs_dir=runs_dir,
            on_backbone=lambda name: screen.facts({"backbone": f"{name} · {listed.index(name) + 1} of {len(listed)}"}),
            on_progress=on_progress,
            **options,
        )
    show_backbones(screen, result)
    where = cache_dir_words(options["cache_dir"]) + runs_dir_words(runs_dir)
    screen.next_step(f"pipeline sweep {result.candidates[0].extracted.cache}{where}")
