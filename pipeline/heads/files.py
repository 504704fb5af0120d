"""A head as files: safetensors for its tensors, sealed JSON for the rest."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.digest import seal, sha256_bytes
from pipeline.heads.head import Head
from pipeline.heads.transform import Transform

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, DESCRIPTION = "head.safetensors", "head.json"
TAIL = "tail.safetensors"
"""Beside a head that was trained together with layers of the network: their tensors."""
TAIL_PREFIX = "tail."
FORMAT = "pipeline-head"
PLAIN, FORMAT_VERSION = 1, 2
"""A linear head without a transform is written in the first version's form, which every reader knows."""


def head_files(
    head: Head,
    tensors: Mapping[str, "Tensor"],
    transform: Transform,
    more: Mapping[str, Any] | None = None,
    tail: Mapping[str, "Tensor"] | None = None,
) -> dict[str, bytes]:
    """Return the files of a head: `more` are the fields of its kind, `tail` the layers trained with it."""
    from safetensors.torch import save

    named = dict(tensors)
    if transform.mean is not None and transform.scale is not None:
        named |= {"mean": transform.mean, "scale": transform.scale}
    data = save({name: tensor.contiguous() for name, tensor in named.items()})
    plain = head.kind == "linear" and transform.nothing
    steps = {"l2_norm": transform.l2_norm, "standardize": transform.mean is not None}
    body = {
        "format": FORMAT,
        "format_version": PLAIN if plain else FORMAT_VERSION,
        "kind": head.kind,
        "classes": list(head.classes),
        "dim": head.dim,
        "weights_sha256": sha256_bytes(data),
        **({"standardize": None} if plain else {**steps, **(more or {})}),
        "space": head.space,
        "space_sha256": head.space_sha256,
    }
    files = {WEIGHTS: data}
    if tail is not None:
        files[TAIL] = save({name: tensor.contiguous() for name, tensor in tail.items()})
        body["tail_sha256"] = sha256_bytes(files[TAIL])
    return {**files, DESCRIPTION: json.dumps(seal(body), indent=1).encode() + b"\n"}


def file_tensors(files: Mapping[str, bytes]) -> dict[str, "Tensor"]:
    """Return all tensors in the files of a head, those of its tail as `tail.*`."""
    from safetensors.torch import load

    found: dict[str, Tensor] = load(files[WEIGHTS])
    if TAIL in files:
        found |= {f"{TAIL_PREFIX}{name}": tensor for name, tensor in load(files[TAIL]).items()}
    return found
