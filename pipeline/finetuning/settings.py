"""The recipe of a fine-tuning."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from pipeline.errors import UsageError, nearest
from pipeline.heads.settings import LARGEST, HeadSettings, Optimizer, Schedule

BatchNormMode = Literal["frozen", "train"]
TuneEngine = Literal["auto", "reference"]


@dataclass(frozen=True)
class FinetuneSettings:
    """The recipe; docs/FINETUNE.md says what each option is for. Where `train-head` has it too, it is the same."""

    lr: float = 1e-3
    """Of the new head."""
    backbone_lr: float = 1e-4
    """Of the pretrained layers behind the cut."""
    epochs: int = 5
    batch_size: int = 64
    optimizer: Optimizer = "adam"
    weight_decay: float = 0.0
    momentum: float = 0.0
    label_smoothing: float = 0.0
    schedule: Schedule = "constant"
    warmup_epochs: int = 0
    early_stopping: int = 0
    bn: BatchNormMode = "frozen"
    """Statistics of BatchNorms behind the cut: those of pretraining, or moving averages that go on."""
    hflip: float = 0.0
    """Share of maps that are flipped, each time anew."""
    seed: int = 0
    engine: TuneEngine = "auto"
    """`reference` computes what a plain loop does, bit for bit; `auto` the same faster, with other last bits."""

    def __post_init__(self) -> None:
        _ = self.recipe  # checks what it has
        for message, fine in {
            "backbone-lr must be at least 0 and at most 1e37": 0 <= self.backbone_lr <= LARGEST,
            "hflip must be at least 0 and at most 1": 0 <= self.hflip <= 1,
        }.items():
            if not fine:
                raise UsageError(message)
        for name, known in (("bn", get_args(BatchNormMode)), ("engine", get_args(TuneEngine))):
            asked = getattr(self, name)
            if asked not in known:
                raise UsageError(f"unknown {name} {asked!r}.{nearest(str(asked), known)}", f"Known: {', '.join(known)}")

    @property
    def recipe(self) -> HeadSettings:
        """What it has in common with the training of a head."""
        shared = {field.name for field in fields(HeadSettings)} & {field.name for field in fields(self)}
        return HeadSettings(**{name: getattr(self, name) for name in shared})

    @classmethod
    def of(cls, base: "FinetuneSettings | None" = None, **given: Any) -> "FinetuneSettings":  # noqa: ANN401 - fields
        """Return settings with those that a user gave.

        Raises:
            UsageError: naming one that is unknown, or out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise UsageError(f"unknown setting {name!r}.{nearest(name, known)}", f"Known: {', '.join(known)}")
        return cls(**{**({} if base is None else asdict(base)), **given})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {"solver": "finetune", **asdict(self)}
