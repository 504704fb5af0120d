"""Several backbones on one source: trained alike, one chosen on validation rows, that one measured once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backbones.registry import find_family
from pipeline.errors import DataError, UsageError
from pipeline.evaluation import EvaluateResult, evaluate
from pipeline.heads.settings import HeadSettings
from pipeline.launch.extract import extract
from pipeline.launch.result import ExtractResult
from pipeline.progress import OnProgress, ignore
from pipeline.training import TrainResult, train_head


@dataclass(frozen=True)
class TriedBackbone:
    """A backbone's features and the head on them."""

    backbone: str
    extracted: ExtractResult
    trained: TrainResult

    @property
    def val_accuracy(self) -> float:
        """On the same validation rows for all."""
        assert self.trained.metrics is not None
        return float(self.trained.metrics["accuracy"])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "backbone": self.backbone,
            "cache": self.extracted.cache,
            "run": self.trained.run,
            "dim": self.extracted.dim,
            "computed": self.extracted.computed,
            "extraction_seconds": self.extracted.seconds,
            "training_seconds": self.trained.seconds,
            "metrics": self.trained.metrics,
        }


@dataclass(frozen=True)
class BackbonesResult:
    """All backbones, best on validation rows first, and the test figures of the first."""

    candidates: tuple[TriedBackbone, ...]
    evaluation: EvaluateResult

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "chosen_by": "accuracy on validation rows",
            "backbones": [one.to_json() for one in self.candidates],
            "evaluation": self.evaluation.to_json(),
        }


def compare_backbones(
    source: Any,  # noqa: ANN401 - a path or name, or any data set
    backbones: Sequence[str],
    *,
    settings: HeadSettings | None = None,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    device: str = "auto",
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
    on_backbone: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress = ignore,
    **options: Any,  # noqa: ANN401 - of `extract`
) -> BackbonesResult:
    """Extract a source with each backbone, train a head on each, and measure the best on test rows, once.

    Validation rows are drawn by image digest, so that all heads are chosen by the same images. What is in the cache
    already is not computed again, so that an interrupted comparison goes on where it stopped.

    Args:
        source: as for `extract`.
        backbones: names, at least two.
        settings: of all heads; by default logistic regression to its optimum on standardised features, which no
            learning rate favours, as one rate would favour some feature width.
        val_fraction: share of train rows held out where the source names no validation split.
        split_seed: of that draw.
        device: where backbones run and heads are trained.
        cache_dir: the cache root.
        runs_dir: where runs are kept.
        on_backbone: called with each name before its work.
        on_progress: called after every batch of an extraction.
        options: further ones of `extract`, the same for all backbones.

    Raises:
        UsageError: if there are not two backbones, or no validation rows; and as `extract`, `train_head`, `evaluate`.
    """
    names = list(dict.fromkeys(backbones))
    if len(names) < 2:
        raise UsageError(f"comparing takes two backbones, not {len(names)}", "Like: --backbones resnet18,resnet50")
    for name in names:  # a slip in the last name must not wait for the others' extraction
        find_family(name)
    settings = settings or HeadSettings(solver="exact", standardize=True)
    where: dict[str, Any] = {"device": device, "cache_dir": cache_dir}
    made = []
    for name in names:
        on_backbone(name)
        extracted = extract(source, backbone=name, on_progress=on_progress, **where, **options)
        trained = train_head(
            extracted.path,
            settings=settings,
            val_fraction=val_fraction,
            split_seed=split_seed,
            runs_dir=runs_dir,
            **where,
        )
        if trained.metrics is None:
            raise DataError("backbones are chosen on validation rows: there are none", "Give a val_fraction above 0.")
        made.append(TriedBackbone(name, extracted, trained))
    ranked = sorted(made, key=lambda one: -one.val_accuracy)
    return BackbonesResult(
        tuple(ranked), evaluate(ranked[0].trained.path, cache_dir=cache_dir, runs_dir=runs_dir, device=device)
    )
