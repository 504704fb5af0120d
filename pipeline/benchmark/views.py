"""(v) What cached views are worth: heads on k views and on plain images, and on fresh views in every epoch.

Differences of accuracy are paired: of the same test rows, by the bootstrap of `pipeline.intervals`.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.augment import Augment, transforms_of
from pipeline.backbones.backbone import Backbone, load_backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.benchmark.figures import SECONDS, SHARE, Claim, Figure
from pipeline.benchmark.timing import OnStep, Spread, silent
from pipeline.evaluation import averaged
from pipeline.heads.head import Head
from pipeline.heads.rows import logits_of, pick
from pipeline.heads.settings import HeadSettings
from pipeline.heads.solvers import problem_of, solve_head
from pipeline.intervals import resample
from pipeline.launch.extract import extract
from pipeline.loading.decode import decode, from_array, read_bytes, read_file
from pipeline.origin import open_images
from pipeline.sources.source import ArrayPayload, BytesPayload, Source
from pipeline.store.catalog import find_entry
from pipeline.store.entry import Entry
from pipeline.threads import cpu_threads
from pipeline.views import find_views, read_views, rows_by_view

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

NONE = np.empty(0, np.int64)


def measure_views(
    *,
    images: str = "digits",
    backbone: str = "shufflenet_v2_x0_5",
    weights: str = "none",
    image_size: int = 64,
    mean: float = 0.5,
    std: float = 0.5,
    augment: str = "crop:0.8-1,rotate:10",
    views: int = 4,
    epochs: int = 20,
    hidden: int = 0,
    seeds: int = 3,
    online_rows: int = 500,
    online_epochs: int = 4,
    cache_dir: str = "",
    on_step: OnStep = silent,
) -> Claim:
    """Measure on a source with a test split.

    Args:
        images: as `extract` takes it, and so are the next seven.
        backbone: see above.
        weights: see above.
        image_size: see above.
        mean: see above.
        std: see above.
        augment: see above.
        views: k.
        epochs: of the heads on all train rows; with a rate that falls to 0 as half a cosine.
        hidden: units of their hidden layer; 0 for linear heads.
        seeds: heads of each kind.
        online_rows: train rows, spread evenly, of the comparison with fresh views.
        online_epochs: of that comparison, by the reference recipe.
        cache_dir: where the features are, or go; by default a folder that is removed.
        on_step: called with what is done next.
    """
    options: dict[str, Any] = {"image_size": image_size, "mean": (mean,), "std": (std,)}
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as folder:
        root = cache_dir or folder
        on_step(f"extracting {views} views")
        made = extract(
            images, backbone=backbone, weights=weights, views=views, augment=augment, cache_dir=root, **options
        )
        found = _Heads(find_entry(Path(root), made.cache), views, augment)
        recipe = HeadSettings(epochs=epochs, hidden=hidden, schedule="cosine")
        figures = _gains(found, recipe, seeds, on_step)
        on_step(f"fresh views of {online_rows:,} rows in each of {online_epochs} epochs, end to end")
        network = load_backbone(backbone, weights=weights, **options)
        figures += _online(found, network, HeadSettings(epochs=online_epochs), online_rows, seeds)
    conditions = {"augment": str(Augment.parse(augment)), "views": views, "epochs": epochs, "hidden": hidden}
    title = f"{views} views of {found.views.augment} · {len(found.train):,} train and {len(found.test):,} test rows"
    return Claim("v", title, tuple(figures), {**conditions, "seeds": seeds, "online_rows": online_rows})


class _Heads:
    """The features of an entry and its views, and what heads that are trained on them get right."""

    def __init__(self, entry: Entry, views: int, augment: str) -> None:
        self.views = find_views(entry, views, augment)
        self.features, self.x = read_views(self.views)
        self.train, self.test = self.features.rows("train"), self.features.rows("test")
        self.y = self.features.y.numpy()

    def head(self, settings: HeadSettings, rows: np.ndarray, *, views: bool) -> Head:
        x = self.x if views else self.x.plain
        with cpu_threads(1):
            return solve_head(problem_of(self.features, x, rows, NONE), settings).head

    def right(self, head: Head, *, tta: bool = False) -> np.ndarray:
        """Return whether each test row (m,) is predicted right, from plain images or from the mean of all views."""
        plain = pick(self.x, self.test)
        logits = averaged(head, rows_by_view(self.views, self.test, "never")) if tta else logits_of(head, plain)
        return np.asarray(logits.argmax(axis=1) == self.y[self.test], np.float64)


def _gains(heads: _Heads, recipe: HeadSettings, seeds: int, on_step: OnStep) -> list[Figure]:
    trained: dict[bool, list[Head]] = {}
    for views in (False, True):
        on_step(f"{seeds} heads on {'views' if views else 'plain images'}")
        each = [replace(recipe, seed=seed) for seed in range(seeds)]
        trained[views] = [heads.head(one, heads.train, views=views) for one in each]
    plain, drawn = ([heads.right(head) for head in trained[views]] for views in (False, True))
    means = [heads.right(head, tta=True) for head in trained[True]]
    return [
        _accuracy("plain images", plain),
        _accuracy("views", drawn),
        _gain("views, gain", drawn, plain),
        _accuracy("views, mean of views in tests", means),
        _gain("the same, gain", means, plain),
    ]


def _online(heads: _Heads, network: Backbone, recipe: HeadSettings, rows: int, seeds: int) -> list[Figure]:
    """Compare with the plain loop over images that takes a fresh view of each in every epoch, by one recipe."""
    from pipeline import reference_loop

    train_rows = heads.train[np.linspace(0, len(heads.train) - 1, min(rows, len(heads.train))).astype(np.int64)]
    source = open_images(heads.views.entries[0])
    photos = [_image(source, heads.features.ids[row]) for row in train_rows.tolist()]
    labels = heads.y[train_rows].tolist()
    transform = _fresh_view(Augment.parse(heads.views.augment), network.preprocess)
    loop = reference_loop.train(
        network.network,
        photos,
        labels,
        transform,
        n_classes=len(heads.features.classes),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
    )
    logits = loop.head(heads.features.x[heads.test].float()).detach().numpy()
    online = [np.asarray(logits.argmax(axis=1) == heads.y[heads.test], np.float64)]
    each = [replace(recipe, seed=seed) for seed in range(seeds)]
    drawn = [heads.right(heads.head(one, train_rows, views=True)) for one in each]
    plain = [heads.right(heads.head(one, train_rows, views=False)) for one in each]
    return [
        _accuracy("few rows: plain images", plain),
        _accuracy("few rows: views", drawn),
        _accuracy("few rows: fresh views each epoch", online),
        _gain("few rows: views over plain", drawn, plain),
        _gain("few rows: views over fresh ones", drawn, online),
        Figure("an epoch with fresh views", SECONDS, Spread(tuple(loop.seconds))),
    ]


def _fresh_view(augment: Augment, preprocess: Preprocess) -> "Callable[[Image.Image], Tensor]":
    """Return what makes a random view of an image, as a network takes it: another one with every call."""
    from PIL import Image
    from torchvision import transforms

    crop, rest = transforms_of(augment, preprocess.crop, preprocess.interpolation)
    scaled = transforms.Compose([transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)])

    def seen(image: Image.Image) -> "Tensor":
        image = Image.fromarray(preprocess.pixels(image)) if crop is None else crop(image)
        for step in rest:
            image = step(image)
        tensor: Tensor = scaled(image)
        return tensor

    return seen


def _image(source: Source, sample_id: str) -> "Image.Image":
    payload = source.payload(sample_id)
    if isinstance(payload, ArrayPayload):
        return from_array(np.ascontiguousarray(payload.array, np.uint8))
    encoded = read_bytes(payload.data) if isinstance(payload, BytesPayload) else read_file(payload.path, payload.span)
    return decode(encoded.data)


def _accuracy(name: str, right: Sequence[np.ndarray]) -> Figure:
    return Figure(name, SHARE, Spread(tuple(float(one.mean()) for one in right)))


def _gain(name: str, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Figure:
    """Return the difference of mean accuracies over seeds; `low` and `high` are its 95 % interval over test rows."""
    difference = np.mean(ours, axis=0) - np.mean(theirs, axis=0)
    (found,) = resample(len(difference), lambda weights: weights @ difference / weights.sum(axis=1))
    low, high = found.interval()
    return Figure(name, SHARE, Spread((low, found.value, high)), note="median: the difference; low, high: 95 %")
