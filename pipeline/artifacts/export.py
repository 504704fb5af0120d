"""The verb `export`: a run as a file, checked on real images before it has its name."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.card import model_card
from pipeline.artifacts.check import Check, check_artifact
from pipeline.artifacts.description import describe
from pipeline.artifacts.onnx import Onnx
from pipeline.artifacts.product import Format, Product
from pipeline.artifacts.pt2 import Pt2
from pipeline.artifacts.tensors import HEAD, NETWORK, Tensors
from pipeline.backbones.preprocess import Preprocess
from pipeline.binding import check_space, entry_of
from pipeline.errors import UsageError, nearest
from pipeline.extraction.reread import reread
from pipeline.features import read_features
from pipeline.fusion import Trained, fused_network, image_model, open_trained
from pipeline.heads.files import DESCRIPTION, file_tensors
from pipeline.model import Model
from pipeline.origin import open_images
from pipeline.progress import OnProgress, ignore
from pipeline.sources.source import Source
from pipeline.store.commit import new_file, replace_file

FORMATS: dict[str, Format] = {"onnx": Onnx(), "pt2": Pt2(), "safetensors": Tensors()}
CHECK_IMAGES = 128
BATCH_SIZE = 32


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how it compares; `to_json` has its fields."""

    run: str
    format: str
    path: str
    bytes: int
    check: Check
    against: str
    """What its logits were compared with."""
    seconds: float
    written: bool
    """False where a file that was there already was only checked."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {**self.__dict__, "check": self.check.to_json()}


def export(
    run: str | Path = "latest",
    *,
    output: str | Path,
    format: str | None = None,
    check_images: int = CHECK_IMAGES,
    check_only: bool = False,
    overwrite: bool = False,
    cache: str | Path | None = None,
    source: str | None = None,
    workers: int | None = None,
    runs_dir: str | Path = "runs",
    cache_dir: str | Path = "cache",
    data_root: str | Path | None = None,
    follow_symlinks: bool = False,
    on_progress: OnProgress = ignore,
) -> ExportResult:
    """Write backbone and head as one file that takes images, and run it on real ones.

    The file maps `images`, float32 (b, 3, h, w) RGB in [0, 1] at the stated size, to `logits` and `probabilities`
    (b, c). It has its name only when its logits on images of the entry are those of the cache: equal predictions,
    logits within 1e-4. (Of an entry computed or stored in less than float32, those of the plain float32 model.)
    Beside it lie its description as JSON and a model card.

    Args:
        run: a unique prefix of the run's id, its path, or `latest`.
        output: the file.
        format: `onnx`, `pt2` or `safetensors`; default by the file's ending.
        check_images: how many images, spread over the entry.
        check_only: write nothing, check the file that is there.
        overwrite: whether a file of that name gives way.
        cache: another entry of the same feature space to check on.
        source: where the images are now; default where they were.
        workers: loading processes.
        runs_dir: where runs are kept.
        cache_dir: the cache root.
        data_root: as for `extract`.
        follow_symlinks: as for `extract`.
        on_progress: called after every batch of the check.

    Raises:
        UsageError: if the format is unknown or its packages are missing, or the file exists.
        DataError: if the network cannot be said in this format, or the file is not the model of the run.
        CacheError: if the run's entry is gone.
    """
    started = time.perf_counter()
    path = Path(output)
    name = _format_of(path, format)
    if check_images < 1:
        raise UsageError(f"check-images must be at least 1, not {check_images}")
    if not check_only and not overwrite and path.exists():
        raise UsageError(f"{path} exists", "Name another file, or pass --overwrite. --check-only checks it.")
    trained = open_trained(run, Path(runs_dir))
    entry = entry_of(trained.run, cache, Path(cache_dir))
    features = read_features(entry)
    check_space(trained.head, features, entry)
    rows = np.linspace(0, len(features) - 1, min(check_images, len(features))).astype(int)
    images = _Images(
        open_images(entry, source, data_root=data_root, follow_symlinks=follow_symlinks),
        [features.ids[row] for row in rows.tolist()],
        features.digests[rows],
        trained.backbone.preprocess,
        workers,
    )
    exact = entry.space.store_dtype == entry.space.dtype == "float32"
    wanted = trained.head.logits(features.x[rows]).numpy() if exact else images.logits(trained)
    against = "cached logits" if exact else "logits of the plain float32 model"
    if check_only:
        check = check_artifact(
            FORMATS[name].open(path), images.batches(on_progress), wanted, trained.head.kind, str(path)
        )
    else:
        product = product_of(trained)
        with new_file(path, replace=overwrite) as temporary:
            FORMATS[name].write(product, temporary)
            check = check_artifact(
                FORMATS[name].open(temporary), images.batches(on_progress), wanted, trained.head.kind, str(path)
            )
        _write_beside(path, {**product.description, "check": {**check.to_json(), "against": against}})
    seconds = time.perf_counter() - started
    return ExportResult(trained.run.id, name, str(path), path.stat().st_size, check, against, seconds, not check_only)


@dataclass(frozen=True)
class _Images:
    """The images that artifacts are checked on."""

    source: Source
    ids: list[str]
    digests: np.ndarray
    preprocess: Preprocess
    workers: int | None

    def batches(self, on_progress: OnProgress = ignore) -> Iterator[tuple[list[int], np.ndarray]]:
        """Decode them: positions, and pixels uint8 (BATCH_SIZE, h, w, 3)."""
        return reread(
            self.source,
            self.ids,
            self.digests,
            self.preprocess,
            batch_size=BATCH_SIZE,
            workers=self.workers,
            on_progress=on_progress,
        )

    def logits(self, trained: Trained) -> np.ndarray:
        """Return the plain float32 model's logits (n, c)."""
        model = Model(trained.backbone, trained.head, "cpu")
        return np.concatenate([model.logits(pixels)[: len(places)] for places, pixels in self.batches()])


def _format_of(path: Path, asked: str | None) -> str:
    found = asked or path.suffix.removeprefix(".").lower()
    if found not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(f"unknown format {found!r}.{nearest(found, FORMATS)}", f"Known: {known}; give --format.")
    return found


def _write_beside(path: Path, described: dict[str, Any]) -> None:
    """Write the description and the model card beside an artifact, under its name."""
    replace_file(Path(f"{path}.json"), json.dumps(described, indent=1).encode() + b"\n")
    replace_file(Path(f"{path}.md"), model_card(described, path.name).encode())


def product_of(trained: Trained) -> Product:
    """Return what is exported of a run; the backbone's network is changed in place."""
    from pipeline.backbones.taps import Tapped

    network = trained.backbone.network
    tensors = {NETWORK + key: tensor for key, tensor in network.state_dict().items()}
    files = trained.head.to_files()
    tensors |= {HEAD + key: tensor for key, tensor in file_tensors(files).items()}
    description = describe(trained, json.loads(files[DESCRIPTION]))
    model = image_model(fused_network(trained.backbone, trained.head), trained.backbone.preprocess)
    for part in model.modules():
        if isinstance(part, Tapped):
            part.stops = False
    return Product(model, trained.backbone.preprocess.crop, description, tensors)
