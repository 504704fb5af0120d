"""The parent's side of loading: requests go in, uint8 batches come out in the same order.

A thread hands runs of images to idle workers, collects their answers, and watches them: a worker that dies or
makes no progress is replaced, and its images are tried again one at a time, each in a worker that has nothing
else to lose.
"""

import json
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import PipelineError
from pipeline.loading.batch import Batch, Loaded, loaded_from
from pipeline.loading.memory import SharedMemory
from pipeline.loading.process import WorkerProcess
from pipeline.loading.worker import BAD
from pipeline.sources.source import ArrayPayload, BytesPayload, Payload

CHUNK = 16
"""Images a task: small enough that several workers fill one batch."""
TICK_SECONDS = 0.5
IMAGE_TIMEOUT_SECONDS = 60.0
"""A worker that finishes no image for this long is replaced."""
MAX_AUTO_WORKERS = 16
MAX_FAILED_STARTS = 3
"""In a row, before it is taken for a fault of the installation and not of a full machine."""


@dataclass
class _Pending:
    rows: list[int]
    payload: Callable[[int], Payload]
    slot: int = -1
    loaded: list[Loaded | None] = field(default_factory=list)
    missing: int = 0


@dataclass(frozen=True)
class _Task:
    batch: _Pending
    places: list[int]
    alone: bool = False
    """Whether this is the second try, of one image in a worker that has nothing else to lose."""


@dataclass
class _Member:
    """A worker of the team, and what it has to do."""

    number: int
    process: WorkerProcess
    ready: bool = False
    task: _Task | None = None
    seen: int = 0
    """Its progress counter when it last moved, and when that was."""
    moved: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> bool:
        return self.ready and self.task is None


