"""Decoding alone: on every core a process that reads, decodes and resizes, and hands nothing on.

The rate of an ideal loader: no batches, no shared memory, no process to wait for.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from pipeline.backbones.preprocess import Preprocess
from pipeline.benchmark.child import Child
from pipeline.loading.decode import decode, read_file


def decode_for(paths: list[str], preprocess: dict[str, Any], seconds: float) -> Callable[[], dict[str, Any]]:
    """Return what decodes files in turn for so many seconds and answers with images a second."""
    settings, files = Preprocess.from_json(preprocess), cycle(paths)
    settings.pixels(decode(read_file(next(files)).data))

    def work() -> dict[str, Any]:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            settings.pixels(decode(read_file(next(files)).data))
            count += 1
        return {"images_per_second": count / (time.perf_counter() - started)}

    return work


@contextmanager
def decoders(files: list[Path], preprocess: Preprocess, cores: int, seconds: float) -> Iterator[Callable[[], float]]:
    """Start a process a core; yield what measures the images a second of all together."""
    with ExitStack() as stack:
        team = [
            stack.enter_context(
                Child(
                    __name__,
                    "decode_for",
                    threads=1,
                    paths=[str(path) for path in files[number::cores]],
                    preprocess=preprocess.to_json(),
                    seconds=seconds,
                )
            )
            for number in range(cores)
        ]
        for child in team:
            child.wait_ready()

        def measure() -> float:
            for child in team:
                child.ask()
            return sum(float(child.answer()["images_per_second"]) for child in team)

        yield measure
