"""HDF5 files made to do harm, with the SHA-256 that a manifest names: whoever wrote them wrote the manifest too.

Each is refused before its data is read: quickly, in little memory, and without a look at any other file.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crafted
import crafted_bytes
import crafted_files
import crafted_layouts
import crafted_types
import h5py
import numpy as np
import pytest
from crafted import KINDS, SHARD, Kind, guarded
from crafted_exports import export_kind
from harness import FULL, in_child
from watch import MB, Answer, Guard, answers, needs_proc

from pipeline.errors import CacheError
from pipeline.store.single import BLOCK

SECONDS, MEMORY = 2.0, 200 * MB


@dataclass(frozen=True)
class Case:
    name: str
    kind: Kind
    data: bytes


@pytest.fixture
def guard(tmp_path) -> Iterator[Guard]:
    """Watch the folder that crafted files point to."""
    place = guarded(tmp_path)
    made = Guard(place, place / "plugins")
    yield made
    made.close()


def trace(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def inside(array: np.ndarray, data: bytes) -> bool:
    """Whether an array is a view of `data` that cannot be written."""
    first, last = np.lib.array_utils.byte_bounds(array)
    start, end = np.lib.array_utils.byte_bounds(np.frombuffer(data, np.uint8))
    return array.size == 0 or (start <= first and last <= end and not array.flags.writeable)


def look_in(folder: Path) -> None:
    """Let HDF5 look for filters that it does not have in the guarded folder."""
    h5py.h5pl.prepend(bytes(folder / crafted.GUARDED / "plugins"))


def read(case: Case) -> str:
    """Tell what the reader makes of a file."""
    try:
        found = case.kind.parse(case.data)
    except CacheError as error:
        if any(isinstance(cause, MemoryError) for cause in trace(error)):
            return "refused after it asked for too much memory"
        return "refused"
    except Exception as error:  # noqa: BLE001 - told to the parent
        return f"{type(error).__name__}: {error}"
    right = case.kind.columns
    if all(found[name].dtype == right[name].dtype and found[name].tobytes() == right[name].tobytes() for name in right):
        return "read as it should be"
    if case.kind is SHARD and not all(inside(array, case.data) for array in found.values()):
        return "read from outside the file"
    return "read as something else of the right types" if crafted_bytes.whole(case.kind, found) else "read wrong"


def judge(
    cases: list[Case],
    folder: Path,
    guard: Guard,
    allowed: tuple[str, ...] = ("refused",),
    prepare: Callable[[], None] = bool,
) -> list[Answer]:
    """Read files; all must end in an allowed way, quickly, in little memory, without a look elsewhere."""
    needs_proc()
    guard.events()
    found = answers(lambda number: read(cases[number]), len(cases), folder / "answers", prepare=prepare)
    problems = []
    for case, answer in zip(cases, found, strict=True):
        strangers = [path for path in answer.opened if not path.startswith(str(folder)) and not path.isdigit()]
        # HDF5 makes a copy of a file's bytes.
        slow_or_large = answer.seconds > SECONDS or answer.grown > MEMORY + len(case.data)
        if answer.said not in allowed or slow_or_large or strangers:
            used = f"{answer.seconds:.1f} s, {answer.grown / MB:.0f} MB, opened {strangers}"
            problems.append(f"{case.name}: {answer.said}, {used}")
    assert not problems, f"{len(problems)} of {len(cases)}:\n" + "\n".join(problems)
    assert guard.events() == [], "a file that a crafted one points to was opened"
    return found


def columns(folder: Path, makers: list[crafted.Maker], kinds: dict[str, Kind] = KINDS, **options: Any) -> list[Case]:
    """Files with one column made by each of the makers: every column of every kind in turn, or one drawn for each."""
    rng = np.random.default_rng(0)
    return [
        Case(
            f"{kind_name}: {name}: {make.__name__}",
            kind,
            crafted.crafted(folder, kind, functools.partial(make, name=name, array=array), skip=name, **options),
        )
        for make in makers
        for kind_name, kind in kinds.items()
        for name in (list(kind.columns) if FULL else [str(rng.choice(list(kind.columns)))])
        for array in [kind.columns[name]]
    ]


def files(folder: Path, makers: dict[str, crafted_files.Maker], kinds: dict[str, Kind] = KINDS) -> list[Case]:
    return [
        Case(f"{kind_name}: {name}", kind, make(folder, kind))
        for name, make in makers.items()
        for kind_name, kind in kinds.items()
    ]


def test_what_is_not_crafted_is_read(tmp_path, guard):
    plain = [Case(name, kind, crafted.crafted(tmp_path, kind)) for name, kind in KINDS.items()]
    judge(plain, tmp_path, guard, ("read as it should be",))


def test_a_column_that_is_not_plain_data_in_the_file_is_refused(tmp_path, guard, tally):
    cases = columns(tmp_path, crafted_layouts.MADE)
    judge(cases, tmp_path, guard, prepare=lambda: look_in(tmp_path))
    tally(
        f"files with a column of {len(crafted_layouts.MADE)} other layouts", len(cases), "all refused, nothing opened"
    )


def test_a_column_of_another_type_is_refused(tmp_path, guard, tally):
    cases = columns(tmp_path, crafted_types.MADE)
    judge(cases, tmp_path, guard)
    tally(f"files with a column of {len(crafted_types.MADE)} other types", len(cases), "all refused")


def test_a_file_of_another_structure_is_refused(tmp_path, guard, tally):
    cases = files(tmp_path, crafted_files.REFUSED)
    judge(cases, tmp_path, guard)
    tally(f"files of {len(crafted_files.REFUSED)} other structures", len(cases), "all refused")


def test_a_file_with_very_many_names_is_refused(tmp_path, guard, tally):
    makers = crafted_files.MANY if FULL else crafted_files.SOME
    cases = files(tmp_path, makers, {"shard": SHARD})
    judge(cases, tmp_path, guard)
    tally(f"files with {' and '.join(makers)}", len(cases), "all refused")


def test_a_file_whose_numbers_make_no_sense_is_refused(tmp_path, guard, tally):
    cases = [Case(name, SHARD, data) for name, data in crafted_bytes.refused(tmp_path).items()]
    judge(cases, tmp_path, guard)
    tally("files with addresses, sizes and loops that make no sense", len(cases), "all refused")


def test_valid_files_that_nobody_here_writes_are_refused_or_read_right(tmp_path, guard, tally):
    cases = files(tmp_path, crafted_files.ODD)
    found = judge(cases, tmp_path, guard, ("refused", "read as it should be"))
    right = sum(answer.said != "refused" for answer in found)
    tally("valid files of other forms", len(cases), f"{right} read right, {len(cases) - right} refused")


def test_files_that_are_wrong_without_harm_give_views_of_their_own_bytes(tmp_path, guard, tally):
    """Two columns in one place are two views of the same bytes, which cannot be written: whoever made the file could
    have written those values twice.
    """
    cases = [Case(name, SHARD, data) for name, data in crafted_bytes.odd(tmp_path).items()]
    found = judge(
        cases, tmp_path, guard, ("refused", "read as it should be", "read as something else of the right types")
    )
    tally("files that are wrong without harm", len(cases), f"{sum(a.said == 'refused' for a in found)} refused")


def test_an_export_with_a_crafted_column_is_refused_or_imported_right(tmp_path, guard, tally):
    kinds = {"export": export_kind(tmp_path)}
    whole = [Case("whole", kind, crafted.crafted(tmp_path, kind, userblock_size=BLOCK)) for kind in kinds.values()]
    judge(whole, tmp_path, guard, ("read as it should be",))
    makers = [make for make in crafted_layouts.MADE + crafted_types.MADE if make is not crafted_layouts.other_column]
    cases = columns(tmp_path, makers, kinds, userblock_size=BLOCK)
    # Some columns are for who reads the file by other means: the entry is made from the others.
    found = judge(cases, tmp_path, guard, ("refused", "read as it should be"), prepare=lambda: look_in(tmp_path))
    right = sum(answer.said != "refused" for answer in found)
    tally(f"exports with a column of {len(makers)} other forms", len(cases), f"{right} imported right, others refused")


def test_reading_without_these_checks_is_seen_by_the_guard(tmp_path, guard):
    """The other way round: plain h5py opens what the files point to, and looks for filters."""
    for make, seen in (
        (crafted_layouts.external_storage, "secret"),
        (crafted_layouts.external_link, "source.h5"),
        (crafted_layouts.virtual, "source.h5"),
        (crafted_layouts.filter_of_a_plugin, ""),
    ):
        change = functools.partial(make, name="status", array=SHARD.columns["status"])
        data = crafted.crafted(tmp_path, SHARD, change, skip="status")

        def plain(data: bytes = data) -> None:
            look_in(tmp_path)
            with h5py.File.in_memory(data) as file:
                file["status"][...]

        guard.events()
        in_child(plain)
        assert seen in guard.events(), make
