"""`pipeline run`."""

from pathlib import Path

import click

from pipeline.cli.options import global_options
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Override one key: --set head.lr=0.01")
@click.option("--source", help="Override extract.source.")
@click.option("--backbone", help="Override extract.backbone.")
@click.option("--weights", help="Override extract.weights.")
@click.option("--limit", type=int, help="Override extract.limit.")
@click.option("--lr", type=float, help="Override head.lr, or finetune.lr.")
@click.option("--epochs", type=int, help="Override head.epochs, or finetune.epochs.")
@click.option("--seed", type=int, help="Override head.seed, or finetune.seed.")
@click.option("--device", help="Override device.")
@click.option("--cache-dir", help="Override cache_dir.")
@click.option("--runs-dir", help="Override runs_dir.")
@click.option("--data-root", help="Override data_root.")
@global_options
@click.pass_obj
def command(screen: Screen, /, config: Path, changes: tuple[str, ...], **flags: str | int | float | None) -> None:
    r"""Extract, train a head and evaluate it as CONFIG (a TOML file) says.

    With a [sweep] it is the best of many heads, with a [finetune] the last layers are trained too.

    \b
      pipeline run configs/digits.toml
      pipeline run configs/folder.toml --source ./photos --set head.epochs=20
      pipeline run configs/digits.toml --set sweep.lr=[0.001,0.01] --set sweep.seeds=3
    """
    from pipeline.cli.show import (
        epoch_line,
        on_screen,
        show_evaluated,
        show_extracted,
        show_plan,
        show_train_plan,
        show_trained,
    )
    from pipeline.cli.show_finetuning import show_finetune_plan, show_finetuned
    from pipeline.cli.sweep_table import show_sweep, show_sweep_plan
    from pipeline.config import parse_change, read_config
    from pipeline.errors import UsageError
    from pipeline.experiment import ExperimentListener, run_experiment

    sections = dict.fromkeys(("source", "backbone", "weights", "limit"), "extract.")
    changed = dict(parse_change(text) for text in changes)
    tunes = read_config(config, changed).finetune is not None
    sections |= dict.fromkeys(("lr", "epochs", "seed"), "finetune." if tunes else "head.")
    said = {sections.get(name, "") + name: value for name, value in flags.items() if value is not None}
    settings = read_config(config, said | changed)
    listed = set() if settings.sweep is None else settings.sweep.model_fields_set
    for flag, axis in (("lr", "lr"), ("seed", "seeds")):
        if flags[flag] is not None and axis in listed:
            raise UsageError(f"--{flag} says one value, [sweep] has its own {axis}", f"Give --set sweep.{axis}=[…].")

    with (
        screen.bar("extract") as on_progress,
        screen.bar("sweep", "heads") as on_trials,
        screen.rows() as rows,
    ):
        listener = ExperimentListener(
            on_plan=lambda plan: show_plan(screen, plan),
            on_progress=on_progress,
            on_extracted=on_screen(screen, show_extracted),
            on_train_plan=lambda plan: show_train_plan(screen, plan, rows),
            on_epoch=lambda epoch: rows.add(epoch_line(epoch), epoch.val_loss),
            on_trained=on_screen(screen, show_trained),
            on_sweep_plan=lambda plan: show_sweep_plan(screen, plan),
            on_trials=on_trials,
            on_swept=on_screen(screen, show_sweep),
            on_finetune_plan=lambda plan: show_finetune_plan(screen, plan, rows),
            on_finetuned=on_screen(screen, show_finetuned),
            on_evaluated=on_screen(screen, show_evaluated),
        )
        result = run_experiment(settings, listener)
    if screen.json or screen.quiet:
        screen.result(result.to_json(), brief=result.run)
    run = result.run
    cache = "" if settings.cache_dir == Path("cache") else f" --cache-dir {settings.cache_dir}"
    runs = runs_dir_words(settings.runs_dir)
    proven = result.evaluate.end_to_end is not None
    screen.next_step(
        f"pipeline export {run} -o FILE{runs}" if proven else f"pipeline evaluate {run} --end-to-end{cache}{runs}",
        f"pipeline runs{runs}",
    )
