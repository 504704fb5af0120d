"""One wrong bit anywhere in a cache is seen, and so is every other small damage that a disk can do."""

import functools
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import FULL, in_child, trials
from small_cache import SPACE, SmallCache, make_cache, plain

from pipeline.store.shard import parse_shard

SECTOR = 512


@pytest.fixture
def cache(tmp_path) -> SmallCache:
    return make_cache(tmp_path / "cache")


def accepted(path: Path, read: Callable[[], Any], damages: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """Put each damaged content in the place of a file and read it. Tell how many there were and which were accepted."""
    logging.disable()  # a warning for each would be 100,000 lines
    data = path.read_bytes()
    before = read()
    assert before is not None
    path.unlink()  # it may be read-only and have other names
    done, passed = 0, []
    with path.open("xb", buffering=0) as file:
        for name, damaged in [*damages, ("undamaged", data)]:
            if damaged != data or name == "undamaged":
                os.pwrite(file.fileno(), damaged, 0)
                os.ftruncate(file.fileno(), len(damaged))
                done += 1
                if read() is not None:
                    passed.append(name)
        assert read() == before
    assert passed.pop() == "undamaged", "an undamaged file is accepted, so a refusal means something"
    return {"done": done - 1, "passed": passed}


def damage_everything(cache: SmallCache, damages: Callable[[str, bytes], Iterable[tuple[str, bytes]]]) -> int:
    """Damage all files in turn, each in a child of its own. Return the number of damages, all of which were seen."""
    done = 0
    for path, read in cache.readers().items():
        name = str(path.relative_to(cache.root))
        outcome = in_child(functools.partial(accepted, path, read, damages(name, path.read_bytes())))
        assert outcome.code == 0, f"{name}: a reader ended with {outcome.code}\n{outcome.error}"
        assert outcome.result["passed"] == [], f"{name}: accepted"
        done += outcome.result["done"]
    return done


def flips(data: bytes, bits: Iterable[int]) -> Iterable[tuple[str, bytes]]:
    damaged = bytearray(data)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", bytes(damaged)
        damaged[bit // 8] ^= 1 << bit % 8


def some_bits(size: int, count: int, rng: np.random.Generator) -> list[int]:
    """One random bit of each of `count` bytes, the first and the last ones among them."""
    inner = 16 + rng.permutation(max(0, size - 32))[: max(0, count - 32)]
    places = sorted({*range(min(16, size)), *inner.tolist(), *range(max(0, size - 16), size)})
    return [8 * place + int(rng.integers(8)) for place in places]


def test_every_flipped_bit_of_every_file_is_seen(cache, tally):
    rng = np.random.default_rng(0)
    total = sum(path.stat().st_size for path in cache.readers())

    def damages(name: str, data: bytes) -> Iterable[tuple[str, bytes]]:
        share = 6000 * len(data) // total
        return flips(data, range(8 * len(data)) if FULL else some_bits(len(data), share, rng))

    done = damage_everything(cache, damages)
    assert done >= trials(5_500, 100_000)
    tally(f"bit flips in {len(cache.readers())} files", done, "all detected, nothing else accepted")


def test_a_file_cut_short_at_any_length_is_seen(cache, tally):
    rng = np.random.default_rng(1)

    def damages(name: str, data: bytes) -> Iterable[tuple[str, bytes]]:
        lengths = range(len(data)) if FULL else {0, 1, len(data) - 1, *rng.integers(0, len(data), 60).tolist()}
        return [(f"{length} bytes", data[:length]) for length in lengths]

    done = damage_everything(cache, damages)
    assert done >= trials(500, 15_000)
    tally("truncations", done, "all detected")


def test_a_file_made_longer_is_seen(cache, tally):
    def damages(name: str, data: bytes) -> Iterable[tuple[str, bytes]]:
        tails = [b"\0", b"\n", b" ", b"}", bytes(SECTOR), data[-64:], data]
        return [(f"{tail[:8]!r} after it", data + tail) for tail in tails] + [("before it", b"\0" + data)]

    tally("files made longer", damage_everything(cache, damages), "all detected")


def test_every_lost_or_strange_sector_is_seen(cache, tally):
    rng = np.random.default_rng(2)

    def damages(name: str, data: bytes) -> Iterable[tuple[str, bytes]]:
        for first in range(0, len(data), SECTOR):
            there = data[first : first + SECTOR]
            elsewhere = int(rng.integers(max(1, len(data) - SECTOR)))
            strange = {
                "zeros": bytes(len(there)),
                "ones": b"\xff" * len(there),
                "from elsewhere": data[elsewhere : elsewhere + len(there)],
                "random": rng.bytes(len(there)),
            }
            for what, other in strange.items():
                yield f"{what} at {first}", data[:first] + other.ljust(len(there)) + data[first + len(there) :]

    done = damage_everything(cache, damages)
    assert done >= 100
    tally("sectors lost or written over", done, "all detected")


def test_without_the_hash_flipped_bits_of_features_would_pass(cache):
    """The other way round: HDF5 by itself hands out wrong numbers, and the loop above would tell."""
    path = cache.entry.shard_path(0)
    data = path.read_bytes()
    features = cache.entry.read_shard(0).features.tobytes()
    first = data.index(features)
    bits = range(8 * first, 8 * first + 256)

    def blind() -> Any:
        return plain(parse_shard(path.read_bytes(), SPACE, "blind"))

    outcome = in_child(lambda: accepted(path, blind, flips(data, bits)))
    assert len(outcome.result["passed"]) == outcome.result["done"] == 256
