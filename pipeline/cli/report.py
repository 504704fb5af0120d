"""`pipeline report`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, global_options, images_options, runs_dir_option
from pipeline.cli.steps import cache_dir_words, runs_dir_words
from pipeline.console import Screen, count, duration, plain, size


@click.command("report")
@click.argument("run", default="latest")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file.  [default: report.html in the run's folder]"
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option("--figures", type=click.Path(file_okay=False, path_type=Path), help="A folder for PNG and SVG plots.")
@click.option(
    "--findings",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of `audit` and `learn-curve`.  [default: audits/CACHE beside the runs]",
)
@images_options
@click.option("--images/--no-images", default=True, show_default=True, help="Show images of errors and of the map.")
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, /, run: str, show: bool, **options: Any) -> None:  # noqa: ANN401
    r"""Write all that is known of RUN (a prefix of its id, its name, a path, or `latest`) as one HTML file.

    It opens from disk and loads nothing. All figures are those that `pipeline evaluate RUN` kept.

    \b
      pipeline report latest --open
      pipeline report 0001 -o cats.html --figures plots
    """
    from pipeline.reporting.making import report

    with screen.bar("map", "rows") as on_map, screen.bar("images") as on_progress:
        result = report(run, on_map=on_map, on_progress=on_progress, **options)
    for line in result.missing:
        screen.warn(line)
    drawn = f" · {count(len(result.figures), 'figure')} in {options['figures']}" if result.figures else ""
    screen.result(
        result.to_json(),
        f"[bold]report[/bold]  {plain(result.path)} · {size(result.bytes)} · "
        f"{count(result.images, 'image')} · in {duration(result.seconds)}{plain(drawn)}",
        brief=result.path,
    )
    if show:
        click.launch(str(Path(result.path).resolve()))
    runs_dir = options["runs_dir"]
    where = runs_dir_words(runs_dir)
    if result.audited:
        screen.next_step(f"pipeline export {result.run}{where} -o FILE")
    else:
        screen.next_step(f"pipeline audit {result.cache}{cache_dir_words(options['cache_dir'])}{where}")
