"""What a fine-tuning starts from: rows of an entry, the layers behind its cut, and where it is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.backbones.memory import keep_memory
from pipeline.device import resolve_device
from pipeline.engines.engine import float32_products
from pipeline.errors import UsageError
from pipeline.features import Features
from pipeline.finetuning.loop import Training
from pipeline.finetuning.network import HEAD, TAIL, Tuned
from pipeline.finetuning.settings import FinetuneSettings
from pipeline.heads.linear import LinearHead
from pipeline.heads.tuned import TunedHead
from pipeline.origin import rebuild_backbone
from pipeline.selection import Rows, choose_rows
from pipeline.store.entry import Entry
from pipeline.streaming import Stream, StreamedRows, open_rows
from pipeline.threads import cpu_threads, default_threads
from pipeline.versions import versions

if TYPE_CHECKING:
    import torch

    from pipeline.backbones.tail import Tail


@dataclass(frozen=True, eq=False)
class Job:
    """A fine-tuning that can begin."""

    entry: Entry
    features: Features
    x: "torch.Tensor | StreamedRows"
    """Rows (n, *row_shape), on the device."""
    y: "torch.Tensor"
    """Labels (n,), on the device."""
    rows: Rows
    backbone: str
    tail: "Tail"
    settings: FinetuneSettings
    device: "torch.device"
    threads: int

    @property
    def streamed(self) -> bool:
        """Whether rows stay on disk."""
        return isinstance(self.x, StreamedRows)

    def key(self) -> dict[str, Any]:
        """Return all that the bits of a training depend on."""
        return {
            "entry": self.entry.digest,
            "settings": self.settings.to_json(),
            "val_rule": self.rows.rule,
            "streamed": self.streamed,
            "device": self.device.type,
            "threads": self.threads,
            "versions": versions(),
        }

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute as this job does: float32 without shortcuts, so many threads, random numbers of its own."""
        import torch

        if self.device.type == "cpu":
            keep_memory()
        devices = range(torch.cuda.device_count())
        with cpu_threads(self.threads), float32_products(), torch.random.fork_rng(devices=devices):
            yield

    def start(self) -> Training:
        """Return a new training."""
        classes = len(self.features.classes)
        tuned = Tuned(self.tail.module, self.tail.dim, classes, self.settings, self.device)
        return Training(tuned, len(self.rows.train))

    def head(self, training: Training) -> TunedHead:
        """Return what was trained, on the CPU."""
        import torch

        network = training.tuned.network.cpu().to(memory_format=torch.contiguous_format).requires_grad_(False)
        head = network.get_submodule(HEAD).state_dict()
        features = self.features
        linear = LinearHead(head["weight"], head["bias"], features.classes, features.space, features.space_sha256)
        return TunedHead(network.get_submodule(TAIL), linear)


def open_job(
    entry: Entry,
    settings: FinetuneSettings,
    *,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    stream: Stream = "auto",
    device: str = "auto",
) -> Job:
    """Rebuild the layers behind an entry's cut, read its rows and choose those that train.

    Raises:
        UsageError: if fine-tuning cannot start at the entry's layer, or settings do not go with its rows.
        DataError: if the weights of its backbone are gone or have changed; or as `choose_rows`.
        CacheError: if the entry is damaged.
    """
    from pipeline.backbones.tail import make_tail

    where = resolve_device(device)
    space = entry.manifest["space"]
    backbone = rebuild_backbone(space, entry.manifest["backbone"]["weights"])
    tail = make_tail(backbone)
    _check_flips(settings, backbone.row_shape)
    features, x = open_rows(entry, stream)
    rows = choose_rows(features, val_fraction=val_fraction, split_seed=split_seed)
    if settings.early_stopping and not len(rows.val):
        raise UsageError("--early-stopping goes by validation rows, and there are none", "Give a --val-fraction.")
    threads = default_threads()
    y = features.y.to(where)
    return Job(entry, features, x.to(where), y, rows, backbone.name, tail, settings, where, threads)


def _check_flips(settings: FinetuneSettings, row_shape: tuple[int, ...]) -> None:
    maps = len(row_shape) == 3 and row_shape[1] == row_shape[2]
    if settings.hflip and not maps:
        raise UsageError(
            f"--hflip mirrors maps (c, h, w); the rows of this entry are {row_shape}",
            "Leave it out, or take a layer that gives maps.",
        )
