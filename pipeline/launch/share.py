"""Which shards a worker begins with, and how it is told: `--worker I/N`, or what launchers put in the environment."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np

from pipeline.errors import UsageError

Numbers = TypeVar("Numbers", range, list[int])

WORKER = "--worker"
HOW = "A worker is I/N, counted from 0: --worker 0/4 to --worker 3/4."


@dataclass(frozen=True)
class Share:
    """A worker's place among `count`. All of them finish every extraction they begin, whoever drops out."""

    index: int = 0
    count: int = 1
    local_index: int = 0
    """The same among the workers of its machine, as far as a launcher tells."""
    local_count: int = 1
    told_by: str = ""
    """Where this comes from: `--worker`, `RANK`, …; empty for a process alone."""

    @property
    def name(self) -> str:
        """What it is called."""
        return f"worker {self.index} of {self.count}"

    def to_json(self) -> dict[str, int] | None:
        """Return its place among the workers; None of a process alone."""
        return {"index": self.index, "count": self.count} if self.count > 1 else None

    @property
    def has_shared_output(self) -> bool:
        """Whether what all workers print comes to the same place, even if that is no terminal."""
        return self.told_by in {rank for rank, *_ in LAUNCHERS}

    @classmethod
    def of(cls, worker: str | None) -> Self:
        """Read `I/N`, or without one what a launcher says.

        Raises:
            UsageError: if it is neither.
        """
        return cls.from_environment() if worker is None else cls.parse(worker)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `I/N`.

        Raises:
            UsageError: if that is none.
        """
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip(), re.ASCII)
        if match is None or not int(match[1]) < int(match[2]):
            raise UsageError(f"worker {text!r}", HOW)
        return cls(int(match[1]), int(match[2]), told_by=WORKER)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return what torchrun, a Slurm array, srun or mpirun say; alone where none of them does."""
        array = _number(environment, "SLURM_ARRAY_TASK_COUNT")
        if array > 1:
            first, step = _number(environment, "SLURM_ARRAY_TASK_MIN"), _number(environment, "SLURM_ARRAY_TASK_STEP")
            index = (_number(environment, "SLURM_ARRAY_TASK_ID") - first) // max(1, step)
            if 0 <= index < array:
                inner = cls._launched(environment, ("SLURM_PROCID",))  # srun with several tasks in each of the array
                index, count = index * inner.count + inner.index, array * inner.count
                return replace(inner, index=index, count=count, told_by="SLURM_ARRAY_TASK_ID")
        return cls._launched(environment)

    @classmethod
    def _launched(cls, environment: Mapping[str, str], known: Sequence[str] = ()) -> Self:
        for rank, size, local_rank, local_size in LAUNCHERS:
            index, count = _number(environment, rank, -1), _number(environment, size)
            if rank in (known or (rank,)) and count > 1 and 0 <= index < count:
                here, there = _number(environment, local_rank), _number(environment, local_size)
                here = here if 0 <= here < there else 0
                return cls(index, count, here, max(1, there), told_by=rank)
        return cls()

    def begins_with(self, numbers: Numbers) -> Numbers:
        """Return the run of `numbers` that is this worker's: all of `count` workers together have each once."""
        first, end = (len(numbers) * place // self.count for place in (self.index, self.index + 1))
        return numbers[first:end]

    def helps_with(self, left: np.ndarray | Sequence[int], shards: int) -> Iterator[int]:
        """Yield what is `left` (n,) int64, in order, of so many shards in the order in which to help.

        First comes what has the most left before it in its run: the end of the fullest run, whose owner comes from
        its beginning. Of runs that are as full workers of different index begin with different ones, so that they
        seldom want the same.
        """
        left = np.asarray(left)
        owners = ((left + 1) * self.count - 1) // max(1, shards)
        before = np.arange(len(left)) - np.searchsorted(owners, owners)
        order = np.lexsort(((owners - self.index) % self.count, -before))
        return map(int, left[order])


ALONE = Share()
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)
"""Variables of torchrun (and Kubernetes jobs that set the same), of srun, of Open MPI: rank and size, over all
machines and on this one. Slurm's are those of a job step: within a plain allocation a process is alone."""


def _number(environment: Mapping[str, str], name: str, otherwise: int = 0) -> int:
    """Return an integer in the environment; Slurm writes `2(x3)` for two tasks on each of three nodes."""
    match = re.match(r"[0-9]+", environment.get(name, ""), re.ASCII)
    return int(match[0]) if match else otherwise
