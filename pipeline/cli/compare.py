"""`pipeline compare`."""

from pathlib import Path

import click

from pipeline.cli.options import global_options, runs_dir_option
from pipeline.console import Screen
from pipeline.errors import UsageError


@click.command("compare")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--metric",
    default="accuracy",
    show_default=True,
    help="What ranks: accuracy, balanced_accuracy, macro_f1, nll, brier or ece.",
)
@click.option("--cache", help="Of evaluations on several entries, those on this one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
@click.option("--md", "as_markdown", is_flag=True, help="Print it as Markdown.")
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
) -> None:
    r"""Rank RUNs (prefixes of their ids, paths, `latest`; default all) on the test rows that all were measured on.

    Each is compared with the best on the same rows: difference with 95 % interval, and p, corrected for the number of
    comparisons. Seeds of one recipe are one line. Only what `evaluate` kept is read, never test features.

    \b
      pipeline compare
      pipeline compare 0001 0002 0007 --metric nll
      pipeline compare --md -o table.csv
    """
    from pipeline.cli.compare_table import show_comparison, table_text
    from pipeline.cli.sweep_table import check_output
    from pipeline.comparison import compare
    from pipeline.store.commit import disk_errors, new_file

    if as_csv and as_markdown:
        raise UsageError("--csv and --md both ask for standard output", "Give one of them, and -o FILE for the other.")
    if output is not None:
        check_output(output, (".csv", ".md", ".json"))
    result = compare(runs, metric=metric, cache=cache, runs_dir=runs_dir)
    if output is not None:
        text = table_text(result, output.suffix.lower())
        with new_file(output) as temporary, disk_errors(output, len(text)):
            temporary.write_text(text, encoding="utf-8")
    if (as_csv or as_markdown) and not screen.json:
        click.echo(table_text(result, ".csv" if as_csv else ".md"), nl=False)
        return
    show_comparison(screen, result)
    best = result.lines[0].runs[0].id
    where = "" if runs_dir == Path("runs") else f" --runs-dir {runs_dir}"
    screen.next_step(f"pipeline evaluate {best}{where} --end-to-end")
