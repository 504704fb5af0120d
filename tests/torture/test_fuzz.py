"""Shards and sample tables changed at random, read with the SHA-256 of the changed bytes.

The check of the hash stands before HDF5, so such bytes can only come from somebody who wrote the manifest too.
What is promised is what comes out: an error, or arrays of the right types that lie in the file. HDF5 is a large
library in C and may crash or hang on such bytes; that is counted and not promised.
"""

import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from crafted import SAMPLES, SHARD, crafted
from harness import trials
from lookup3 import mended, pieces
from small_cache import SPACE, make_rows, make_table
from test_crafted_files import Case, read
from watch import MB, answers, memory, needs_proc

from pipeline.store.shard import shard_bytes

ODD_NUMBERS = [0, 1, 2, 7, 8, 48, 255, 4096, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1]
ALLOWED = {"refused", "read as it should be", "read as something else of the right types"}
Change = Callable[[bytearray, np.random.Generator, bytes], bytearray]


def flip_bits(data: bytearray, rng: np.random.Generator, other: bytes) -> bytearray:
    for place in rng.integers(len(data), size=rng.integers(1, 17)).tolist():
        data[place] ^= 1 << int(rng.integers(8))
    return data


def set_bytes(data: bytearray, rng: np.random.Generator, other: bytes) -> bytearray:
    for place in rng.integers(len(data), size=rng.integers(1, 4)).tolist():
        data[place] = int(rng.integers(256))
    return data


def set_numbers(data: bytearray, rng: np.random.Generator, other: bytes) -> bytearray:
    """Write numbers that lengths, counts and addresses like least, or an address in the file."""
    for _ in range(int(rng.integers(1, 3))):
        width = int(rng.choice([1, 2, 4, 8]))
        place = int(rng.integers(len(data) - width))
        odd = ODD_NUMBERS[int(rng.integers(len(ODD_NUMBERS)))]
        number = odd if rng.random() < 0.5 else int(rng.integers(len(data)))
        data[place : place + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return data


def copy_block(data: bytearray, rng: np.random.Generator, other: bytes) -> bytearray:
    length = int(rng.integers(1, 256))
    source, goal = rng.integers(len(data) - length, size=2).tolist()
    data[goal : goal + length] = data[source : source + length]
    return data


def splice(data: bytearray, rng: np.random.Generator, other: bytes) -> bytearray:
    cut = int(rng.integers(len(data)))
    return data[:cut] + other[cut if rng.random() < 0.5 else int(rng.integers(len(other))) :]


def cut_short(data: bytearray, rng: np.random.Generator, other: bytes) -> bytearray:
    return data[: int(rng.integers(len(data)))]


CHANGES: list[Change] = [flip_bits, set_bytes, set_numbers, copy_block, splice, cut_short]


class Fuzz:
    """Files to change: a shard, a sample table, and a shard as another program writes it."""

    def __init__(self, folder: Path) -> None:
        rows = make_rows()
        self.valid = [
            (SHARD, shard_bytes(SPACE, rows)),
            (SAMPLES, make_table([rows]).to_bytes()),
            (SHARD, crafted(folder, SHARD, libver=("v108", "v108"))),
        ]
        self.pieces = [pieces(data) for _, data in self.valid]
        assert all(mended(data, found) == data for (_, data), found in zip(self.valid, self.pieces, strict=True))

    def case(self, number: int) -> Case:
        """The `number`th changed file; half of them have right checksums in their metadata again."""
        rng = np.random.default_rng([7, number])
        which = number % len(self.valid)
        kind, data = self.valid[which]
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        other = self.valid[int(rng.integers(len(self.valid)))][1]
        changed = bytes(change(bytearray(data), rng, other))
        if rng.random() < 0.5:
            changed = mended(changed, self.pieces[which])
        return Case(f"{number}: {change.__name__}", kind, changed)


def spare_the_machine() -> None:
    limit = memory("VmSize") + 4096 * MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def test_whatever_bytes_are_read_only_right_arrays_come_out(tmp_path, tally):
    needs_proc()
    fuzz = Fuzz(tmp_path)
    count = trials(300, 20_000)
    found = answers(lambda n: read(fuzz.case(n)), count, tmp_path / "answers", limit=5.0, prepare=spare_the_machine)
    wrong = [
        f"{fuzz.case(number).name}: {answer.said}"
        for number, answer in enumerate(found)
        if answer.said not in ALLOWED and not answer.said.startswith(("crashed", "hung"))
    ]
    assert not wrong, "\n".join(wrong)
    assert not [answer for answer in found if answer.opened]
    said = Counter(answer.said for answer in found)
    # What is refused means little if nothing is ever read: bytes of features may have any value.
    assert min(said[name] for name in ALLOWED) > count // 100
    tally("changed files with a matching SHA-256", count, "; ".join(f"{n:,} {name}" for name, n in said.most_common()))
    largest = max(found, key=lambda answer: answer.grown)
    tally("the same", count, f"at most {largest.grown / MB:.0f} MB and {max(a.seconds for a in found):.2f} s each")
