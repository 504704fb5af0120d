"""The worker process: reads tasks from a pipe, writes pixels into shared memory, answers with a line each.

Started by the loader as `python -m pipeline.loading.worker SETUP`, where SETUP is JSON: descriptors, sizes and
the preprocess. One task is a run of places in a batch: a JSON message, followed by the bytes of each image that is
not in a file. All of them are taken before the first is decoded: a decoder that hangs does not hold up the loader.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.backbones.preprocess import Preprocess
from pipeline.digest import array_digest
from pipeline.loading.decode import BadImageError, decode, from_array, read_bytes, read_file
from pipeline.loading.memory import SharedMemory

OK, KNOWN, BAD = 0, 1, 2
"""What became of an image: pixels were written; its digest was known and nothing was decoded; unusable."""

MEMORY_LIMIT_BYTES = 6 << 30
"""Address space of a worker, beyond the shared batches and the libraries that make views: a bomb ends as an error,
not as a full machine."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve tasks until the parent closes the pipe."""
    setup = json.loads(sys.argv[1])
    _behave(setup)
    preprocess = Preprocess.from_json(setup["preprocess"])
    preprocess.prepare()  # of a view: torchvision and torch, several GB of address space that no image asked for
    _limit_memory(setup["pixel_bytes"] + (0 if preprocess.view is None else _address_space()))
    tasks = Connection(setup["tasks"], writable=False)
    answers = Connection(setup["answers"], readable=False)
    state = _State(setup, preprocess)
    answers.send_bytes(b"ready")
    while True:
        try:
            task = json.loads(tasks.recv_bytes())
        except EOFError:
            return
        sent = [None if "path" in item else tasks.recv_bytes() for item in task["items"]]
        results = []
        for place, item, data in zip(task["places"], task["items"], sent, strict=True):
            results.append(state.serve(task["slot"], place, item, data))
            state.progress[setup["number"]] += 1
        answers.send_bytes(json.dumps(results).encode())


def _behave(setup: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != setup["parent"]:
        sys.exit(0)  # the parent went before the line above took hold
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_memory(beside: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES + beside, hard))


def _address_space() -> int:
    """Return the bytes that this process has mapped; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return pages * resource.getpagesize()
    return 0


class _State:
    """What a worker holds between tasks."""

    def __init__(self, setup: dict[str, Any], preprocess: Preprocess) -> None:
        self.preprocess = preprocess
        self.pixels = SharedMemory.attach(setup["pixel_fd"], setup["pixel_bytes"]).array(
            tuple(setup["pixel_shape"]), "u1"
        )
        sizes_shape = tuple(setup["sizes_shape"])
        self.sizes = SharedMemory.attach(setup["sizes_fd"], 2 * math.prod(sizes_shape)).array(sizes_shape, "u2")
        self.whole = setup["whole"]
        self.progress = SharedMemory.attach(setup["progress_fd"], 8 * setup["workers"]).array(
            (setup["workers"],), "<i8"
        )
        known = SharedMemory.attach(setup["known_fd"], 8 * setup["known"])
        self.known = known.array((setup["known"],), "u8")

    def serve(self, slot: int, place: int, item: dict[str, Any], sent: bytes | None) -> list[Any]:
        """Return [outcome, digest or None, facts or None, time of reading, reason]."""
        read_ns = time.time_ns()
        digest, facts = None, None
        self.sizes[slot, place] = 0
        try:
            if sent is not None and "shape" in item:
                pixels = np.frombuffer(sent, np.uint8).reshape(item["shape"])
                digest = array_digest(pixels)
                if not self._is_known(digest):
                    self._put(slot, place, from_array(pixels), digest)
                    return [OK, digest.hex(), None, read_ns, ""]
            else:
                encoded = read_bytes(sent) if sent is not None else read_file(item["path"], item["span"])
                digest, facts = encoded.digest, encoded.facts
                if not self._is_known(digest):
                    self._put(slot, place, decode(encoded.data), digest)
                    return [OK, digest.hex(), facts, read_ns, ""]
            return [KNOWN, digest.hex(), facts, read_ns, ""]
        except MemoryError:
            # Perhaps the machine was full: without a digest it is tried again next time.
            self.pixels[slot, place] = 0
            return [BAD, None, None, read_ns, "needs more memory than a worker may take"]
        except (BadImageError, ValueError) as error:
            self.pixels[slot, place] = 0
            return [BAD, digest and digest.hex(), facts, read_ns, str(error)]

    def _put(self, slot: int, place: int, image: Image.Image, digest: bytes) -> None:
        """Write what the network sees, or the whole image if it may be resized by whoever takes it."""
        if self.whole and self.preprocess.may_wait(*image.size, self.whole):
            self.pixels[slot, place, : image.height, : image.width] = np.asarray(image)
            self.sizes[slot, place] = image.height, image.width
        else:
            seen = self.preprocess.pixels(image, digest)
            self.pixels[slot, place, : len(seen), : len(seen)] = seen

    def _is_known(self, digest: bytes) -> bool:
        key = np.uint64(int.from_bytes(digest[:8], "big"))
        at = int(np.searchsorted(self.known, key))
        return at < len(self.known) and bool(self.known[at] == key)


if __name__ == "__main__":
    main()
