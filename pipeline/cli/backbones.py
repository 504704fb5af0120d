"""`pipeline backbones`."""

import click

from pipeline.cli.options import global_options
from pipeline.console import Screen

SHOWN = 2
"""Names of weights a line, beside those on this disk."""


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
    from pipeline.backbones.registry import list_layers

    default, modules = list_layers(name)
    if screen.json:
        document = {"default": default, "layers": [{"name": layer, "kind": kind} for layer, kind in modules]}
        screen.result(document)
    elif screen.quiet:
        screen.result(None, brief="\n".join(layer for layer, _ in modules))
    else:
        screen.table("", ("layer", "kind"), modules)
        screen.note(
            f"The default cut is {default}. --layer NAME takes a module's output, --layer input:NAME its input."
        )
