"""A team of actors on a Ray cluster: one a GPU, or one a node where there are none. Features never pass through Ray.

Actors write shards to the cache, which lies under the same path on every node; the driver is told numbers only. An
actor or node that dies costs the shard it was at; actors come up on nodes that join late; a driver that dies is
resumed by the same command. Ray's usage reports are off. Ray is for trusted networks only.
"""

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import PipelineError, UsageError, error_from_json, error_to_json, first_line
from pipeline.launch.dispatch import Event, Lost, Made, Ready
from pipeline.launch.member import Member, scout
from pipeline.launch.request import Request
from pipeline.launch.share import Share

GROW_SECONDS = 2.0
"""Between looks at which nodes there are."""
START_SECONDS = 120.0
"""For the first node to be there."""


@dataclass(frozen=True)
class Place:
    """Where an actor may be: a GPU of a node, or a whole node."""

    node: str
    name: str
    index: int
    count: int
    gpus: int


class Actor:
    """A member of the team, as Ray starts it. What goes wrong comes back as a value: Ray would wrap it."""

    def open(self, request: Mapping[str, Any], plans: Sequence[str], share: Mapping[str, Any]) -> dict[str, Any]:
        """Prepare."""
        try:
            self.member = Member(request, plans, Share(**share))
        except PipelineError as error:
            return {"error": error_to_json(error)}
        return {"ready": True}

    def make(self, number: int, ahead: int | None) -> dict[str, Any]:
        """Make a shard."""
        try:
            return {"made": self.member.make(number, ahead)}
        except PipelineError as error:
            return {"error": error_to_json(error)}

    def scout(self, request: Mapping[str, Any], plans: Sequence[str], share: Mapping[str, Any]) -> dict[str, Any]:
        """Choose engine and batch where the work will be done."""
        try:
            return {"recipes": scout(request, plans, Share(**share))}
        except PipelineError as error:
            return {"error": error_to_json(error)}


class Cluster:
    """A connection to Ray, with which teams are made."""

    def __init__(self, request: Request, address: str | None) -> None:
        """Connect to the cluster at `address`, or `auto` for the one of this machine; None starts one of its own.

        Raises:
            UsageError: if Ray is not installed, or there is no such cluster.
        """
        self.request = request.to_json()
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as error:
            hint = "pip install 'feature-pipeline[ray]'"
            raise UsageError("--on ray needs Ray, which is not installed", hint) from error
        self.ray: Any = ray
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            try:
                ray.init(
                    address=address,
                    include_dashboard=False if address is None else None,
                    log_to_driver=False,
                    configure_logging=False,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_own_paths())}},
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UsageError(
                    f"no Ray cluster at {address or 'this machine'}: {first_line(error)}",
                    "Start one with `ray start --head`, or drop --ray-address to use one of its own.",
                ) from error

    def places(self) -> list[Place]:
        """Return where actors may be, of nodes that live."""
        found = []
        for node in self.ray.nodes():
            if not node["Alive"]:
                continue
            gpus = int(node["Resources"].get("GPU", 0)) if self.request["device"] != "cpu" else 0
            count = gpus or 1
            name = str(node["NodeManagerHostname"])
            found += [Place(str(node["NodeID"]), name, index, count, int(gpus > 0)) for index in range(count)]
        if any(place.gpus for place in found):  # nodes without would compute something else than the recipe says
            found = [place for place in found if place.gpus]
        return found

    def actor(self, place: Place) -> Any:  # noqa: ANN401 - a handle of Ray's
        """Start an actor."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(place.node, soft=False)
        options = {"num_cpus": 0, "num_gpus": place.gpus, "max_restarts": 0, "scheduling_strategy": strategy}
        return self.ray.remote(**options)(Actor).remote()

    def choose(self, plans: Sequence[str]) -> list[dict[str, Any]]:
        """Return for each plan the recipe, and why, that suits where the work will be done."""
        place = self.first_place()
        actor = self.actor(place)
        try:
            answer = self.ray.get(actor.scout.remote(self.request, list(plans), vars(_share(place))))
        except self.ray.exceptions.RayError as error:
            raise PipelineError(f"a worker on {place.name} died as it tried engines: {first_line(error)}") from error
        finally:
            self.ray.kill(actor)
        if "error" in answer:
            raise error_from_json(answer["error"])
        recipes: list[dict[str, Any]] = answer["recipes"]
        return recipes

    def first_place(self) -> Place:
        """Wait for a node, and return a place on it."""
        until = time.monotonic() + START_SECONDS
        while not (places := self.places()):
            if time.monotonic() > until:
                raise PipelineError("the Ray cluster has no node", "`ray status` shows it.")
            time.sleep(GROW_SECONDS)
        return places[0]

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._connected_here:
            self.ray.shutdown()


@dataclass
class _Hand:
    """An actor and what it is at."""

    name: str
    place: Place
    actor: Any
    call: Any


class RayTeam:
    """An actor in each place; see `Team`."""

    def __init__(self, cluster: Cluster, plans: Sequence[str]) -> None:
        self.cluster, self.plans = cluster, list(plans)
        self._hands: dict[str, _Hand] = {}
        self._started = 0
        self._looked = float("-inf")
        cluster.first_place()

    def send(self, member: str, number: int, ahead: int | None) -> None:
        """See `Team`."""
        hand = self._hands[member]
        hand.call = hand.actor.make.remote(number, ahead)

    def events(self, seconds: float) -> list[Event]:
        """See `Team`."""
        self._grow()
        ray = self.cluster.ray
        calls = {hand.call: hand for hand in self._hands.values() if hand.call is not None}
        if not calls:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=seconds)
        return [self._result(calls[call]) for call in ready]

    def close(self) -> None:
        """See `Team`."""
        for hand in self._hands.values():
            self.cluster.ray.kill(hand.actor)
        self._hands.clear()

    def _result(self, hand: _Hand) -> Event:
        call, hand.call = hand.call, None
        try:
            answer = self.cluster.ray.get(call)
        except self.cluster.ray.exceptions.RayError as error:
            del self._hands[hand.name]
            self.cluster.ray.kill(hand.actor)  # which may only be out of reach
            self._looked = float("-inf")
            return Lost(hand.name, first_line(error))
        if "error" in answer:
            raise error_from_json(answer["error"])
        return Ready(hand.name) if "ready" in answer else Made(hand.name, answer["made"])

    def _grow(self) -> None:
        """Start actors in places that have none."""
        if time.monotonic() - self._looked < GROW_SECONDS:
            return
        self._looked = time.monotonic()
        taken = {(hand.place.node, hand.place.index) for hand in self._hands.values()}
        for place in self.cluster.places():
            if (place.node, place.index) in taken:
                continue
            self._started += 1
            name = f"worker {self._started} on {place.name}"
            actor = self.cluster.actor(place)
            call = actor.open.remote(self.cluster.request, self.plans, vars(_share(place)))
            self._hands[name] = _Hand(name, place, actor, call)


def driver_request(request: Request) -> Request:
    """Return what the driver itself opens: it may have neither the device nor a use for it."""
    return replace(request, device="auto", resize="workers")


def _share(place: Place) -> Share:
    # Ray shows an actor its own GPU alone, as the first.
    return Share(place.index, place.count, 0, place.count, "--on ray")


def _own_paths() -> list[str]:
    """Return where this process imports from, beside what is installed: backbones of the user's lie there."""
    installed = tuple({sys.prefix, sys.base_prefix, sys.exec_prefix})
    paths = [os.path.abspath(path) for path in sys.path if not path.endswith(".zip")]
    return list(dict.fromkeys(path for path in paths if not path.startswith(installed)))
