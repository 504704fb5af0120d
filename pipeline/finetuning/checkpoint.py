"""A training between two epochs as one file, from which the same command goes on to the same bits."""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.digest import sha256_json
from pipeline.errors import DataError
from pipeline.finetuning.loop import Training
from pipeline.heads.minibatch import Epoch
from pipeline.store.commit import disk_errors, make_folder, replace_file

if TYPE_CHECKING:
    from torch import Tensor

NETWORK, BEST, OPTIMIZER, RANDOM = "network.", "best.", "optimizer.", "random."
FACTS = "training"
SHORT = 16


class Checkpoint:
    """The file under a folder of runs for one training, which is named by all that its bits depend on."""

    def __init__(self, root: Path, key: Mapping[str, Any], every_seconds: float) -> None:
        self.root, self.key = root, sha256_json(dict(key))
        self.path = root / f".finetune-{self.key[:SHORT]}.safetensors"
        self.every_seconds, self.last = every_seconds, time.monotonic()

    def keep(self, training: Training) -> None:
        """Save, if the last time is long enough ago: of large layers that takes seconds."""
        if time.monotonic() - self.last >= self.every_seconds:
            self.save(training)
            self.last = time.monotonic()

    def save(self, training: Training) -> None:
        """Write the file, whole; it takes the place of the one before."""
        from safetensors.torch import save

        tensors = _tensors(training)
        facts = {
            "key": self.key,
            "sha256": _digest(tensors),
            "epochs": [epoch.to_json() for epoch in training.epochs],
            "best_epoch": training.best_epoch,
            "best_loss": training.best_loss if math.isfinite(training.best_loss) else None,
        }
        data = save(tensors, {FACTS: json.dumps(facts)})
        with disk_errors(self.root, len(data)):
            make_folder(self.root)
            replace_file(self.path, data)

    def resume(self, training: Training) -> int:
        """Bring a new training to where the file is, if there is one. Return the epochs that are done.

        Raises:
            DataError: if the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get(FACTS, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        except (OSError, ValueError, SafetensorError):
            facts, tensors = {}, {}
        if facts.get("key") != self.key or facts.get("sha256") != _digest(tensors):
            raise DataError(f"the checkpoint {self.path} is damaged", f"Begin again without it: rm {self.path}")
        _restore(training, tensors)
        training.epochs = [Epoch(**epoch) for epoch in facts["epochs"]]
        training.best_epoch = facts["best_epoch"]
        training.best_loss = math.inf if facts["best_loss"] is None else facts["best_loss"]
        return len(training.epochs)

    def remove(self) -> None:
        """Remove the file: the run is saved."""
        self.path.unlink(missing_ok=True)


def _tensors(training: Training) -> "dict[str, Tensor]":
    named = {NETWORK + name: one for name, one in training.tuned.network.state_dict().items()}
    named |= {BEST + name: one for name, one in training.best.items()}
    for number, state in training.optimizer.state_dict()["state"].items():
        named |= {f"{OPTIMIZER}{number}.{name}": one for name, one in state.items() if one is not None}
    named |= {RANDOM + name: getattr(training, name).get_state() for name in ("order", "flips")}
    return {name: one.detach().cpu().contiguous() for name, one in named.items()}


def _restore(training: Training, tensors: "Mapping[str, Tensor]") -> None:
    def those(prefix: str) -> "dict[str, Tensor]":
        return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}

    training.tuned.network.load_state_dict(those(NETWORK))
    training.best = those(BEST)
    for name, state in those(RANDOM).items():
        getattr(training, name).set_state(state)
    parameters = [one for group in training.optimizer.param_groups for one in group["params"]]
    found: dict[int, dict[str, Tensor]] = {}
    for name, one in those(OPTIMIZER).items():
        number, _, field = name.partition(".")
        found.setdefault(int(number), {})[field] = _like(one, parameters[int(number)])
    training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": found})


def _like(state: "Tensor", parameter: "Tensor") -> "Tensor":
    """Give an optimiser's tensor the memory format of its parameter: fused steps go by it."""
    import torch

    return state if state.shape != parameter.shape else torch.empty_like(parameter).copy_(state)


def _digest(tensors: "Mapping[str, Tensor]") -> str:
    import torch

    found = hashlib.sha256()
    for name, one in sorted(tensors.items()):
        found.update(f"{name} {one.dtype} {tuple(one.shape)}\n".encode())
        found.update(one.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