def auto_workers() -> int:
    """Return how many workers to start: the cores this process may use, at most MAX_AUTO_WORKERS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_AUTO_WORKERS)


class Loader:
    """Decodes images in `workers` processes into batches of a fixed size. Use as a context manager.

    With `whole`, images of up to so many pixels a side that need resizing come as they are, to be resized by whoever
    takes them (`Preprocess.may_wait` says which); `h` and `w` of a batch are then the larger of `whole` and the crop.

    Images whose digest's first 8 bytes are in `known` (m,) uint64 (big-endian) need no decoding: they come back as
    KNOWN.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        *,
        batch_size: int,
        workers: int,
        known: np.ndarray | None = None,
        whole: int = 0,
        image_timeout: float = IMAGE_TIMEOUT_SECONDS,
    ) -> None:
        self.batch_size, self.workers, self.image_timeout = batch_size, workers, image_timeout
        self.slots = workers + 2
        side = max(preprocess.crop, whole)
        shape = (self.slots, batch_size, side, side, 3)
        sizes_shape = (self.slots, batch_size, 2)
        ordered = np.empty(0, np.uint64) if known is None else np.sort(known.astype(np.uint64, copy=False))
        self._pixel_memory = SharedMemory(int(np.prod(shape)))
        self._sizes_memory = SharedMemory(2 * int(np.prod(sizes_shape)))
        self._progress_memory = SharedMemory(8 * workers)
        self._known_memory = SharedMemory(8 * len(ordered))
        self._known_memory.array(ordered.shape, "u8")[:] = ordered
        self._pixels = self._pixel_memory.array(shape, "u1")
        self._sizes = self._sizes_memory.array(sizes_shape, "u2")
        self._progress = self._progress_memory.array((workers,), "<i8")
        self._setup = {
            "preprocess": preprocess.to_json(),
            "pixel_bytes": self._pixel_memory.size,
            "pixel_shape": shape,
            "sizes_shape": sizes_shape,
            "whole": whole,
            "workers": workers,
            "known": len(ordered),
        }
        self._shared = {
            "pixel_fd": self._pixel_memory.descriptor,
            "sizes_fd": self._sizes_memory.descriptor,
            "progress_fd": self._progress_memory.descriptor,
            "known_fd": self._known_memory.descriptor,
        }
        self._lock = threading.Condition()
        self._ordered: deque[_Pending] = deque()
        self._waiting: deque[_Pending] = deque()
        self._free = deque(range(self.slots))
        self._tasks: deque[_Task] = deque()
        self._failure: BaseException | None = None
        self._stopping = False
        self._failed_starts = 0
        read_end, write_end = os.pipe()
        self._woken, self._wake_end = Connection(read_end, writable=False), Connection(write_end, readable=False)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the loader
        self._team: list[_Member] = []
        self._thread = threading.Thread(target=self._manage, name="pipeline-loader", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(self, rows: Sequence[int], payload: Callable[[int], Payload]) -> None:
        """Ask for the images of `rows`; they come from `next_batch` after all that was asked for before."""
        with self._lock:
            for first in range(0, len(rows), self.batch_size):
                part = list(rows[first : first + self.batch_size])
                pending = _Pending(part, payload, loaded=[None] * len(part), missing=len(part))
                self._ordered.append(pending)
                self._waiting.append(pending)
        self._wake()

    def next_batch(self) -> Batch:
        """Return the next batch, at most `batch_size` rows of one request. Release it after use."""
        with self._lock:
            if not self._ordered:
                raise ValueError("no batch was requested")
            while self._failure is None and self._ordered[0].missing:
                self._lock.wait()
            if self._failure is not None:
                raise self._failure
            done = self._ordered.popleft()
        loaded = [item for item in done.loaded if item]
        return Batch(done.rows, self._pixels[done.slot], self._sizes[done.slot], loaded, done.slot)

    def release(self, batch: Batch) -> None:
        """Give a batch's memory back for new images."""
        with self._lock:
            self._free.append(batch.slot)
        self._wake()

    def close(self) -> None:
        """Stop the workers and free the memory."""
        if self._stopping:
            return
        self._stopping = True
        self._wake()
        self._thread.join()
        for memory in (self._pixel_memory, self._sizes_memory, self._progress_memory, self._known_memory):
            memory.close()
        self._woken.close()
        self._wake_end.close()
        self._stderr.close()

    def _wake(self) -> None:
        self._wake_end.send_bytes(b"!")

    # --- the thread ---

    def _manage(self) -> None:
        try:
            self._team = [self._start(number) for number in range(self.workers)]
            while not self._stopping:
                self._hand_out()
                self._collect()
                self._watch()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for a batch
            with self._lock:
                self._failure = error
                self._lock.notify_all()
        finally:
            for worker in self._team:
                worker.process.end()

    def _start(self, number: int) -> _Member:
        self._progress[number] = 0
        return _Member(number, WorkerProcess({**self._setup, "number": number}, self._shared, self._stderr))

    def _hand_out(self) -> None:
        with self._lock:
            while self._free and self._waiting:
                batch = self._waiting.popleft()
                batch.slot = self._free.popleft()
                places = range(len(batch.rows))
                self._tasks.extend(_Task(batch, list(places[i : i + CHUNK])) for i in places[::CHUNK])
        for worker in self._team:
            if not self._tasks:
                return
            if worker.idle:
                self._send(worker, self._tasks.popleft())

    def _send(self, worker: _Member, task: _Task) -> None:
        """Send a task to an idle worker, which is reading: a message larger than the pipe cannot block for long."""
        items: list[dict[str, Any]] = []
        sent: list[bytes] = []
        for place in task.places:
            payload = task.batch.payload(task.batch.rows[place])
            if isinstance(payload, ArrayPayload):
                items.append({"shape": payload.array.shape})
                sent.append(np.ascontiguousarray(payload.array, np.uint8).tobytes())
            elif isinstance(payload, BytesPayload):
                items.append({"encoded": len(payload.data)})
                sent.append(payload.data)
            else:
                items.append({"path": payload.path, "span": payload.span})
        message = {"slot": task.batch.slot, "places": task.places, "items": items}
        worker.task, worker.moved = task, time.monotonic()
        try:
            worker.process.tasks.send_bytes(json.dumps(message).encode())
            for data in sent:
                worker.process.tasks.send_bytes(data)
        except OSError:
            pass  # it died: its answers end, which `_collect` sees

    def _collect(self) -> None:
        answers = {worker.process.answers: worker for worker in self._team}
        for ready in wait([self._woken, *answers], TICK_SECONDS):
            if ready is self._woken:
                self._woken.recv_bytes()
                continue
            worker = answers[ready]  # type: ignore[index]  # typeshed: wait returns what was given
            try:
                answer = worker.process.answers.recv_bytes()
            except (EOFError, OSError):
                self._replace(worker, died=True)
                continue
            if not worker.ready:
                worker.ready, self._failed_starts = True, 0
                continue
            task, worker.task = worker.task, None
            assert task is not None
            self._store(task, [loaded_from(item) for item in json.loads(answer)])

    def _store(self, task: _Task, loaded: list[Loaded]) -> None:
        with self._lock:
            for place, item in zip(task.places, loaded, strict=True):
                task.batch.loaded[place] = item
            task.batch.missing -= len(loaded)
            if not task.batch.missing:
                self._lock.notify_all()

    def _watch(self) -> None:
        now = time.monotonic()
        for worker in self._team:
            progress = int(self._progress[worker.number])
            if progress != worker.seen or worker.idle:
                worker.seen, worker.moved = progress, now
            elif now - worker.moved > self.image_timeout:
                self._replace(worker, died=False)

    def _replace(self, worker: _Member, *, died: bool) -> None:
        """Start another worker for one that died or hangs, and deal with the images it had."""
        worker.process.end(gently=died)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts > MAX_FAILED_STARTS:
                self._stderr.seek(0)
                said = self._stderr.read()[-2000:].decode(errors="replace").strip() or "nothing"
                raise PipelineError(
                    f"loading processes do not start; the last said: {said}",
                    "`pipeline doctor` checks the installation.",
                )
        self._team[worker.number] = self._start(worker.number)
        task = worker.task
        if task is None:
            return
        if not task.alone:
            self._tasks.extendleft(_Task(task.batch, [place], alone=True) for place in reversed(task.places))
            return
        code = worker.process.exit_code
        reason = (
            f"the decoder crashed on it (signal {-code})"
            if died and code < 0
            else f"the decoder stopped on it (exit {code})"
            if died
            else f"decoding took longer than {self.image_timeout:g} s"
        )
        self._pixels[task.batch.slot, task.places[0]] = 0
        self._sizes[task.batch.slot, task.places[0]] = 0
        self._store(task, [Loaded(BAD, None, None, time.time_ns(), reason)])
