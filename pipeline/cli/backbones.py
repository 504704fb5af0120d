"""`pipeline backbones`."""

from typing import TYPE_CHECKING

import click

from pipeline.cli.options import global_options
from pipeline.console import Screen
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.backbones.cutpoints import CutPoint

SHOWN = 2
"""Names of weights a line, beside those on this disk."""
WORTH = 0.05
"""Of a network's parameters, that should lie behind a cut that is proposed."""


@click.command("backbones")
@click.argument("pattern", default="*")
@click.option("--layers", is_flag=True, help="List the modules of the network of this name, for --layer.")
@global_options
@click.pass_obj
def command(screen: Screen, pattern: str, layers: bool) -> None:
    r"""List the networks whose name matches PATTERN (`resnet*`, or a part of the name).

    torchvision's, and timm's if it is installed. Your own are named package.module:function.

    \b
      pipeline backbones
      pipeline backbones 'resnet*'
      pipeline backbones timm/convnextv2
      pipeline backbones resnet18 --layers
    """
    if layers:
        _show_layers(screen, pattern)
    else:
        _show_found(screen, pattern)


def _show_found(screen: Screen, pattern: str) -> None:
    from dataclasses import asdict

    from pipeline.backbones.registry import SIZED, find_backbones

    found = find_backbones(pattern)
    if screen.json:
        screen.result({"backbones": [asdict(info) for info in found]})
        return
    if screen.quiet:
        screen.result(None, brief="\n".join(info.name for info in found))
        return
    rows: list[tuple[str, ...]] = [
        (
            info.name,
            f"{info.image_size} px",
            f"{info.features:,}" if info.features else "",
            f"{info.parameters / 1e6:,.1f} M" if info.parameters else "",
            _weights(info.weights, info.downloaded),
        )
        for info in found
    ]
    columns: tuple[str, ...] = ("name", "image", "features", "parameters", "weights")
    if not any(info.features or info.parameters for info in found):  # of so many none was built to be measured
        columns, rows = (*columns[:2], columns[-1]), [(*row[:2], row[-1]) for row in rows]
    screen.table("", columns, rows, right="image features parameters")
    screen.note("First weights: the default; * is on this disk. All take --weights none or a file.")
    if len(found) > SIZED:
        screen.note(f"Sizes that need building are shown for at most {SIZED} networks: narrow the pattern.")
    screen.next_step(f"pipeline extract SOURCE --backbone {found[0].name}" if found else "pipeline backbones")


def _weights(names: tuple[str, ...], downloaded: tuple[str, ...]) -> str:
    shown = [name + ("*" if name in downloaded else "") for name in names if name in (*names[:SHOWN], *downloaded)]
    more = len(names) - len(shown)
    return " ".join(shown) + (f" +{more}" if more else "")


def _show_layers(screen: Screen, name: str) -> None:
    from dataclasses import asdict

    from pipeline.backbones.registry import list_layers

    default, modules = list_layers(name)
    cuts, why = _cuts(name)
    if screen.json:
        document = {
            "default": default,
            "layers": [{"name": layer, "kind": kind} for layer, kind in modules],
            "cuts": [{**asdict(cut), "bytes": cut.bytes(1)} for cut in cuts],
        }
        screen.result(document)
    elif screen.quiet:
        screen.result(None, brief="\n".join(layer for layer, _ in modules))
    else:
        screen.table("", ("layer", "kind"), modules)
        screen.note(
            f"The default cut is {default}. --layer NAME takes a module's output, --layer input:NAME its input."
        )
        _show_cuts(screen, name, cuts, why)


def _cuts(name: str) -> "tuple[list[CutPoint], str]":
    """Return where fine-tuning can start, or why nowhere."""
    from pipeline.backbones.cutpoints import list_cuts

    try:
        return list_cuts(name), ""
    except UsageError as error:  # the network may still be used for features
        return [], error.message


def _show_cuts(screen: Screen, name: str, cuts: "list[CutPoint]", why: str) -> None:
    """Show where fine-tuning can start, and what it costs there."""
    if not cuts:
        screen.note(why or "Fine-tuning can start nowhere in it.")
        return
    rows = [
        (
            cut.layer,
            " x ".join(str(side) for side in cut.row_shape),
            f"{cut.bytes(1000) / 1e6:,.1f}",
            f"{cut.parameters / 1e6:,.2f} M",
            f"{cut.speedup:,.1f}x" if cut.speedup is not None else "–",
        )
        for cut in cuts
    ]
    columns = ("finetune from", "rows", "MB", "behind", "epoch")
    screen.table("", columns, rows, right="rows MB behind epoch")
    screen.note(
        "MB: of 1,000 images as float16. behind: parameters that are trained. epoch: how many times less arithmetic "
        "than from images with the same layers frozen; what is measured is more, see docs/FINETUNE.md."
    )
    last = [cut for cut in cuts if cut.parameters >= WORTH * cuts[0].parameters][-1].layer
    screen.next_step(f"pipeline extract SOURCE --backbone {name} --layer {last} --pool none --store-dtype float16")
