"""One TOML file for a whole experiment: extract, head (or sweep, or finetune), evaluate.

Unknown keys are errors, all told at once.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.errors import UsageError, nearest


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:  # noqa: ANN401 - a TOML value
        """Refuse what no path and no name can hold; no command line can say it either."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("text with a NUL")
        return value


class ExtractConfig(_Section):
    """Stage 1; the fields are those of `pipeline extract`."""

    source: str
    backbone: str
    weights: str = "DEFAULT"
    layer: str | None = None
    pool: Literal["avg", "max", "cls", "cls+avg", "none"] | None = None
    views: int = 1
    augment: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | float | None = None
    std: tuple[float, ...] | float | None = None
    dtype: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    store_dtype: Literal["float32", "float16"] = "float32"
    batch_size: int | None = None
    engine: str = "auto"
    workers: int | None = None
    resize: Literal["workers", "device"] = "workers"
    shard_rows: int | None = None
    test_fraction: float = 0.1
    limit: int | None = None
    on_bad_image: Literal["fail", "skip"] = "fail"
    follow_symlinks: bool = False
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    image_column: str | None = None
    group_by: str | None = None
    unlabelled: bool = False


class HeadConfig(_Section):
    """Stage 2; the fields are those of `pipeline train-head`."""

    solver: Literal["minibatch", "exact", "ridge", "knn", "centroid"] = "minibatch"
    standardize: bool = False
    l2_norm: bool = False
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3
    epochs: int = 5
    batch_size: int = 64
    weight_decay: float = 0.0
    momentum: float = 0.0
    dropout: float = 0.0
    seed: int = 0
    hidden: int = 0
    label_smoothing: float = 0.0
    class_weight: Literal["none", "balanced"] = "none"
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: int = 0
    early_stopping: int = 0
    l2: float | None = None
    C: float | None = None
    k: int = 20
    temperature: float = 0.07
    val_fraction: float = 0.1
    split_seed: int = 0
    views: int | Literal["all"] = 1
    augment: str | None = None
    stream: Literal["auto", "always", "never"] = "auto"
    name: str = ""


class SweepConfig(_Section):
    """Many heads in the place of one; the fields are those of `pipeline sweep`, the rest of the recipe is [head]'s.

    Defaults are `sweep`'s: what the file does not have is not given.
    """

    lr: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    l2: tuple[float, ...] = ()
    C: tuple[float, ...] = ()
    transforms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    folds: int = 0
    refit: bool = False

    @field_validator("lr", "weight_decay", "l2", "C", "transforms", "seeds", mode="before")
    @classmethod
    def _listed(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - a TOML value
        """Take one value as a list of it, but a number of seeds as so many, as on the command line."""
        if info.field_name == "seeds" and type(value) is int:
            if not 0 < value <= MOST_SEEDS:
                raise ValueError(f"a number of seeds is from 1 to {MOST_SEEDS:,}")
            return tuple(range(value))
        return (value,) if isinstance(value, int | float | str) else value


class FinetuneConfig(_Section):
    """Layers and head together in the place of a head alone; the fields are those of `pipeline finetune`."""

    lr: float = 1e-3
    backbone_lr: float = 1e-4
    epochs: int = 5
    batch_size: int = 64
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = 0.0
    momentum: float = 0.0
    label_smoothing: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: int = 0
    early_stopping: int = 0
    bn: Literal["frozen", "train"] = "frozen"
    hflip: float = 0.0
    seed: int = 0
    engine: Literal["auto", "reference"] = "auto"
    val_fraction: float = 0.1
    split_seed: int = 0
    stream: Literal["auto", "always", "never"] = "auto"
    checkpoint_seconds: float = 20.0
    name: str = ""


class EvaluateConfig(_Section):
    """What to measure."""

    split: Literal["train", "val", "test"] = "test"
    end_to_end: bool = False


class Config(_Section):
    """A whole experiment."""

    extract: ExtractConfig
    head: HeadConfig = Field(default_factory=HeadConfig)
    sweep: SweepConfig | None = None
    finetune: FinetuneConfig | None = None
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    cache_dir: Path = Path("cache")
    runs_dir: Path = Path("runs")
    data_root: Path | None = None
    device: str = "auto"

    @model_validator(mode="after")
    def _one_stage_2(self) -> Self:
        """Refuse sections that say different things of stage 2."""
        others = [
            name for name in ("head", "sweep") if name in self.model_fields_set and getattr(self, name) is not None
        ]
        if self.finetune is not None and others:
            raise ValueError(f"[finetune] trains layers and a head, [{others[0]}] heads alone: leave out one of them")
        return self


def read_config(path: Path, changes: dict[str, Any] | None = None) -> Config:
    """Read an experiment file; `changes` maps dotted keys (`head.lr`) to values that win over it.

    Raises:
        UsageError: if the file is missing or not TOML, or keys or values are wrong (all of them are named).
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no configuration file {path}", "configs/ has examples to copy.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # not TOML, a number of thousands of digits, or no path at all
        raise UsageError(f"{path} is not TOML: {error}") from error
    for key, value in (changes or {}).items():
        _put(document, key, value)
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        found = error.errors()
        more = f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
        raise UsageError(f"{path}: {'; '.join(map(_problem, found[:SHOWN]))}{more}", KEYS_HINT) from error


SHOWN = 20
"""Problems of a file that are named."""
MOST_SEEDS = 10_000
KEYS_HINT = "Sections: extract, head, sweep, finetune, evaluate; keys are the commands' options with underscores."


def parse_change(text: str) -> tuple[str, Any]:
    """Parse `head.lr=0.01` into a dotted key and a TOML value; what is not TOML is a string.

    Raises:
        UsageError: if there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {text!r} is not KEY=VALUE", "Like: --set head.lr=0.01")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.strip(), value


def _put(document: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - a TOML value
    *sections, last = key.split(".")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise UsageError(f"--set {key}: {section} is not a section", KEYS_HINT)
    document[last] = value


def _problem(item: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    place = [str(part) for part in item["loc"] if not str(part).startswith(("tuple[", "float"))]
    key = ".".join(place)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}.{nearest(place[-1], _fields(place[:-1]))}"
    if item["type"] == "missing":
        return f"{key} is missing"
    return f"{key} = {item['input']!r}: {item['msg'].lower()}"


def _fields(section: list[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "extract": ExtractConfig,
        "head": HeadConfig,
        "sweep": SweepConfig,
        "finetune": FinetuneConfig,
        "evaluate": EvaluateConfig,
    }
    return list((sections[section[0]] if section else Config).model_fields)
