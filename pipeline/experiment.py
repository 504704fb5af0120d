"""The verb `run`: extract, train-head (or sweep, or finetune) and evaluate as one experiment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.evaluation import EvaluateResult, evaluate
from pipeline.finetuning.finetune import FinetunePlan, FinetuneResult, finetune
from pipeline.head_arguments import finetune_arguments, sweep_arguments, train_arguments
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
    on_finetune_plan: Callable[[FinetunePlan], None] | None = None
    on_finetuned: Callable[[FinetuneResult], None] = lambda _: None
    """In the place of `on_trained`."""
    on_evaluated: Callable[[EvaluateResult], None] = lambda _: None


@dataclass(frozen=True)
class ExperimentResult:
    """The three results."""

    extract: ExtractResult
    train_head: TrainResult | None
    """With a sweep the run that it chose; None of a fine-tuning."""
    evaluate: EvaluateResult
    sweep: SweepResult | None = None
    finetune: FinetuneResult | None = None

    @property
    def run(self) -> str:
        """The id of the run."""
        return self.evaluate.run

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields, a section a verb."""
        return {
            "extract": self.extract.to_json(),
            **({} if self.train_head is None else {"train_head": self.train_head.to_json()}),
            "evaluate": self.evaluate.to_json(),
            **({} if self.sweep is None else {"sweep": self.sweep.to_json()}),
            **({} if self.finetune is None else {"finetune": self.finetune.to_json()}),
        }


def run_experiment(config: Config, listener: ExperimentListener | None = None) -> ExperimentResult:
    """Run the three verbs with one configuration.

    Where it has a [sweep], that trains heads and chooses one; a [finetune] trains layers and a head.

    Raises:
        UsageError, DataError, CacheError: see `pipeline.errors`.
    """
    listener = listener or ExperimentListener()
    # Wrong values are refused before stage 1 starts.
    arguments = sweep_arguments if config.sweep else finetune_arguments if config.finetune else train_arguments
    stage2 = arguments(config)
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
    trained, swept, tuned = None, None, None
    if config.finetune is not None:
        tuned = finetune(extracted.cache, **stage2, on_plan=listener.on_finetune_plan, on_epoch=listener.on_epoch)
        listener.on_finetuned(tuned)
    elif config.sweep is None:
        trained = train_head(extracted.cache, **stage2, on_plan=listener.on_train_plan, on_epoch=listener.on_epoch)
        listener.on_trained(trained)
    else:
        swept = sweep(extracted.cache, **stage2, on_plan=listener.on_sweep_plan, on_progress=listener.on_trials)
        trained = swept.run
        listener.on_swept(swept)
    made = tuned or trained
    assert made is not None
    evaluated = evaluate(
        made.path,
        split=config.evaluate.split,
        end_to_end=config.evaluate.end_to_end,
        data_root=config.data_root,
        follow_symlinks=config.extract.follow_symlinks,
        on_progress=listener.on_progress,
        **common,
    )
    listener.on_evaluated(evaluated)
    return ExperimentResult(extracted, trained, evaluated, swept, tuned)
