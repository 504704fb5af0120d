"""What a head said of each row of a split: kept by `evaluate`, so that nothing else need read test features."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.calibration import Calibration
from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError, DataError
from pipeline.runs import Run, read_evaluations
from pipeline.store.commit import replace_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = {
    "digests": np.uint8,
    "y": np.int64,
    "predicted": np.int64,
    "rank": np.int64,
    "confidence": np.float64,
    "nll": np.float64,
    "brier": np.float64,
}
CALIBRATED = ("confidence", "nll", "brier")


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The same after calibration, which changes no prediction."""

    confidence: "NDArray[np.float64]"
    nll: "NDArray[np.float64]"
    brier: "NDArray[np.float64]"
    temperature: float


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a head said of each labelled row (n,) of a split: all that metrics, comparisons and pages need."""

    ids: tuple[str, ...]
    """Sample ids, in source order."""
    digests: "NDArray[np.uint8]"
    """(n, 32) image digests."""
    y: "NDArray[np.int64]"
    """(n,) labels, positions in `classes`."""
    predicted: "NDArray[np.int64]"
    rank: "NDArray[np.int64]"
    """(n,) classes that scored above the label's, or as high and come first; 0 = right."""
    confidence: "NDArray[np.float64]"
    """(n,) probability of the predicted class."""
    nll: "NDArray[np.float64]"
    """(n,) -log probability of the label."""
    brier: "NDArray[np.float64]"
    """(n,) sum over classes of (p - onehot)^2, in [0, 2]: G. W. Brier, Monthly Weather Review 78 (1950) 1."""
    calibrated: Calibrated | None
    """None where the run has no temperature."""
    classes: tuple[str, ...]

    @property
    def right(self) -> "NDArray[np.bool_]":
        """Whether each prediction (n,) is the label."""
        return np.equal(self.predicted, self.y)

    def take(self, rows: np.ndarray) -> "Outcomes":
        """Return the outcomes of some rows (m,), in their order."""
        columns = {column: getattr(self, column)[rows] for column in COLUMNS}
        scaled = self.calibrated
        if scaled is not None:
            scaled = replace(scaled, **{column: getattr(scaled, column)[rows] for column in CALIBRATED})
        return replace(self, ids=tuple(self.ids[row] for row in rows.tolist()), calibrated=scaled, **columns)

    def __len__(self) -> int:
        return len(self.y)


def outcomes_of(
    logits: np.ndarray,
    y: np.ndarray,
    calibration: Calibration | None,
    *,
    classes: tuple[str, ...],
    ids: tuple[str, ...],
    digests: np.ndarray,
) -> Outcomes:
    """Return the outcomes of logits (n, c) for labels (n,); calibrated ones of logits that are scaled."""
    own = logits[np.arange(len(y)), y][:, None]
    before = np.arange(len(classes)) < y[:, None]
    predicted = logits.argmax(axis=1)
    columns = _probabilities(logits, y, predicted)
    scaled = None
    if calibration is not None:
        columns_scaled = _probabilities(calibration.scale(logits), y, predicted)
        scaled = Calibrated(**columns_scaled, temperature=calibration.temperature)
    rank = ((logits > own) | ((logits == own) & before)).sum(axis=1)
    return Outcomes(ids, digests, y, predicted, rank, **columns, calibrated=scaled, classes=classes)


def _probabilities(logits: np.ndarray, y: np.ndarray, predicted: np.ndarray) -> "dict[str, NDArray[np.float64]]":
    from scipy.special import log_softmax

    logs, rows = log_softmax(logits.astype(np.float64), axis=1), np.arange(len(y))
    shares = np.exp(logs)
    # sum (p - t)^2 = sum p^2 - 2 p_y + 1
    brier = (shares**2).sum(axis=1) - 2 * shares[rows, y] + 1
    return {"confidence": shares[rows, predicted], "nll": -logs[rows, y], "brier": np.maximum(brier, 0)}


def write_outcomes(run: Run, name: str, outcomes: Outcomes) -> dict[str, str]:
    """Keep outcomes as `evaluation-<name>.safetensors` in the run's folder; return the file's name and SHA-256.

    Raises:
        CacheError: if the folder cannot be written.
    """
    from safetensors.numpy import save

    tensors: dict[str, np.ndarray] = {column: getattr(outcomes, column) for column in COLUMNS}
    # As a tensor: the header of the file is limited, and ids are not.
    tensors["ids"] = np.frombuffer(json.dumps(outcomes.ids).encode(), np.uint8)
    about = {"classes": json.dumps(outcomes.classes)}
    if outcomes.calibrated is not None:
        tensors |= {f"calibrated.{column}": getattr(outcomes.calibrated, column) for column in CALIBRATED}
        about["temperature"] = repr(outcomes.calibrated.temperature)
    data = save({key: np.ascontiguousarray(value) for key, value in tensors.items()}, about)
    file = f"evaluation-{name}.safetensors"
    replace_file(run.path / file, data)
    return {"file": file, "sha256": sha256_bytes(data)}


def evaluate_command(run: Run, name: str) -> str:
    """Return the command that makes an evaluation: of a split, `test` if none is said, or `<split>-<entry>`."""
    which = run.id if run.path.parent == Path("runs") else str(run.path)
    split, _, entry = name.partition("-")
    return (
        f"pipeline evaluate {which}"
        + (f" --split {split}" if split != "test" else "")
        + (f" --cache {entry}" if entry else "")
    )


def read_outcomes(run: Run, name: str = "test") -> Outcomes:
    """Return what `evaluate` kept of a run's rows: `test`, or another split's, or `test-<entry>`.

    Raises:
        DataError: if there is nothing, or not what the evaluation beside it was made of.
    """
    command = evaluate_command(run, name)
    again = f"Measure it again: {command}"
    evaluation = read_evaluations(run).get(name)
    if evaluation is None:
        raise DataError(f"run {run.id} has no evaluation {name!r}", f"Make it: {command}")
    kept = evaluation.get("outcomes")
    path = run.path / f"evaluation-{name}.safetensors"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is not there: the evaluation is older than this version", again) from None
    if not isinstance(kept, dict) or sha256_bytes(data) != kept.get("sha256"):
        raise DataError(f"{path} is not what evaluation-{name}.json was made of", again)
    try:
        return _parse(data)
    except (CacheError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no file of outcomes: {error}", again) from error


def _parse(data: bytes) -> Outcomes:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about: dict[str, Any] = header.get("__metadata__", {})
    n, classes = len(tensors["y"]), tuple(json.loads(about["classes"]))
    ids = tuple(json.loads(tensors["ids"].tobytes()))
    columns = {column: _column(tensors, column, dtype, n) for column, dtype in COLUMNS.items()}
    for column in ("y", "predicted", "rank"):
        if n and not (columns[column].min() >= 0 and columns[column].max() < len(classes)):
            raise ValueError(f"{column} is out of range")
    if len(ids) != n:
        raise ValueError(f"{len(ids)} ids of {n} rows")
    calibrated = None
    if "temperature" in about:
        scaled = {column: _column(tensors, f"calibrated.{column}", np.float64, n) for column in CALIBRATED}
        calibrated = Calibrated(**scaled, temperature=float(about["temperature"]))
    return Outcomes(ids=ids, calibrated=calibrated, classes=classes, **columns)


def _column(tensors: dict[str, np.ndarray], name: str, dtype: type, n: int) -> Any:  # noqa: ANN401 - of that dtype
    found = tensors[name]
    if found.dtype != dtype or found.shape != ((n, 32) if name == "digests" else (n,)):
        raise ValueError(f"{name} is {found.dtype} {found.shape}")
    return found
