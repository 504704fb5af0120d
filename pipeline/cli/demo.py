"""`pipeline demo`."""

import tempfile
from pathlib import Path

import click

from pipeline.cli.options import global_options
from pipeline.console import Screen, duration, percent
from pipeline.errors import PipelineError


@click.command("demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the demo's cache and runs there.  [default: a temporary folder, removed at the end]",
)
@global_options
@click.pass_obj
def command(screen: Screen, folder: Path | None) -> None:
    """Run the whole job offline in under a minute: handwritten digits on a bundled backbone.

    Extracts features, trains a head, evaluates it, and measures every claim there and then: the accuracy beside
    logistic regression on raw pixels, the speed-up an epoch against a plain PyTorch loop over images, and that
    both loops give the same head, bit for bit.
    """
    if folder is not None:
        _show(screen, folder, kept=True)
        return
    with tempfile.TemporaryDirectory(prefix="pipeline-demo-") as temporary:
        _show(screen, Path(temporary), kept=False)


def _show(screen: Screen, folder: Path, *, kept: bool) -> None:
    from pipeline.cli.show import on_screen, show_epochs, show_evaluated, show_extracted, show_plan, show_trained
    from pipeline.demo import DemoListener, demo
    from pipeline.training import TrainResult

    def on_trained(result: TrainResult) -> None:
        show_epochs(screen, result.epochs)
        on_screen(screen, show_trained)(result)

    with screen.bar("extract") as on_progress:
        listener = DemoListener(
            on_plan=lambda plan: show_plan(screen, plan),
            on_extracted=on_screen(screen, show_extracted),
            on_trained=on_trained,
            on_evaluated=on_screen(screen, show_evaluated),
            on_step=lambda what: screen.note(f"measuring: {what} …"),
            on_progress=on_progress,
        )
        result = demo(folder, listener)
    low, high = result.accuracy_ci95
    same = (
        f"[green]equal bit for bit[/green] after {result.parity.epochs} epochs"
        if result.parity.holds
        else f"[red]different[/red], by {result.parity.max_abs_weight_difference:.1e} at most"
    )
    screen.result(
        result.to_json(),
        f"[bold]accuracy[/bold]   {percent(result.accuracy)} \\[{100 * low:.1f}, {100 * high:.1f}] on "
        f"{result.evaluated.n} held-out digits; "
        f"logistic regression on raw pixels: {percent(result.raw_pixel_accuracy)}",
        f"[bold]speed[/bold]      an epoch takes {duration(result.cached_epoch_seconds)} from the cache, "
        f"{duration(result.loop_epoch_seconds)} in a plain loop over images: "
        f"[bold]{result.speedup_per_epoch:,.0f} times[/bold]",
        f"[bold]parity[/bold]     features and head of the plain loop and of the cache are {same}",
        f"[bold]time[/bold]       {duration(result.seconds)}",
        brief=f"{result.accuracy:.4f}",
    )
    if not result.parity.holds:
        raise PipelineError(
            "cached features or head differ from the plain loop's on this machine",
            "Please report it with the output of `pipeline doctor --json`.",
        )
    if kept:
        screen.next_step(f"pipeline cache ls --cache-dir {folder / 'cache'}")
    screen.next_step("pipeline extract YOUR_FOLDER --backbone resnet18")
