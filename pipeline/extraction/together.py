"""Several layers in one pass: images are read once and the network is run once for the jobs of all layers.

Each layer is a job of its own, with its own space, work and entry, and `extract_shard` makes its shards as it does
alone. What the first job of a shard computes for the others is kept until they have made theirs; what is not there,
because the first found its rows in the cache or was killed before, they compute themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones.preprocess import Preprocess
from pipeline.extraction.deviation import CheckedEngine
from pipeline.store.key import Recipe

if TYPE_CHECKING:
    from pipeline.extraction.job import Job


@dataclass
class SharedPass:
    """What one job computed of the shard at hand, for the jobs after it."""

    waiting: "list[Job]" = field(default_factory=list)
    """The jobs that the shard is missing of, in their order; the first leads."""
    features: dict[bytes, tuple[dict[str, np.ndarray], int]] = field(default_factory=dict)
    """By image digest: the batch's features (b, *row_shape) float32 by layer and pool, and the place in it."""
    bad: dict[int, str] = field(default_factory=dict)
    """Why the image of a listing row cannot be used."""
    stats: list[np.ndarray] = field(default_factory=list)
    """Stat fields of the files that were read."""
    engines: dict[tuple[str, ...], CheckedEngine] = field(default_factory=dict)

    def begin(self, waiting: "list[Job]") -> None:
        """Turn to the next shard."""
        self.waiting = waiting
        self.features.clear()
        self.bad.clear()
        self.stats.clear()

    def forward(self, job: "Job", pixels: np.ndarray, digests: Sequence[tuple[int, bytes]]) -> np.ndarray:
        """Return a job's features of a batch; keep those of the jobs behind it, by (place, digest)."""
        places = [place for place, one in enumerate(self.waiting) if one is job]
        jobs = self.waiting[places[0] :] if places else []
        if len(jobs) < 2:
            return job.features(pixels)
        keys = tuple(key_of(one) for one in jobs)
        if keys not in self.engines:
            self.engines[keys] = _joint_engine(jobs)
        engine = self.engines[keys]
        found = dict(zip(keys, engine.all_features(pixels), strict=True))
        for one, deviation in zip(jobs, engine.deviations, strict=False):  # none of the reference engine
            one.deviation = deviation
        mine = found.pop(keys[0])
        for place, digest in digests:
            self.features[digest] = found, place
        return mine

    def row(self, job: "Job", digest: bytes) -> np.ndarray | None:
        """Return a row of a job's features (*row_shape) float32 if it was computed."""
        found, place = self.features.get(digest, ({}, 0))
        batch = found.get(key_of(job))
        return None if batch is None else np.asarray(batch[place])


def key_of(job: "Job") -> str:
    """Return what tells the jobs of a pass apart."""
    return f"{job.space.layer} {job.space.pool}"


def share(jobs: "Sequence[Job]") -> "list[list[Job]]":
    """Let jobs of one recipe, whose shards have the same rows, share a pass over one view; return them so grouped."""
    groups: dict[tuple[Recipe, Preprocess], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.recipe, job.backbone.preprocess), []).append(job)
    for group in groups.values():
        shared = SharedPass()
        for job in group:
            job.shared = shared if len(group) > 1 else None
    return list(groups.values())


def align(jobs: "Sequence[Job]") -> None:
    """Give jobs that are not begun the shard rows of one that is, else the smallest that any would have alone."""
    pinned = [job.recipe.shard_rows for job in jobs if job.work.pinned() is not None]
    rows = pinned[0] if pinned else min(job.recipe.shard_rows for job in jobs)
    for job in jobs:
        if job.work.pinned() is None:
            job.recipe = replace(job.recipe, shard_rows=rows)


def _joint_engine(jobs: "list[Job]") -> CheckedEngine:
    from pipeline.backbones.backbone import together

    first = jobs[0]
    return first.pinned_engine(together([job.backbone for job in jobs]), " ".join(job.graphs for job in jobs))
