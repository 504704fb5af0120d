"""The verb `run`: extract, train-head and evaluate as one experiment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.evaluation import EvaluateResult, evaluate
from pipeline.heads.minibatch import Epoch
from pipeline.heads.settings import HeadSettings
from pipeline.launch.extract import extract
from pipeline.launch.plan import Plan
from pipeline.launch.result import ExtractResult
from pipeline.progress import OnProgress, ignore
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
    on_evaluated: Callable[[EvaluateResult], None] = lambda _: None


@dataclass(frozen=True)
class ExperimentResult:
    """The three results."""

    extract: ExtractResult
    train_head: TrainResult
    evaluate: EvaluateResult

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields, a section a verb."""
        return {
            "extract": self.extract.to_json(),
            "train_head": self.train_head.to_json(),
            "evaluate": self.evaluate.to_json(),
        }


def run_experiment(config: Config, listener: ExperimentListener | None = None) -> ExperimentResult:
    """Run the three verbs with one configuration.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    listener = listener or ExperimentListener()
    settings, selection = _head_settings(config)
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
    trained = train_head(
        extracted.cache,
        settings=settings,
        **selection,
        **common,
        runs_dir=config.runs_dir,
        on_plan=listener.on_train_plan,
        on_epoch=listener.on_epoch,
    )
    listener.on_trained(trained)
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
    return ExperimentResult(extracted, trained, evaluated)


def _head_settings(config: Config) -> tuple[HeadSettings, dict[str, Any]]:
    """Return the recipe and train_head's other arguments; wrong values are refused before stage 1 starts."""
    selection = config.head.model_dump(include={"val_fraction", "split_seed", "stream", "name"})
    try:
        # Keys that the file does not have are not given: another solver's would be refused.
        return HeadSettings.of(**config.head.model_dump(exclude=set(selection), exclude_unset=True)), selection
    except UsageError as error:
        raise UsageError(f"head: {error.message}", error.hint) from error
