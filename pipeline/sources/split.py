"""Splits derived by hashing: an image's side depends on its own content and a seed, and on nothing else."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.textcolumn import text_bytes

DIGEST = 32
UNREAD = bytes(DIGEST)
"""The digest of a file that could not be read."""
SPAN = 1 << 16
"""Rows whose digests are Python objects at the same time."""


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
    salted = hashlib.sha256(salt.encode())
    keys = map(text_bytes, groups) if groups is not None else _digests_or_ids(digests, ids)
    return np.fromiter((_number(salted, key) for key in keys), np.uint64, len(digests))


def _number(salted: "hashlib._Hash", key: bytes) -> int:
    state = salted.copy()
    state.update(key)
    return int.from_bytes(state.digest()[:8], "big")


def _digests_or_ids(digests: np.ndarray, ids: Sequence[str] | None) -> Iterator[bytes]:
    for first in range(0, len(digests), SPAN):
        span = np.ascontiguousarray(digests[first : first + SPAN]).tobytes()
        for place in range(0, len(span), DIGEST):
            digest = span[place : place + DIGEST]
            if ids is not None and digest == UNREAD:
                yield text_bytes(ids[first + place // DIGEST])
            else:
                yield digest
