"""The verb `demo`: the whole job on bundled data, offline, with every claim measured there and then.

A backbone that this project pretrained on CIFAR-10 is transferred to scikit-learn's handwritten digits. The head
is compared with two others: logistic regression on raw pixels (is the backbone worth anything?) and the head of
a plain PyTorch loop over images, which must be the same bit for bit.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones.vision import build
from pipeline.backbones.weights import read_state
from pipeline.evaluation import EvaluateResult, evaluate
from pipeline.features import Features, open_cache
from pipeline.heads.settings import HeadSettings
from pipeline.launch.extract import extract
from pipeline.launch.plan import Plan
from pipeline.launch.result import ExtractResult
from pipeline.progress import OnProgress, ignore
from pipeline.selection import choose_rows
from pipeline.sources.arrays import digits_source
from pipeline.threads import cpu_threads, default_threads
from pipeline.training import TrainResult, train_head

ARCHITECTURE, LAYER = "shufflenet_v2_x0_5", "fc"
WEIGHTS = "shufflenet_v2_x0_5-cifar10.safetensors"
IMAGE_SIZE, MEAN, STD = 64, 0.5, 0.5
TEST_FRACTION = 0.2
SETTINGS = HeadSettings(lr=1e-2, epochs=40)
PARITY_EPOCHS = 5


@dataclass(frozen=True)
class Parity:
    """The cached head against the head of the plain loop after the same steps."""

    head_weights_equal: bool
    """Bit for bit, weights and biases."""
    max_abs_weight_difference: float
    features_equal: bool
    """Bit for bit, every feature of every train image."""
    epochs: int

    @property
    def holds(self) -> bool:
        """Whether features and head are equal bit for bit."""
        return self.features_equal and self.head_weights_equal


@dataclass(frozen=True)
class DemoResult:
    """What the demo found; `to_json` has the fields other programs rely on."""

    accuracy: float
    accuracy_ci95: tuple[float, float]
    raw_pixel_accuracy: float
    speedup_per_epoch: float
    cached_epoch_seconds: float
    loop_epoch_seconds: float
    parity: Parity
    extracted: ExtractResult
    trained: TrainResult
    evaluated: EvaluateResult
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        proof = self.evaluated.end_to_end
        return {
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "raw_pixel_accuracy": self.raw_pixel_accuracy,
            "speedup_per_epoch": self.speedup_per_epoch,
            "cached_epoch_seconds": self.cached_epoch_seconds,
            "loop_epoch_seconds": self.loop_epoch_seconds,
            "end_to_end": proof.to_json() if proof else None,
            "parity": asdict(self.parity),
            "n_test": self.evaluated.n,
            "cache": self.extracted.cache,
            "run": self.trained.run,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class DemoListener:
    """Callbacks for whoever shows the demo."""

    on_plan: Callable[[Plan], None] | None = None
    on_extracted: Callable[[ExtractResult], None] = lambda _: None
    on_trained: Callable[[TrainResult], None] = lambda _: None
    on_evaluated: Callable[[EvaluateResult], None] = lambda _: None
    on_step: Callable[[str], None] = lambda _: None
    on_progress: OnProgress = ignore


def demo(folder: Path, listener: DemoListener | None = None) -> DemoResult:
    """Run the demo with its cache and runs in `folder`."""
    started = time.perf_counter()
    listener = listener or DemoListener()
    cache_dir, runs_dir = folder / "cache", folder / "runs"
    with resources.as_file(resources.files("pipeline") / "data" / WEIGHTS) as weights:
        extracted = extract(
            "digits",
            backbone=ARCHITECTURE,
            weights=str(weights),
            image_size=IMAGE_SIZE,
            mean=(MEAN,),
            std=(STD,),
            test_fraction=TEST_FRACTION,
            engine="reference",
            cache_dir=cache_dir,
            on_plan=listener.on_plan,
            on_progress=listener.on_progress,
            command="pipeline demo",
        )
        listener.on_extracted(extracted)
        trained = train_head(
            extracted.cache,
            settings=SETTINGS,
            device="cpu",
            name="demo",
            cache_dir=cache_dir,
            runs_dir=runs_dir,
            command="pipeline demo",
        )
        listener.on_trained(trained)
        evaluated = evaluate(trained.path, cache_dir=cache_dir, runs_dir=runs_dir, end_to_end=True, device="cpu")
        listener.on_evaluated(evaluated)
        features = open_cache(extracted.cache, cache_dir=cache_dir)
        listener.on_step("logistic regression on raw pixels")
        raw = _raw_pixel_accuracy(features)
        listener.on_step(f"a plain PyTorch loop over the same images, {PARITY_EPOCHS} epochs")
        parity, loop_seconds, cached_seconds = _parity(features, weights)
    return DemoResult(
        accuracy=evaluated.metrics["accuracy"],
        accuracy_ci95=tuple(evaluated.metrics["accuracy_ci95"]),
        raw_pixel_accuracy=raw,
        speedup_per_epoch=loop_seconds / cached_seconds,
        cached_epoch_seconds=cached_seconds,
        loop_epoch_seconds=loop_seconds,
        parity=parity,
        extracted=extracted,
        trained=trained,
        evaluated=evaluated,
        seconds=time.perf_counter() - started,
    )


def _raw_pixel_accuracy(features: Features) -> float:
    """Return the test accuracy of scikit-learn's logistic regression on the 64 raw pixels."""
    from sklearn.linear_model import LogisticRegression

    source = digits_source()
    pixels = np.stack([source.payload(sample_id).array.reshape(-1) / 255 for sample_id in features.ids])
    y, train, test = features.y.numpy(), features.rows("train"), features.rows("test")
    model = LogisticRegression(max_iter=2000).fit(pixels[train], y[train])
    return float(model.score(pixels[test], y[test]))


def _parity(features: Features, weights: Path) -> tuple[Parity, float, float]:
    """Train the same head by the plain loop and from the cache. Return (parity, seconds an epoch of each)."""
    import torch
    from PIL import Image

    from pipeline import reference_loop
    from pipeline.heads.minibatch import threads_for, train_minibatch

    source = digits_source()
    rows = choose_rows(features).train
    model = build(ARCHITECTURE)
    model.load_state_dict(read_state(weights), strict=False)
    backbone = reference_loop.without_last_layer(model, LAYER)
    images = [Image.fromarray(source.payload(features.ids[row]).array).convert("RGB") for row in rows.tolist()]
    settings = HeadSettings(lr=SETTINGS.lr, epochs=PARITY_EPOCHS)
    threads = threads_for(settings.batch_size, features.x.shape[1], len(features.classes))
    with cpu_threads(default_threads()):
        loop = reference_loop.train(
            backbone,
            images,
            features.y[rows].tolist(),
            reference_loop.image_transform(IMAGE_SIZE, [MEAN] * 3, [STD] * 3),
            n_classes=len(features.classes),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.lr,
            seed=settings.seed,
            head_threads=threads,
        )
    with cpu_threads(threads):
        weight, bias, epochs = train_minibatch(
            features.x, features.y, rows, np.empty(0, np.int64), len(features.classes), settings
        )
    differences = [(weight - loop.head.weight.detach()).abs().max(), (bias - loop.head.bias.detach()).abs().max()]
    equal = torch.equal(weight, loop.head.weight) and torch.equal(bias, loop.head.bias)
    parity = Parity(equal, float(max(differences)), torch.equal(features.x[rows], loop.features), settings.epochs)
    return parity, statistics.median(loop.seconds), statistics.median(epoch.seconds for epoch in epochs)
