"""`pipeline benchmark`."""

import json
from pathlib import Path

import click

from pipeline.cli.options import device_option, global_options
from pipeline.console import Screen, duration
from pipeline.errors import UsageError


@click.command("benchmark")
@click.option("--quick", is_flag=True, help="Small sizes, to see that it works: its figures say little.")
@click.option("--only", metavar="a,b,…", help="Claims to measure, of those above.  [default: all]")
@click.option("--backbone", "backbones", multiple=True, help="Of torchvision; may be repeated.  [default: resnet18]")
@click.option("--weights", default="none", show_default=True, help="As of extract; speed does not depend on them.")
@click.option("--image-size", type=int, default=224, show_default=True, help="Pixels of a side the network sees.")
@click.option("--engine", "engines", multiple=True, help="May be repeated.  [default: every one that is installed]")
@device_option
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of class folders.  [default: made ones]",
)
@click.option("--photos", is_flag=True, help="Measure on made photos of 500 x 375 too, not only on files of 32 px.")
@click.option("--million", is_flag=True, help="Let (g) go up to 1,000,000 rows: some minutes more.")
@click.option("--price-per-hour", type=float, default=0.0, help="Of a worker, in any money, for (s).")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON document there.")
@global_options
@click.pass_obj
def command(
    screen: Screen,
    /,
    quick: bool,
    only: str | None,
    backbones: tuple[str, ...],
    weights: str,
    image_size: int,
    engines: tuple[str, ...],
    device: str,
    images: Path | None,
    photos: bool,
    million: bool,
    price_per_hour: float,
    output: Path | None,
) -> None:
    r"""Measure this machine: every claim on speed against its alternative, side by side in one run.

    \b
      a  images/s of extract against the bare forward of every engine, decoding
         alone, the bound 1/(1/F + 1/D) of both, and the plain loop over images
      b  an epoch from the cache against an epoch of that loop
      c  time to a trained head, extraction included, against the loop
      d  the exact solver against scikit-learn's
      e  many heads at once against the same one by one
      f  reading an entry, verified, against reading and hashing the same bytes
      g  how time and memory grow with rows
      m  an epoch of the head against a plain loop over the same features
      s  time and money of 1 M, 100 M and 1 B images, for 1 to 1,000 such workers

    Epochs of the loop are extrapolated from 30 measured batches. Takes about six minutes on 2 cores, needs no
    download, and leaves nothing behind. docs/PERFORMANCE.md explains each figure, docs/SCALING.md those of s.

    \b
      pipeline benchmark
      pipeline benchmark --only a --backbone mobilenet_v2 --engine openvino
      pipeline benchmark --images ./photos --only a,c -o figures.json
      pipeline benchmark --only s --photos --price-per-hour 0.10
    """
    from pipeline.benchmark.run import CLAIMS, Wanted, benchmark
    from pipeline.cli.figures import show_claim, show_machine

    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {output.absolute().parent} to write to", "Make it, or change -o.")
    wanted = Wanted(
        only=tuple(name.strip() for name in only.split(",")) if only is not None else tuple(CLAIMS),
        backbones=backbones or ("resnet18",),
        weights=weights,
        kinds=("small", "photos") if photos else ("small",),
        images=images,
        image_size=image_size,
        engines=engines,
        device=device,
        price_per_hour=price_per_hour,
        growth=(10_000, 100_000, 1_000_000) if million else (10_000, 100_000),
    )
    with screen.steps() as on_step:
        report = benchmark(wanted.smaller() if quick else wanted, lambda what: on_step(f"measuring: {what}"))
    document = report.to_json()
    show_machine(screen, report.machine, report.date)
    for claim in report.claims:
        show_claim(screen, claim)
    if output is not None:
        output.write_text(json.dumps(document, indent=1) + "\n")
    small = " --quick: the sizes are small, the figures say little." if quick else ""
    screen.result(document, "", f"[bold]time[/bold] {duration(report.seconds)}.{small}")
    screen.next_step(f"pipeline extract SOURCE --backbone {wanted.backbones[0]}")
