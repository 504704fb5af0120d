"""`pipeline backbones`."""

import click

from pipeline.cli.options import global_options
from pipeline.console import Screen


@click.command("backbones")
@click.argument("pattern", default="*")
@global_options
@click.pass_obj
def command(screen: Screen, pattern: str) -> None:
    r"""List the networks whose name matches PATTERN (`resnet*`, or a part of the name).

    \b
      pipeline backbones
      pipeline backbones 'resnet*'
    """
    from dataclasses import asdict

    from pipeline.backbones.registry import find_backbones

    found = find_backbones(pattern)
    if screen.json:
        screen.result({"backbones": [asdict(info) for info in found]})
    elif screen.quiet:
        screen.result(None, brief="\n".join(info.name for info in found))
    else:
        rows = [
            (
                info.name,
                f"{info.image_size} px",
                f"{info.parameters / 1e6:,.1f} M",
                " ".join(name + ("*" if name in info.downloaded else "") for name in info.weights),
            )
            for info in found
        ]
        screen.table("", ("name", "image", "parameters", "weights"), rows, right="image parameters")
        screen.note("The first weights are the default; * is on this disk. All take --weights none or a file.")
