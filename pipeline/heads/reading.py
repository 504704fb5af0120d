"""Heads read from files that may come from anyone."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones.rebuilt import load_tail
from pipeline.digest import is_sealed, sha256_bytes
from pipeline.errors import CacheError, DataError
from pipeline.heads.files import (
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    PLAIN,
    TAIL,
    TAIL_PREFIX,
    WEIGHTS,
    file_tensors,
)
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.mlp import MLPHead
from pipeline.heads.neighbours import NeighboursHead
from pipeline.heads.transform import Transform
from pipeline.heads.tuned import TunedHead
from pipeline.store.verified import read_whole

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]
FIELDS = {"format": str, "classes": list, "dim": int, "weights_sha256": str, "space": dict, "space_sha256": str}
STEPS = {"l2_norm": bool, "standardize": bool}
MAX_BYTES = 4 << 30


def read_head(folder: Path) -> Head:
    """Read a head of any kind from the files of its `to_files`.

    Raises:
        DataError: if they are missing, damaged, or do not fit each other.
    """
    from safetensors import SafetensorError

    try:
        body = json.loads(read_whole(folder / DESCRIPTION, MAX_BYTES))
        tuned = isinstance(body, dict) and body.get("kind") == TunedHead.kind
        names = {WEIGHTS: "weights_sha256"} | ({TAIL: "tail_sha256"} if tuned else {})
        files = {name: read_whole(folder / name, MAX_BYTES) for name in names}
        tensors = file_tensors(files)
    except (OSError, ValueError, RecursionError, CacheError, SafetensorError) as error:
        raise DataError(f"the head in {folder} cannot be read: {error}") from error
    head = head_of(body, tensors, str(folder / DESCRIPTION))
    for name, field in names.items():
        if sha256_bytes(files[name]) != body.get(field):
            raise DataError(f"{folder / name} is damaged: it does not have the SHA-256 in {DESCRIPTION}")
    return head


def head_of(body: Any, tensors: Tensors, where: str) -> Head:  # noqa: ANN401 - any JSON value
    """Return the head that a description and its tensors make; `where` they come from is for errors.

    Raises:
        DataError: if the description is not sealed, of another version or kind, or does not fit the tensors.
    """
    versions = (PLAIN, FORMAT_VERSION)
    if not isinstance(body, dict) or not is_sealed(body) or body.get("format_version") not in versions:
        raise DataError(f"{where} is damaged or of another version")
    wrong = _wrong(body, FIELDS)
    if wrong or body["format"] != FORMAT or not all(isinstance(name, str) for name in body["classes"]):
        raise DataError(f"{where} is no description of a head: {', '.join(wrong) or 'its classes'}")
    kind = body.get("kind")
    known = ("linear",) if body["format_version"] == PLAIN else tuple(KINDS)
    if kind not in known:
        raise DataError(f"{where} is of kind {kind!r}, this package knows {', '.join(KINDS)}")
    wrong = [] if body["format_version"] == PLAIN else _wrong(body, STEPS)
    if wrong:
        raise DataError(f"{where} is no description of a {kind} head: {', '.join(wrong)}")
    rest = dict(tensors)
    transform = _take_transform(body, rest, where)
    return KINDS[kind](body, rest, transform, where)


def _take_transform(body: dict[str, Any], tensors: dict[str, "Tensor"], where: str) -> Transform:
    """Take the transform's tensors out of a head's."""
    if body["format_version"] == PLAIN:
        return Transform()
    if not body["standardize"]:
        return Transform(body["l2_norm"])
    found: dict[str, Tensor] = {name: tensors.pop(name) for name in ("mean", "scale") if name in tensors}
    _check(found, {"mean": (body["dim"],), "scale": (body["dim"],)}, where)
    return Transform(body["l2_norm"], found["mean"], found["scale"])


def _linear(body: dict[str, Any], tensors: Tensors, transform: Transform, where: str) -> Head:
    classes = len(body["classes"])
    _check(tensors, {"weight": (classes, body["dim"]), "bias": (classes,)}, where)
    return LinearHead(**_fields(body, tensors, transform))


def _mlp(body: dict[str, Any], tensors: Tensors, transform: Transform, where: str) -> Head:
    classes, hidden = len(body["classes"]), _length(tensors.get("hidden_bias"))
    dropout = body.get("dropout")
    if not isinstance(dropout, float) or not 0 <= dropout < 1:
        raise DataError(f"{where} is no description of an mlp head: dropout")
    shapes = {
        "hidden_weight": (hidden, body["dim"]),
        "hidden_bias": (hidden,),
        "weight": (classes, hidden),
        "bias": (classes,),
    }
    _check(tensors, shapes, where)
    return MLPHead(**_fields(body, tensors, transform), dropout=dropout)


def _neighbours(body: dict[str, Any], tensors: Tensors, transform: Transform, where: str) -> Head:
    rows, k, temperature = _length(tensors.get("labels")), body.get("k"), body.get("temperature")
    if type(k) is not int or not 1 <= k <= rows:
        raise DataError(f"{where} is no description of a neighbours head: k")
    if not isinstance(temperature, float) or not 0 < temperature < math.inf:
        raise DataError(f"{where} is no description of a neighbours head: temperature")
    _check(tensors, {"bank": (rows, body["dim"]), "labels": (rows,)}, where, labels="int64")
    labels = tensors["labels"]
    if int(labels.min()) < 0 or int(labels.max()) >= len(body["classes"]):
        raise DataError(f"{where}: its labels go beyond its {len(body['classes'])} classes")
    return NeighboursHead(**_fields(body, tensors, transform), k=k, temperature=temperature)


def _finetuned(body: dict[str, Any], tensors: Tensors, transform: Transform, where: str) -> Head:
    tail = {name.removeprefix(TAIL_PREFIX): one for name, one in tensors.items() if name.startswith(TAIL_PREFIX)}
    rest = {name: one for name, one in tensors.items() if not name.startswith(TAIL_PREFIX)}
    linear = _linear(body, rest, transform, where)
    assert isinstance(linear, LinearHead)
    return TunedHead(load_tail(body["space"], tail, linear.dim, where), linear)


KINDS: dict[str, Callable[[dict[str, Any], Tensors, Transform, str], Head]] = {
    "linear": _linear,
    "mlp": _mlp,
    "neighbours": _neighbours,
    "finetuned": _finetuned,
}


def _fields(body: dict[str, Any], tensors: Tensors, transform: Transform) -> dict[str, Any]:
    """Return the fields that heads of all kinds have, and the tensors."""
    bound = {"classes": tuple(body["classes"]), "space": body["space"], "space_sha256": body["space_sha256"]}
    return {**tensors, **bound, "transform": transform}


def _wrong(body: dict[str, Any], fields: Mapping[str, type]) -> list[str]:
    return [name for name, kind in fields.items() if not isinstance(body.get(name), kind)]


def _length(tensor: "Tensor | None") -> int:
    return len(tensor) if tensor is not None and tensor.ndim else 0


def _check(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], where: str, **dtypes: str) -> None:
    """Refuse tensors of other names, shapes or dtypes; float32 where no other dtype is said."""
    found = {name: (str(tensor.dtype).removeprefix("torch."), *tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: (dtypes.get(name, "float32"), *shape) for name, shape in shapes.items()}
    if found != wanted:
        raise DataError(f"{where}: its tensors are {found}, expected {wanted}")
