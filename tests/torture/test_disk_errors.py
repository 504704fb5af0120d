"""A disk that refuses: at every single call the command says so in one line, loses nothing, and goes on later."""

import errno
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from aftermath import assert_finished, assert_nothing_lost, assert_whole, leftovers_of
from harness import FULL, Child, in_child, trials
from lanes import Step, Trial, about, run_trials
from stages import Said, Stage, make_stages, run_command, said
from syscalls import fail_at, short_writes

CACHE_ERROR = 4
FULL_DISK, BROKEN, READ_ONLY = (errno.ENOSPC, errno.EDQUOT), (errno.EIO,), (errno.EROFS,)
NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
"""What `link` answers on disks without hard links: the bytes are copied then, and nothing fails."""
CODES = {
    "open": FULL_DISK + BROKEN + READ_ONLY,
    "write": FULL_DISK + BROKEN,
    "fsync": FULL_DISK + BROKEN,
    "mkdir": FULL_DISK + BROKEN + READ_ONLY,
    "link": FULL_DISK + BROKEN + READ_ONLY + NO_LINKS,
    "rename": FULL_DISK + BROKEN + READ_ONLY,
    "replace": FULL_DISK + BROKEN + READ_ONLY,
    "unlink": BROKEN + READ_ONLY,
    "rmdir": BROKEN + READ_ONLY,
    "utime": BROKEN + READ_ONLY,
    "read": BROKEN,
}
"""What a disk may answer to a call."""
VITAL = {"open", "write", "fsync", "mkdir", "link", "replace"}
"""Calls without which something is missing in the end: their errors are said. What is removed may stay, and what
cannot be read is made again."""

Fault = tuple[Stage, int, int, bool]
"""A stage, the number of a call, the error, and whether everything fails from there on."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Stage]:
    return make_stages(tmp_path_factory.getbasetemp() / "stages")


def faults_of(stage: Stage) -> list[Fault]:
    """All errors at every call of a new extraction; for others, which mostly do the same, one error at every call."""
    faults: list[Fault] = []
    for number, call in enumerate(stage.calls, 1):
        codes = CODES[call.name]
        if stage.name != "new":
            faults.append((stage, number, codes[number % len(codes)], False))
            continue
        faults += [(stage, number, code, False) for code in codes]
        if call.name != "read":
            faults.append((stage, number, errno.EROFS, True))
    return faults


def of_index(stage: Stage) -> range:
    """The numbers of the calls that write the stat index: it may be lost, which a warning says."""
    its = [n for n, call in enumerate(stage.calls, 1) if call.name != "read" and call.path.split("/")[0] == "index"]
    return range(its[0], its[-1] + 1) if its else range(0)


def check_said(end: Said, *, vital: bool, copied: bool) -> None:
    """Check that an error was said in one line, or that nothing vital failed."""
    assert "Traceback" not in end.out + end.err, end
    if end.code == 0:
        assert copied or not vital, "an error was passed over in silence"
        return
    assert end.code == CACHE_ERROR, end
    assert not copied, end
    error = end.document["error"]
    assert error["kind"] == "cache"
    assert error["message"]
    assert "\n" not in error["message"] + error["hint"]


def failed_and_finished(fault: Fault, folder: Path, endings: Counter[int]) -> Trial:
    stage, number, code, ever_after = fault
    call = stage.calls[number - 1]
    with about(stage.name, errno.errorcode[code] + (" ever after" if ever_after else ""), number, call):
        root, log = stage.root(folder), folder / "acknowledged"
        there = call.name == "mkdir" and ((root / call.path).is_dir() or call in stage.calls[: number - 1])
        act = fail_at(number, code, ever_after=ever_after)
        outcome = yield Step(Child(lambda: run_command(stage.command, root, act=act, reads=True, log=log)))
        assert outcome.code == 0, outcome
        end = said(outcome.result)
        vital = call.name in VITAL and number <= stage.published and number not in of_index(stage) and not there
        check_said(end, vital=vital, copied=call.name == "link" and code in NO_LINKS)
        endings[end.code] += 1
        acknowledged = assert_nothing_lost(stage, root, log)
        if vital and number < stage.published and stage.name != "removed" and not ever_after:
            assert leftovers_of(root) == []
        if end.code == 0 and stage.name != "removed":
            assert stage.entry in assert_whole(stage, root)

        command = stage.finish[number % len(stage.finish)]
        outcome = yield Step(Child(lambda: run_command(command, root)))
        assert outcome.code == 0, outcome
        assert_finished(stage, root, said(outcome.result), stage.most(command, acknowledged))
    shutil.rmtree(folder)


def test_an_error_at_any_call_is_said_and_loses_nothing(stages, tmp_path, tally):
    faults = [fault for stage in stages.values() for fault in faults_of(stage)]
    if not FULL:
        faults = random.Random(3).sample(faults, 18)
    endings: Counter[int] = Counter()
    done = run_trials(failed_and_finished(fault, tmp_path / f"{n}", endings) for n, fault in enumerate(faults))
    tally("disk errors, each at another call", done, f"{endings[CACHE_ERROR]:,} said in one line, the rest harmless")


def test_short_writes_are_completed_in_silence(stages, tmp_path, tally):
    sizes = {"half": lambda n: -(-n // 2), "pages": lambda n: min(n, 4096), "bytes": lambda n: 1 if n < 2000 else n - 1}
    chosen = [(stage, name) for stage in stages.values() for name in sizes if stage.name != "removed"]
    for stage, name in chosen[: trials(quick=2, full=len(chosen))]:
        root = stage.root(tmp_path / f"{stage.name}-{name}")
        with about(stage.name, name):
            outcome = in_child(lambda: run_command(stage.command, root, act=short_writes(sizes[name])))  # noqa: B023
            assert outcome.code == 0, outcome
            assert_finished(stage, root, said(outcome.result), stage.computed)
    tally("extractions with short writes only", trials(quick=2, full=len(chosen)), "bytes equal")
