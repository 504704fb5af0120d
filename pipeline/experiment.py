"""The verb `run`: extract, train-head (or sweep) and evaluate as one experiment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.evaluation import EvaluateResult, evaluate
from pipeline.head_arguments import sweep_arguments, train_arguments
from pipeline.heads.minibatch import Epoch
from pipeline.launch.extract import extract
from pipeline.launch.plan import Plan
from pipeline.launch.result import ExtractResult
from pipeline.progress import OnProgress, ignore
from pipeline.sweeping import SweepPlan, SweepResult, sweep
from pipeline.training import TrainPlan, TrainResult, train_head


@dataclass(frozen=True)
class ExperimentListener:
    """Callbacks for whoever shows an experiment."""

    on_plan: Callable[[Plan], None] | None = None
    on_progress: OnProgress = ignore
    on_extracted: Callable[[ExtractResult], None] = lambda _: None
    on_train_plan: Callable[[TrainPlan], None] | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    on_trained: Callable[[TrainResult], None] = lambda _: None
    on_sweep_plan: Callable[[SweepPlan], None] | None = None
    on_trials: OnProgress = ignore
    """With the heads of a sweep that are done."""
    on_swept: Callable[[SweepResult], None] = lambda _: None
    """In the place of `on_trained`."""
    on_evaluated: Callable[[EvaluateResult], None] = lambda _: None


@dataclass(frozen=True)
class ExperimentResult:
    """The three results."""

    extract: ExtractResult
    train_head: TrainResult
    """With a sweep the run that it chose."""
    evaluate: EvaluateResult
    sweep: SweepResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields, a section a verb."""
        return {
            "extract": self.extract.to_json(),
            "train_head": self.train_head.to_json(),
            "evaluate": self.evaluate.to_json(),
            **({} if self.sweep is None else {"sweep": self.sweep.to_json()}),
        }


def run_experiment(config: Config, listener: ExperimentListener | None = None) -> ExperimentResult:
    """Run the three verbs with one configuration; where it has a [sweep], that trains heads and chooses one.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    listener = listener or ExperimentListener()
    # Wrong values are refused before stage 1 starts.
    stage2 = train_arguments(config) if config.sweep is None else sweep_arguments(config)
    stage1 = config.extract.model_dump()
    for key in ("mean", "std"):
        value = stage1[key]
        stage1[key] = (float(value),) if isinstance(value, float | int) else value
    common: dict[str, Any] = {"device": config.device, "cache_dir": config.cache_dir}
    extracted = extract(
        **stage1,
        **common,
        data_root=config.data_root,
        on_plan=listener.on_plan,
        on_progress=listener.on_progress,
    )
    listener.on_extracted(extracted)
    stage2 |= {**common, "runs_dir": config.runs_dir}
    if config.sweep is None:
        swept = None
        trained = train_head(extracted.cache, **stage2, on_plan=listener.on_train_plan, on_epoch=listener.on_epoch)
        listener.on_trained(trained)
    else:
        swept = sweep(extracted.cache, **stage2, on_plan=listener.on_sweep_plan, on_progress=listener.on_trials)
        trained = swept.run
        listener.on_swept(swept)
    evaluated = evaluate(
        trained.path,
        split=config.evaluate.split,
        end_to_end=config.evaluate.end_to_end,
        data_root=config.data_root,
        follow_symlinks=config.extract.follow_symlinks,
        on_progress=listener.on_progress,
        **common,
    )
    listener.on_evaluated(evaluated)
    return ExperimentResult(extracted, trained, evaluated, swept)
