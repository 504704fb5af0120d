"""Splits derived by hashing: an image's side depends on its own content and a seed, and on nothing else."""

import hashlib
from collections.abc import Sequence

import numpy as np


def drawn(
    purpose: str,
    seed: int,
    fraction: float,
    digests: np.ndarray,
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> np.ndarray:
    """Return which samples are drawn (n,) bool: those with hash(purpose, seed, image digest) < fraction.

    The same image is drawn again however many others come or go, and equal images are drawn together. With `groups`,
    n names, it is the group's name in place of the digest: a group is drawn whole or not at all.
    `purpose` keeps draws independent of each other (test rows, validation rows). `digests` is (n, 32) uint8;
    a file that could not be read has a digest of zeros and is drawn by its id, if `ids` are given.
    """
    salt = f"{purpose} {seed} ".encode()
    limit = int(fraction * 2**64)
    out = np.empty(len(digests), bool)
    for row, digest in enumerate(np.ascontiguousarray(digests).view("V32").reshape(-1).tolist()):
        if groups is not None:
            key = groups[row].encode("utf-8", "surrogateescape")
        else:
            key = ids[row].encode("utf-8", "surrogateescape") if ids is not None and not any(digest) else digest
        out[row] = int.from_bytes(hashlib.sha256(salt + key).digest()[:8], "big") < limit
    return out
