"""A connection to a Ray cluster: which nodes it has, and actors on them. Ray is for trusted networks only."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, UsageError, error_from_json, first_line
from pipeline.launch.actor import Actor
from pipeline.launch.request import Request
from pipeline.launch.share import Share

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between looks at which nodes there are."""
NOTE_SECONDS = 30.0
"""Between notes that nothing can be done for want of a node."""
CONNECT_SECONDS = 10.0
SCOUTS = 3
"""Workers that may die while they choose engine and batch."""
STORE_BYTES = 80 * 2**20
"""Of the object store of a cluster of one's own, which holds no features: about the least that Ray takes."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # where else it reports that reports are off
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
}
"""No reports of usage, and nothing on stdout: Ray prints there which workers died, coloured, whatever it is told of
logs. Read when Ray is imported."""


@dataclass(frozen=True)
class Place:
    """Where an actor may be: a GPU of a node, or a whole node."""

    node: str
    name: str
    index: int
    count: int
    gpus: int

    @property
    def share(self) -> Share:
        """What the actor there is told. Ray shows it its own GPU alone, as the first."""
        return Share(self.index, self.count, 0, self.count, "--on ray")


class Cluster:
    """A connection to Ray, with which teams are made."""

    def __init__(self, request: Request, address: str | None) -> None:
        """Connect to the cluster at `address`, or `auto` for the one of this machine.

        With None it is the one that RAY_ADDRESS names, or else one that is started here and ends with `close`.

        Raises:
            UsageError: if Ray is not installed, or there is no such cluster.
        """
        self.request, self.folder = request.to_json(), os.getcwd()
        self.ray: Any = _import_ray()
        self._waiting: dict[Place, Any] = {}
        self._connected_here = not self.ray.is_initialized()
        if self._connected_here:
            if address in (None, "auto"):
                address = os.environ.get("RAY_ADDRESS") or address
            # Of None Ray would make whatever cluster somebody has started on this machine.
            _connect(self.ray, address or "local")

    def places(self, device: str) -> list[Place]:
        """Return where actors may be, of nodes that live.

        Args:
            device: `cuda`: a place a GPU; `auto`: the same if there is any; else a place a node.
        """
        nodes = [node for node in self.ray.nodes() if node["Alive"]]
        by_gpu = [place for node in nodes for place in _places(node, int(node["Resources"].get("GPU", 0)), 1)]
        if device == "cuda" or (device == "auto" and by_gpu):
            return by_gpu
        # A node of 0 CPUs is how Ray is told to keep work off it, the head most often.
        return [place for node in nodes if node["Resources"].get("CPU", 0) >= 1 for place in _places(node, 1, 0)]

    def actor(self, place: Place) -> Any:  # noqa: ANN401 - a handle of Ray's
        """Start an actor. It waits where it may not run at once: until others give up a GPU, or a CPU."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": 0 if place.gpus else 1,
            "num_gpus": place.gpus,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False),
            "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join([*_own_paths(), "${PYTHONPATH}"])}},
        }
        return self.ray.remote(**options)(Actor).remote()

    def arguments(self, place: Place, plans: Sequence[str]) -> tuple[str, dict[str, Any], list[str], dict[str, Any]]:
        """Return what an actor's `scout` and `open` are given."""
        return self.folder, self.request, list(plans), dict(vars(place.share))

    def choose(self, plans: Sequence[str]) -> list[dict[str, Any]]:
        """Return for each plan the recipe, and why, that suits where the work will be done."""
        for left in reversed(range(SCOUTS)):
            for place in self._some_places(self.request["device"]):
                if place not in self._waiting:
                    self._waiting[place] = self.actor(place)
            place, actor = next(iter(self._waiting.items()))
            try:
                answer = self._wait(actor.scout.remote(*self.arguments(place, plans)), place)
                break
            except self.ray.exceptions.RayError as error:  # a node may die at any time; the next turn is another's
                self.ray.kill(self._waiting.pop(place))
                if not left:
                    why = self.why(error)
                    raise PipelineError(
                        f"a worker on {place.name} could not choose an engine: {why}",
                        "Its log is under /tmp/ray/session_latest/logs there. All nodes and this command need the same "
                        "RAY_AUTH_MODE and token.",
                    ) from error
                time.sleep(LOOK_SECONDS)
        if "error" in answer:
            raise error_from_json(answer["error"])
        recipes: list[dict[str, Any]] = answer["recipes"]
        return recipes

    def take_waiting(self) -> dict[Place, Any]:
        """Return the actors that were started while one of them chose the recipe: they have imported everything."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    def _wait(self, call: Any, place: Place) -> dict[str, Any]:  # noqa: ANN401 - a handle of Ray's
        while not self.ray.wait([call], timeout=NOTE_SECONDS)[0]:
            logger.warning("still waiting for a worker on %s; `ray status` shows who is at what", place.name)
        answer: dict[str, Any] = self.ray.get(call)
        return answer

    def _some_places(self, device: str) -> list[Place]:
        """Wait for a node, and return the places there are."""
        noted = time.monotonic()
        while not (places := self.places(device)):
            if time.monotonic() - noted > NOTE_SECONDS:
                noted = time.monotonic()
                logger.warning("the Ray cluster has no node %s; waiting for one", needed(device))
            time.sleep(LOOK_SECONDS)
        return places

    def why(self, error: Exception) -> str:
        """Return what one of Ray's errors says, for people: the end of a worker's traceback, else its beginning."""
        first = first_line(error)
        raised = isinstance(error, self.ray.exceptions.RayTaskError) or "creation task" in first
        return str(error).strip().splitlines()[-1] if raised else first

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        for actor in self._waiting.values():
            self.ray.kill(actor)
        if self._connected_here:
            self.ray.shutdown()


def needed(device: str) -> str:
    """Return what a node must have, for people."""
    return "with a GPU" if device == "cuda" else "with a CPU"


def _places(node: Mapping[str, Any], count: int, gpus: int) -> list[Place]:
    return [Place(node["NodeID"], node["NodeManagerHostname"], index, count, gpus) for index in range(count)]


def _import_ray() -> Any:  # noqa: ANN401 - a module without types
    os.environ.update(QUIET)
    try:
        import ray
    except ImportError as error:
        raise UsageError("--on ray needs Ray, which is not installed", "pip install 'feature-pipeline[ray]'") from error
    return ray


def _connect(ray: Any, address: str) -> None:  # noqa: ANN401
    if "://" in address:
        raise UsageError(
            f"--ray-address {address}: a Ray Client cannot lead workers",
            "Run the command on a node of the cluster, with --ray-address auto.",
        )
    try:
        _check_answers(address)
        own = {"include_dashboard": False, "object_store_memory": STORE_BYTES} if address == "local" else {}
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if address == "local":
            raise UsageError(
                f"Ray does not start here: {first_line(error)}", "`ray start --head` may tell more."
            ) from error
        raise UsageError(
            f"no Ray cluster at {address!r}: {first_line(error)}",
            "Run this on a node of the cluster. `ray start --head` starts one; without --ray-address it has its own.",
        ) from error


def _check_answers(address: str) -> None:
    """Refuse an address where nobody listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does on SIGTERM, which Ray would change."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _own_paths() -> list[str]:
    """Return where this process imports from, beside what is installed: backbones of the user's lie there."""
    installed = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    paths = dict.fromkeys(os.path.abspath(path) for path in sys.path if not path.endswith(".zip"))
    return [path for path in paths if not any(Path(path).is_relative_to(prefix) for prefix in installed)]
