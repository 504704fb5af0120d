"""`pipeline extract`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import (
    Numbers,
    cache_dir_option,
    data_root_option,
    device_option,
    global_options,
    reading_options,
    runs_dir_option,
)
from pipeline.console import Screen


@click.command("extract")
@click.argument("source")
@click.option("--backbone", required=True, help="One of `pipeline backbones`, or package.module:function of yours.")
@click.option(
    "--weights", default="DEFAULT", show_default=True, help="DEFAULT, one of the library's names, none, or a file."
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    help="A module whose output is kept (input:NAME for its input); several make an entry each, in one pass.  "
    "[default: the classifier's input]",
)
@click.option(
    "--pool",
    type=click.Choice(["avg", "max", "cls", "cls+avg", "none"]),
    help="How a layer's map or tokens become a vector.  [default: avg]",
)
@click.option("--views", type=int, default=1, show_default=True, help="Of each image, the plain one first.")
@click.option("--augment", metavar="STEPS", help="What further views show: hflip,crop:0.8-1,colour:0.2 and the like.")
@click.option("--image-size", type=int, help="Pixels of a side the network sees.  [default: the weights' own]")
@click.option("--mean", type=Numbers(), help="Of pixels in [0, 1], one or three.  [default: the weights' own]")
@click.option("--std", type=Numbers(), help="As --mean.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "tf32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="What the network computes in; another is another feature space.",
)
@click.option("--store-dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--batch-size", type=int, help="Images a forward pass.  [default: 64]")
@device_option
@click.option(
    "--engine",
    type=click.Choice(["auto", "reference", "eager", "compile", "openvino"]),
    default="auto",
    show_default=True,
    help="How the network is run; auto takes what finishes soonest, start-up included.",
)
@click.option("--workers", type=int, help="Loading processes.  [default: one a core]")
@click.option(
    "--resize",
    type=click.Choice(["workers", "device"]),
    default="workers",
    show_default=True,
    help="Who resizes images; device gives the same pixels, for GPUs that wait for loading processes.",
)
@cache_dir_option
@click.option("--shard-rows", type=int, help="Rows a shard.  [default: 32 MB worth]")
@click.option(
    "--test-fraction",
    type=float,
    default=0.1,
    show_default=True,
    help="Test share where the source names no test split.",
)
@click.option("--limit", type=int, help="Use only N images, spread evenly over the source.")
@click.option(
    "--on-bad-image",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What an unusable image does; skip records it in skipped.csv.",
)
@data_root_option
@reading_options
@runs_dir_option
@click.option("--follow-symlinks", is_flag=True, help="Accept links that lead out of the source folder.")
@click.option("--restart", is_flag=True, help="Compute anew, whatever is in the cache.")
@click.option("--rehash", is_flag=True, help="Read every file again, whatever is remembered of it.")
@click.option("--worker", metavar="I/N", help="Be one of N that share the work.  [default: what a launcher says]")
@click.option(
    "--worker-timeout",
    type=float,
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="After so long without a sign of life another worker is taken for lost.",
)
@click.option("--devices", metavar="LIST", help="A process for each of 0,1,2,3 (GPUs), led by this one.")
@click.option("--on", type=click.Choice(["here", "ray"]), default="here", show_default=True, help="Who computes.")
@click.option(
    "--ray-address", metavar="ADDRESS", help="Of the Ray cluster; auto is this machine's.  [default: its own]"
)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@global_options
@click.pass_obj
def command(
    screen: Screen,
    /,
    source: str,
    layers: tuple[str, ...],
    dry_run: bool,
    cache_dir: Path,
    runs_dir: Path,
    worker: str | None,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Run a frozen backbone over SOURCE once and keep its features in the cache.

    SOURCE is a folder (FOLDER/<class>/*.jpg or FOLDER/<train|val|test>/<class>/*.jpg), a table of paths and labels
    (.csv, .tsv, .parquet), tar shards, `digits`, a torchvision data set's name, or hf:NAME. The same command finds a
    finished entry, continues an interrupted one, and computes only what is new.

    \b
      pipeline extract ./photos --backbone resnet18
      pipeline extract cifar10 --backbone resnet18 --image-size 224 --mean 0.5 --std 0.5
      pipeline extract ./photos --backbone mobilenet_v2 --weights my.safetensors --on-bad-image skip
      pipeline extract scans.csv --backbone resnet18 --label-column finding --group-by patient
      pipeline extract 'shards/{000..031}.tar' --backbone resnet18
      pipeline extract ./photos --backbone timm/convnextv2_tiny --layer stages.2 --layer stages.3
      pipeline extract ./photos --backbone resnet18 --views 4 --augment hflip,crop:0.8-1
      torchrun --standalone --nproc-per-node 4 --no-python pipeline extract ./photos --backbone resnet18
    """
    from dataclasses import asdict

    from pipeline.cli.show import show_extracted, show_plan
    from pipeline.cli.steps import after_features
    from pipeline.judge import HeadJudge, newest_judge
    from pipeline.launch.extract import extract
    from pipeline.launch.plan import Plan
    from pipeline.launch.share import Share
    from pipeline.progress import Progress
    from pipeline.store.key import FeatureSpace

    class Planned(Exception):
        pass

    plans: list[Plan] = []
    share = Share.of(worker)
    # Of several workers whose words come to one place the first shows plan, bar and notes: it counts the rows of all.
    follows = share.index > 0 and (screen.has_terminal or share.has_shared_output) and not dry_run

    def on_plan(plan: Plan) -> None:
        if follows and not plans:
            screen.note(f"{share.name} begins; worker 0 shows how far all of them are")
        elif not follows:
            show_plan(screen, plan, first=not plans, layers=len(set(layers)))
        plans.append(plan)
        if dry_run and len(plans) == options["views"] * max(1, len(set(layers))):
            raise Planned

    def find_judge(space: FeatureSpace) -> HeadJudge | None:
        return newest_judge(runs_dir, space)

    try:
        with screen.bar("extract") as on_bar:

            def on_progress(progress: Progress) -> None:
                if not follows:
                    on_bar(progress)

            result = extract(
                source,
                layer=layers[0] if layers else None,
                beside=layers[1:],
                cache_dir=cache_dir,
                worker=worker,
                on_plan=on_plan,
                on_progress=on_progress,
                find_judge=find_judge,
                **options,
            )
    except Planned:
        documents = [asdict(plan) for plan in plans]
        document = {"plan": documents[0]} if len(plans) == 1 else {"plans": documents}
        screen.result(document, brief="\n".join(plan.cache for plan in plans))
        return
    show_extracted(screen, result, brief=follows)
    labelled = result.classes > 0
    each = (result, *result.beside) if share.index == 0 else ()
    if each:
        tunes = {plan.layer: None if plan.finetune is None else plan.finetune.possible for plan in plans}
        screen.next_step(
            *(
                after_features(
                    one.cache,
                    cache_dir,
                    labelled=labelled,
                    tunes=tunes[one.layer],
                )
                for one in each
            )
        )
