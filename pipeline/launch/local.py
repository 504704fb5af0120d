"""A team of processes on this machine, one a device."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import IO, Any

from pipeline.errors import PipelineError, UsageError, error_from_json
from pipeline.launch.dispatch import Event, Lost, Made, Ready
from pipeline.launch.request import Request
from pipeline.launch.share import Share

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])['path']; from pipeline.launch.process import main; main()"
)
"""With the parent's own import path; not `multiprocessing`, which would run the user's main script again."""
SAID_BYTES = 2000
GRACE_SECONDS = 3.0
"""For a process to give up the shard it is at, so that its end is not taken for a fault of the images."""


def parse_devices(text: str) -> tuple[str, ...]:
    """Read `0,1,2,3` (CUDA devices), `cuda:0,cuda:1` or `cpu,cpu`.

    Raises:
        UsageError: if there is none among them.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"devices {text!r}", "Name them: --devices 0,1,2,3 for four GPUs, or cpu,cpu.")
    return tuple(f"cuda:{name}" if name.isdecimal() else name for name in names)


@dataclass
class _Process:
    name: str
    place: int
    process: "subprocess.Popen[bytes]"
    orders: Connection
    answers: Connection
    stderr: IO[bytes]
    busy: bool = True
    """Whether it is making something, or starting."""

    def end(self) -> str:
        """Kill it if it still runs; return how it ended and what it said last, for people."""
        self.orders.close()
        self.answers.close()
        self.process.kill()
        code = self.process.wait()
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - SAID_BYTES))
        said = self.stderr.read().decode(errors="replace").strip().splitlines()
        self.stderr.close()
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        return f"{how}: {said[-1]}" if said else how


class LocalTeam:
    """A process for each device; one that dies is started again."""

    def __init__(self, request: Request, plans: Sequence[str], devices: Sequence[str]) -> None:
        self._request, self._plans, self._devices = request.to_json(), list(plans), list(devices)
        self._started = 0
        self._members: dict[str, _Process] = {}
        for place in range(len(self._devices)):
            self._start(place)

    def send(self, member: str, number: int, ahead: int | None, lost: Sequence[str]) -> None:
        """See `Team`."""
        self._members[member].busy = True
        with contextlib.suppress(OSError):  # it has died: its answers end, which `events` finds
            self._members[member].orders.send_bytes(json.dumps([number, ahead, lost]).encode())

    def events(self, seconds: float) -> list[Event]:
        """See `Team`."""
        by_pipe = {member.answers: member for member in self._members.values()}
        found: list[Event] = []
        for pipe in wait(list(by_pipe), seconds):
            member = by_pipe[pipe]  # type: ignore[index]
            try:
                answer = json.loads(member.answers.recv_bytes())
            except (EOFError, OSError):
                found.append(self._replace(member))
                continue
            member.busy = False
            if "error" in answer:
                raise error_from_json(answer["error"])
            ready = answer.get("ready")
            found.append(Made(member.name, answer["made"]) if ready is None else Ready(member.name, ready))
        return found

    def close(self) -> None:
        """See `Team`."""
        busy = [member for member in self._members.values() if member.busy]
        for member in busy:
            member.process.terminate()
        limit = time.monotonic() + GRACE_SECONDS
        for member in busy:
            with contextlib.suppress(subprocess.TimeoutExpired):
                member.process.wait(max(0.0, limit - time.monotonic()))
        for member in self._members.values():
            member.end()
        self._members.clear()

    def _replace(self, member: _Process) -> Lost:
        del self._members[member.name]
        why = member.end()
        self._start(member.place)
        return Lost(member.name, why)

    def _start(self, place: int) -> None:
        self._started += 1
        device, count = self._devices[place], len(self._devices)
        name = f"worker {self._started} on {device}"
        share = Share(place, count, place, count, "--devices")
        self._members[name] = _launch(name, {**self._request, "device": device}, self._plans, share)


def _launch(name: str, request: Mapping[str, Any], plans: Sequence[str], share: Share) -> _Process:
    order_read, order_write = os.pipe()
    answer_read, answer_write = os.pipe()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
    setup = {
        "path": sys.path,
        "request": request,
        "plans": list(plans),
        "share": vars(share),
        "orders": order_read,
        "answers": answer_write,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", BOOT, json.dumps(setup)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(order_read, answer_write),
        )
    except OSError as error:
        raise PipelineError(f"no further process can be started: {error}", "Is the machine full?") from error
    os.close(order_read)
    os.close(answer_write)
    orders = Connection(order_write, readable=False)
    return _Process(name, share.index, process, orders, Connection(answer_read, writable=False), stderr)
