"""The end of an extraction as `extract` does it: from committed shards to an entry, and the work removed.

A module of its own, because the real thing imports more than the store needs; torch is not imported here either.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scenes import Scene
from works import CLASSES, FRUIT, PHOTOS, RECIPE, RELABELLED, SPACE, OnPromise, commit, extract, nothing

from pipeline.errors import CacheError
from pipeline.extraction.job import Job
from pipeline.extraction.publish import publish
from pipeline.extraction.recipe import Wishes
from pipeline.sources.source import Listing
from pipeline.store.entry import open_entry
from pipeline.store.verify import find_damage
from pipeline.store.work import WorkFolder


class WatchedFolder(WorkFolder):
    """Work that says when it is removed: whoever does that relies on the entry, which must be durable before."""

    promise: OnPromise = staticmethod(nothing)

    def discard(self) -> None:
        self.promise(("hold", ("leaving", self.plan), None))
        self.promise(("hold", ("entry", FRUIT.name), None))
        super().discard()


def job_of(root: Path, promise: OnPromise) -> Job:
    """Return a job for FRUIT; of its source and its backbone only the names are needed here."""
    table = FRUIT.table
    source = SimpleNamespace(spec=PHOTOS, folder=PHOTOS, describe=lambda: {"kind": "folder", "location": PHOTOS})
    work = WatchedFolder(root, FRUIT.plan)
    work.promise = promise
    return Job(
        root=root,
        source=source,
        listing=Listing(list(table.ids), table.labels, table.splits, CLASSES),
        backbone=SimpleNamespace(name="torchvision/tiny", weights="none"),
        space=SPACE,
        recipe=RECIPE,
        wishes=Wishes(test_fraction=0.0),
        work=work,
        digests=table.digests.copy(),
        known=np.ones(len(table), bool),
    )


def finish(root: Path, promise: OnPromise) -> None:
    """Commit what is missing and publish."""
    job = job_of(root, promise)
    try:
        if not find_damage(open_entry(root / FRUIT.name)) and job.work.pinned() is None:
            return
    except CacheError:
        pass
    job.work.pin(SPACE, RECIPE, {"source": PHOTOS})
    promise(("hold", ("plan", FRUIT.plan), RECIPE))
    for number in range(job.shards):
        if job.committed(number) is None:
            commit(job.work, FRUIT, number, {})
            promise(("hold", ("commit", FRUIT.plan, number), None))
    publish(job, skip_bad=True, command="")


SCENE = Scene("finished by extract", lambda root: extract(root, RELABELLED), finish, whole=(FRUIT, RELABELLED))
