"""`pipeline doctor`."""

from pathlib import Path

import click

from pipeline.cli.options import cache_dir_option, global_options
from pipeline.console import Screen, plain


@click.command("doctor")
@cache_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, cache_dir: Path) -> int:
    """Check versions, imports, devices, the cache folder and the loading processes; exit 1 if one is broken."""
    from pipeline.doctor import examine

    checks = examine(cache_dir)
    healthy = all(check.ok for check in checks)
    lines = []
    for check in checks:
        mark = "[green]ok[/green]    " if check.ok else "[red]broken[/red]"
        lines.append(f"{mark}  [bold]{check.name:<12}[/bold] {plain(check.found)}")
        if check.advice:
            lines.append(f"        {plain(check.advice)}")
    document = {"healthy": healthy, "checks": [dict(check.__dict__) for check in checks]}
    screen.result(document, *lines, brief="healthy" if healthy else "broken")
    screen.next_step("pipeline demo" if healthy else "mend what is broken, then pipeline doctor")
    return 0 if healthy else 1
