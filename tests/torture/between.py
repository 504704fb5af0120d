"""Another process that acts between two calls of this one: every interleaving in turn, not those chance brings."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

CALLS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "os.utime"}
"""Audited calls that read or change names; what is done before one is done after the one before it."""


def act_before(step: int, root: Path, *acts: Callable[[], None]) -> Callable[[], int]:
    """Carry out `acts` before this process's calls number `step`, `step + 1`, … on names under `root`.

    Only for children: the hook stays with the process. Returns what counts the calls so far.
    """
    prefix = os.fsencode(root)
    left = list(acts)
    lock = threading.RLock()
    seen, acting = 0, False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen, acting
        if event not in CALLS or not any(_below(argument, prefix) for argument in arguments[:2]):
            return
        with lock:
            if acting:
                return
            seen += 1
            if left and seen >= step:
                acting = True
                try:
                    left.pop(0)()
                finally:
                    acting = False

    sys.addaudithook(hook)
    return lambda: seen


def _below(argument: object, prefix: bytes) -> bool:
    if isinstance(argument, str | bytes | os.PathLike):
        return os.fsencode(argument).startswith(prefix)
    return False
