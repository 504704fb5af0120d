"""What an actor on a Ray cluster does. What goes wrong comes back as a value: Ray would wrap it."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.errors import CacheError, PipelineError, error_to_json
from pipeline.launch.member import Member, scout
from pipeline.launch.share import Share


class Actor:
    """A member of the team, as Ray starts it."""

    def __init__(self) -> None:
        import torch  # noqa: F401 - takes the longest; so it is done while another actor chooses the recipe

    def scout(
        self, folder: str, request: Mapping[str, Any], plans: Sequence[str], share: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Choose engine and batch where the work will be done."""

        def choose() -> dict[str, Any]:
            _enter(folder)
            return {"recipes": scout(request, plans, Share(**share))}

        return _answer(choose)

    def open(
        self, folder: str, request: Mapping[str, Any], plans: Sequence[str], share: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Prepare."""

        def prepare() -> dict[str, Any]:
            _enter(folder)
            self.member = Member(request, plans, Share(**share))
            return {"ready": self.member.token}

        return _answer(prepare)

    def make(self, number: int, ahead: int | None, lost: Sequence[str]) -> dict[str, Any]:
        """Make a shard."""
        return _answer(lambda: {"made": self.member.make(number, ahead, lost)})


def _answer(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except PipelineError as error:
        return {"error": error_to_json(error)}


def _enter(folder: str) -> None:
    """Work where the driver works: paths of source, cache, weights and backbone may be relative to it."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise CacheError(
            f"the driver's working directory {folder} is not to be had here: {error.strerror}",
            "Start the command in a folder that lies under the same path on every node, as source and cache must.",
        ) from error
