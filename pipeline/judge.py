"""A trained head as a judge of what rounding features does to predictions."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.errors import DataError
from pipeline.heads.head import Head
from pipeline.heads.reading import read_head
from pipeline.runs import list_runs
from pipeline.store.key import FeatureSpace


@dataclass(frozen=True)
class HeadJudge:
    """The head of a run."""

    name: str
    head: Head

    def predictions(self, features: np.ndarray) -> np.ndarray:
        """Return predicted classes (n,) int64 of features (n, d)."""
        import torch

        return self.head.logits(torch.from_numpy(np.ascontiguousarray(features))).argmax(dim=1).numpy()


def newest_judge(runs_dir: Path, space: FeatureSpace) -> HeadJudge | None:
    """Return the newest head trained on this feature space, however its rows are stored; None without any."""
    stored = {replace(space, store_dtype=dtype).sha256 for dtype in ("float32", "float16")}
    for run in reversed(list_runs(runs_dir)):
        if str(run.body.get("space_sha256")) in stored:
            try:
                return HeadJudge(run.id, read_head(run.path))
            except DataError:
                continue
    return None
