"""Heads read back: from a run's folder, or from a description and tensors that came another way."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.digest import is_sealed, sha256_bytes
from pipeline.errors import CacheError, DataError
from pipeline.heads.head import DESCRIPTION, FORMAT, FORMAT_VERSION, WEIGHTS, Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.mlp import MlpHead
from pipeline.heads.neighbours import KnnHead
from pipeline.store.verified import read_whole

if TYPE_CHECKING:
    from torch import Tensor

KINDS: dict[str, Any] = {"linear": LinearHead, "mlp": MlpHead, "knn": KnnHead}
FIELDS = {"format": str, "classes": list, "dim": int, "weights_sha256": str, "space": dict, "space_sha256": str}
MAX_BYTES = 4 << 30


def read_head(folder: Path) -> Head:
    """Read a head from the files of its `to_files`.

    Raises:
        DataError: if they are missing, damaged, or do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        body = json.loads(read_whole(folder / DESCRIPTION, MAX_BYTES))
        data = read_whole(folder / WEIGHTS, MAX_BYTES)
        tensors = load(data)
    except (OSError, ValueError, RecursionError, CacheError, SafetensorError) as error:
        raise DataError(f"the head in {folder} cannot be read: {error}") from error
    head = head_of(body, tensors, str(folder / DESCRIPTION))
    if sha256_bytes(data) != body["weights_sha256"]:
        raise DataError(f"{folder / WEIGHTS} is damaged: it does not have the SHA-256 in {DESCRIPTION}")
    return head


def head_of(body: Any, tensors: Mapping[str, "Tensor"], where: str) -> Head:  # noqa: ANN401 - any JSON value
    """Return the head that a description and its tensors make; `where` they come from is for errors.

    Raises:
        DataError: if the description is not sealed, of another version or kind, or does not fit the tensors.
    """
    if not isinstance(body, dict) or not is_sealed(body) or body.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{where} is damaged or of another version")
    wrong = [name for name, kind in FIELDS.items() if not isinstance(body.get(name), kind)]
    if wrong or body["format"] != FORMAT or not all(isinstance(name, str) for name in body["classes"]):
        raise DataError(f"{where} is no description of a head: {', '.join(wrong) or 'its classes'}")
    if body.get("kind") not in list(KINDS):  # a list: what came with the file need not be hashable
        raise DataError(f"{where} is of kind {body.get('kind')!r}, this package knows {', '.join(KINDS)}")
    kind = KINDS[body["kind"]]
    wanted = kind.shapes(body, len(body["classes"]), body["dim"])
    if body.get("standardize") is not None:
        wanted |= {"mean": (body["dim"],), "scale": (body["dim"],)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != wanted:
        raise DataError(f"{where}: its tensors are {shapes}, expected {wanted}")
    try:
        head: Head = kind.read(body, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} lacks what a {body['kind']} head needs: {error}") from error
    return head
