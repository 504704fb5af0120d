"""The command line: parse, one library call, show. The only folder that knows click.

Command modules are imported when their command is used, so that `--help` is quick.
"""

from pipeline.cli.main import main

__all__ = ["main"]
