"""How an extraction is done: what a user wishes, and the recipe that comes of it."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.device import resolve_device
from pipeline.engines.engine import DTYPES
from pipeline.engines.registry import ENGINES, check_engine, engine_version, missing
from pipeline.errors import CacheError, UsageError, nearest
from pipeline.loading.loader import IMAGE_TIMEOUT_SECONDS
from pipeline.store.key import FeatureSpace, Recipe, shard_rows_for
from pipeline.threads import default_threads

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
RESIZES = ("workers", "device")
"""Who resizes images: loading processes with Pillow, or the device with the same result bit for bit."""


@dataclass(frozen=True)
class Wishes:
    """What a user may say about how an extraction is done; None leaves it to the pinned recipe or defaults."""

    batch_size: int | None = None
    device: str = "auto"
    engine: str = "auto"
    workers: int | None = None
    shard_rows: int | None = None
    test_fraction: float = 0.1
    image_timeout: float = IMAGE_TIMEOUT_SECONDS
    dtype: str = "float32"
    resize: str = "workers"
    local_workers: int = 1
    """How many processes of this extraction share the machine's cores."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name.replace('_', '-')} must be at least 1, not {value}")
        if self.resize not in RESIZES:
            raise UsageError(f"unknown resize {self.resize!r}", f"Known: {', '.join(RESIZES)}")
        if self.dtype not in DTYPES:
            raise UsageError(
                f"unknown dtype {self.dtype!r}.{nearest(self.dtype, DTYPES)}", f"Known: {', '.join(DTYPES)}"
            )
        if self.engine not in ("auto", *ENGINES):
            close = nearest(self.engine, ENGINES)
            raise UsageError(f"unknown engine {self.engine!r}.{close}", f"Known: auto, {', '.join(ENGINES)}")
        if not 0 <= self.test_fraction < 1:
            raise UsageError(f"test-fraction must be at least 0 and below 1, not {self.test_fraction}")


def wished_recipe(space: FeatureSpace, wishes: Wishes) -> Recipe:
    """Return the recipe that was asked for. With engine `auto` it is eager, until one is chosen by its speed.

    Raises:
        UsageError: if the engine does not run here.
    """
    device = resolve_device(wishes.device)
    batch_size = wishes.batch_size or BATCH_SIZE
    engine = "eager" if wishes.engine == "auto" else wishes.engine
    check_engine(engine, device.type, wishes.dtype)
    return Recipe(
        engine=engine,
        engine_version=engine_version(engine),
        device=device.type,
        threads=max(1, default_threads() // wishes.local_workers) if device.type == "cpu" else 0,
        batch_size=batch_size,
        shard_rows=wishes.shard_rows or shard_rows_for(space.row_bytes, batch_size),
    )


def pinned_recipe(pinned: Recipe, wishes: Wishes) -> Recipe:
    """Check what was asked for against the recipe this extraction was started with."""
    asked = {"engine": wishes.engine, "device": wishes.device.partition(":")[0]}
    for name, value in asked.items():
        if value not in ("auto", getattr(pinned, name)):
            raise CacheError(
                f"this extraction was started with {name} {getattr(pinned, name)}, you ask for {value}",
                f"Drop --{name} to finish it, or pass --restart to begin anew.",
            )
    for name in ("batch_size", "shard_rows"):
        value = getattr(wishes, name)
        if value not in (None, getattr(pinned, name)):
            flag = name.replace("_", "-")
            logger.warning(
                "going on with %s %d, which this extraction was started with; --restart begins anew with %d",
                flag,
                getattr(pinned, name),
                value,
            )
    return pinned


def recipe_device(recipe: Recipe, wishes: Wishes) -> "torch.device":
    """Return where a recipe computes; of several such devices the one asked for.

    Raises:
        CacheError: if that is not here.
    """
    if wishes.device != "auto":
        return resolve_device(wishes.device)
    try:
        return resolve_device(recipe.device)
    except UsageError as error:
        raise CacheError(
            f"this extraction was started on {recipe.device}, which is not here",
            "Finish it where that is, or pass --restart to begin anew.",
        ) from error


def check_runs_here(recipe: Recipe) -> None:
    """Refuse to go on with an engine that is not here, or is of another version.

    Raises:
        CacheError: saying what is missing.
    """
    lacking = missing(recipe.engine, recipe.device)
    if lacking:
        raise CacheError(
            f"this extraction was started with engine {recipe.engine}, which does not run here: {lacking}",
            "Finish it where it runs, or pass --restart to begin anew.",
        )
    version = engine_version(recipe.engine)
    if version != recipe.engine_version:
        raise CacheError(
            f"this extraction was started with {recipe.engine_version}, here is {version}",
            "Finish it there, or pass --restart to begin anew.",
        )
