"""`pipeline export`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, global_options, images_options, runs_dir_option
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen, percent, plain, size


@click.command("export")
@click.argument("run", default="latest")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file.")
@click.option(
    "--format", type=click.Choice(["onnx", "pt2", "safetensors"]), help="[default: by the ending of the file]"
)
@click.option("--check-images", type=int, default=128, show_default=True, help="Images the file is checked on.")
@click.option("--check-only", is_flag=True, help="Write nothing: check the file that is there.")
@click.option("--overwrite", is_flag=True, help="Replace a file of that name.")
@click.option("--cache", help="Another entry of the same feature space to check on.")
@images_options
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, /, run: str, **options: Any) -> None:  # noqa: ANN401
    r"""Write backbone and head of RUN as one file that takes images: ONNX, torch.export or safetensors.

    The file takes float32 RGB images in [0, 1] at the stated size, normalises them, and gives logits and
    probabilities. It is run on real images first and gets its name only if it is the same model as the cache
    says. A description (.json) and a model card (.md) are written beside it.

    \b
      pipeline export latest -o flowers.onnx
      pipeline export 0003 --format safetensors -o model.safetensors
      pipeline export 0003 -o flowers.onnx --check-only      is this still the model of that run?
    """
    from pipeline.artifacts.export import export

    with screen.bar("check") as on_progress:
        result = export(run, on_progress=on_progress, **options)
    verb = "wrote" if result.written else "checked"
    check = result.check
    screen.result(
        result.to_json(),
        f"[bold]{verb} {plain(result.path)}[/bold]  {result.format} · {size(result.bytes)} · run {result.run}",
        f"[bold]check[/bold]  {check.images:,} images against {result.against} · predictions equal "
        f"{percent(check.prediction_agreement)} · logits within {check.max_abs_logit_difference:.1e} · "
        "[green]the same model[/green]",
        brief=result.path,
    )
    if result.written:
        name = Path(result.path).name
        screen.note(f"beside it: {name}.json, a description, and {name}.md, a model card")
        screen.next_step(f"pipeline predict {result.run}{runs_dir_words(options['runs_dir'])} YOUR_IMAGES")
