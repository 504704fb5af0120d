"""A team of actors on a Ray cluster: one a GPU, or one a node where there are none. Features never pass through Ray.

Actors write shards to the cache, which lies under the same path on every node; the driver is told numbers only. An
actor or node that dies costs the shard it was at; actors come up on nodes that join late; a driver that dies is
resumed by the same command.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import error_from_json
from pipeline.launch.cluster import LOOK_SECONDS, NOTE_SECONDS, Cluster, Place, needed
from pipeline.launch.dispatch import Event, Lost, Made, Ready
from pipeline.launch.request import Request

logger = logging.getLogger(__name__)

REST_SECONDS = 60.0
"""At most, before it is tried again to start a worker where that failed."""

Spot = tuple[str, int]


@dataclass
class _Hand:
    """An actor and what it is at."""

    name: str
    place: Place
    actor: Any
    call: Any
    ready: bool = False

    @property
    def spot(self) -> Spot:
        """What tells its place from others."""
        return self.place.node, self.place.index


class RayTeam:
    """An actor in each place; see `Team`."""

    def __init__(self, cluster: Cluster, plans: Sequence[str], device: str) -> None:
        self.cluster, self.plans, self.device = cluster, list(plans), device
        self._hands: dict[str, _Hand] = {}
        self._started = 0
        self._looked = float("-inf")
        self._failed: dict[Spot, tuple[int, float]] = {}
        """How often in a row no worker could be started there, and until when it is left alone."""
        self._ready = time.monotonic()
        """When there was a worker that was ready, or a note that there is none."""
        places = cluster.places(device)
        for place, actor in cluster.take_waiting().items():
            if place in places:
                self._open(place, actor)
            else:
                cluster.ray.kill(actor)

    def send(self, member: str, number: int, ahead: int | None, lost: Sequence[str]) -> None:
        """See `Team`."""
        hand = self._hands[member]
        hand.call = hand.actor.make.remote(number, ahead, list(lost))

    def events(self, seconds: float) -> list[Event]:
        """See `Team`."""
        self._grow()
        self._note()
        calls = {hand.call: hand for hand in self._hands.values() if hand.call is not None}
        if not calls:
            time.sleep(seconds)
            return []
        wait = self.cluster.ray.wait
        found, others = wait(list(calls), num_returns=1, timeout=seconds)
        if found and others:
            found += wait(others, num_returns=len(others), timeout=0)[0]
        return [event for call in found for event in self._result(calls[call])]

    def close(self) -> None:
        """See `Team`."""
        for hand in self._hands.values():
            self.cluster.ray.kill(hand.actor)
        self._hands.clear()

    def _result(self, hand: _Hand) -> list[Event]:
        call, hand.call = hand.call, None
        try:
            answer = self.cluster.ray.get(call)
        except self.cluster.ray.exceptions.RayError as error:
            return self._lose(hand, self.cluster.why(error))
        if "error" in answer:
            raised = error_from_json(answer["error"])
            if hand.ready or not any(other.ready for other in self._hands.values()):
                raise raised
            return self._lose(hand, raised.message)  # that node is not as the others are, which go on
        if "ready" in answer:
            hand.ready = True
            self._failed.pop(hand.spot, None)
            return [Ready(hand.name, answer["ready"])]
        return [Made(hand.name, answer["made"])]

    def _lose(self, hand: _Hand, why: str) -> list[Event]:
        del self._hands[hand.name]
        self.cluster.ray.kill(hand.actor)  # which may only be out of reach
        if hand.ready:
            self._looked = float("-inf")
            return [Lost(hand.name, why)]
        times = self._failed.get(hand.spot, (0, 0.0))[0] + 1
        self._failed[hand.spot] = times, time.monotonic() + min(REST_SECONDS, LOOK_SECONDS * 2**times)
        if self._hands:  # of which one may start: several nodes that die at once are no fault of the installation
            logger.warning("%s did not start (%s)", hand.name, why)
            return []
        return [Lost(hand.name, why)]

    def _grow(self) -> None:
        """Start actors in places that have none."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        taken = {hand.spot for hand in self._hands.values()}
        resting = {spot for spot, (_, until) in self._failed.items() if now < until}
        for place in self.cluster.places(self.device):
            if (place.node, place.index) not in taken | resting:
                self._open(place, self.cluster.actor(place))

    def _open(self, place: Place, actor: Any) -> None:  # noqa: ANN401 - a handle of Ray's
        self._started += 1
        name = f"worker {self._started} on {place.name}"
        self._hands[name] = _Hand(name, place, actor, actor.open.remote(*self.cluster.arguments(place, self.plans)))

    def _note(self) -> None:
        """Say from time to time that there is no worker, and what is waited for."""
        now = time.monotonic()
        if any(hand.ready for hand in self._hands.values()):
            self._ready = now
        if now - self._ready < NOTE_SECONDS:
            return
        self._ready = now
        if self._hands:
            where = ", ".join(sorted({hand.place.name for hand in self._hands.values()}))
            logger.warning("no worker is ready yet on %s; `ray status` shows who holds its CPUs and GPUs", where)
        else:
            logger.warning("the Ray cluster has no node %s; waiting for one", needed(self.device))


def driver_request(request: Request) -> Request:
    """Return what the driver itself opens: it may have neither the device nor a use for it."""
    return replace(request, device="auto", resize="workers")
