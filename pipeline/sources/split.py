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
    numbers = _numbers(f"{purpose} {seed} ", digests, ids, groups)
    # One above the limit of uint64 is no uint64.
    return np.ones(len(numbers), bool) if fraction >= 1 else np.asarray(numbers < np.uint64(int(fraction * 2**64)))


def folds(seed: int, count: int, digests: np.ndarray, groups: Sequence[str] | None = None) -> np.ndarray:
    """Return the fold (n,) int64, below `count`, of samples: floor(count x hash(seed, image digest or group)).

    As with `drawn`, an image or group stays in its fold however many others come or go.
    """
    shares = _numbers(f"fold {seed} ", digests, None, groups).astype(np.float64) / 2.0**64
    return np.minimum((shares * count).astype(np.int64), count - 1)


def _numbers(salt: str, digests: np.ndarray, ids: Sequence[str] | None, groups: Sequence[str] | None) -> np.ndarray:
    """Return a number (n,) uint64 for each sample: the hash of its group's name, else its digest, else its id."""
    out = np.empty(len(digests), np.uint64)
    for row, digest in enumerate(np.ascontiguousarray(digests).view("V32").reshape(-1).tolist()):
        if groups is not None:
            key = groups[row].encode("utf-8", "surrogateescape")
        else:
            key = ids[row].encode("utf-8", "surrogateescape") if ids is not None and not any(digest) else digest
        out[row] = int.from_bytes(hashlib.sha256(salt.encode() + key).digest()[:8], "big")
    return out
