"""Run a frozen backbone once, cache its features in HDF5, train heads on them, and prove it is the same model.

    import pipeline

    made = pipeline.extract("./photos", backbone="resnet18")
    run = pipeline.train_head(made.cache)
    print(pipeline.evaluate(run.run).metrics["accuracy"])
    features = pipeline.open_cache(made.cache)

Importing this package imports nothing heavy; each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pipeline.artifacts.export import ExportResult, export
    from pipeline.artifacts.tensors import load_model
    from pipeline.auditing.audit import audit
    from pipeline.auditing.result import AuditResult, read_audit
    from pipeline.backbone_choice import BackbonesResult, compare_backbones
    from pipeline.comparison import ComparisonResult, compare
    from pipeline.errors import CacheError, DataError, PipelineError, UsageError
    from pipeline.evaluation import EvaluateResult, evaluate
    from pipeline.features import Features, open_cache
    from pipeline.finetuning.finetune import FinetuneResult, finetune
    from pipeline.finetuning.settings import FinetuneSettings
    from pipeline.fusion import fuse
    from pipeline.heads.grid import Grid
    from pipeline.heads.linear import LinearHead
    from pipeline.heads.settings import HeadSettings
    from pipeline.launch.extract import extract
    from pipeline.launch.result import ExtractResult
    from pipeline.learning_curve import CurveResult, learn_curve, read_curve
    from pipeline.outcomes import Outcomes, read_outcomes
    from pipeline.prediction.predict import Prediction, predict
    from pipeline.reporting.making import ReportResult, report
    from pipeline.saving import save_head
    from pipeline.seeds import SeedsEvaluated, SeedsTrained, evaluate_seeds, train_seeds
    from pipeline.sweeping import SweepResult, sweep
    from pipeline.training import TrainResult, train_head

_HOMES = {
    "BackbonesResult": "backbone_choice",
    "AuditResult": "auditing.result",
    "CacheError": "errors",
    "ComparisonResult": "comparison",
    "CurveResult": "learning_curve",
    "DataError": "errors",
    "EvaluateResult": "evaluation",
    "ExportResult": "artifacts.export",
    "ExtractResult": "launch.result",
    "Features": "features",
    "FinetuneResult": "finetuning.finetune",
    "FinetuneSettings": "finetuning.settings",
    "Grid": "heads.grid",
    "HeadSettings": "heads.settings",
    "LinearHead": "heads.linear",
    "Outcomes": "outcomes",
    "PipelineError": "errors",
    "Prediction": "prediction.predict",
    "SeedsEvaluated": "seeds",
    "SeedsTrained": "seeds",
    "ReportResult": "reporting.making",
    "SweepResult": "sweeping",
    "TrainResult": "training",
    "UsageError": "errors",
    "audit": "auditing.audit",
    "compare": "comparison",
    "compare_backbones": "backbone_choice",
    "evaluate": "evaluation",
    "evaluate_seeds": "seeds",
    "export": "artifacts.export",
    "extract": "launch.extract",
    "finetune": "finetuning.finetune",
    "fuse": "fusion",
    "learn_curve": "learning_curve",
    "load_model": "artifacts.tensors",
    "open_cache": "features",
    "predict": "prediction.predict",
    "read_audit": "auditing.result",
    "read_curve": "learning_curve",
    "read_outcomes": "outcomes",
    "report": "reporting.making",
    "save_head": "saving",
    "sweep": "sweeping",
    "train_head": "training",
    "train_seeds": "seeds",
}

__all__ = [
    "AuditResult",
    "BackbonesResult",
    "CacheError",
    "ComparisonResult",
    "CurveResult",
    "DataError",
    "EvaluateResult",
    "ExportResult",
    "ExtractResult",
    "Features",
    "FinetuneResult",
    "FinetuneSettings",
    "Grid",
    "HeadSettings",
    "LinearHead",
    "Outcomes",
    "PipelineError",
    "Prediction",
    "ReportResult",
    "SeedsEvaluated",
    "SeedsTrained",
    "SweepResult",
    "TrainResult",
    "UsageError",
    "__version__",
    "audit",
    "compare",
    "compare_backbones",
    "evaluate",
    "evaluate_seeds",
    "export",
    "extract",
    "finetune",
    "fuse",
    "learn_curve",
    "load_model",
    "open_cache",
    "predict",
    "read_audit",
    "read_curve",
    "read_outcomes",
    "report",
    "save_head",
    "sweep",
    "train_head",
    "train_seeds",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name is
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(f"pipeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
