"""A real disk that is too small, by one page more each time; then it grows, and the same command goes on."""

import sys
from pathlib import Path
from typing import Any

import pytest
from aftermath import assert_finished, assert_nothing_lost
from harness import Child, in_child, trials
from lanes import Step, Trial, about, run_trials
from stages import Stage, make_stages, run_command, said
from syscalls import Act, Call
from tmpfs import PAGE, enter_namespace, mount, resize

CACHE_ERROR = 4
LARGE = 1024
"""Pages of a disk on which everything fits."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux mount namespaces")


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Stage:
    return make_stages(tmp_path_factory.getbasetemp() / "stages")["new"]


@pytest.fixture(scope="module", autouse=True)
def _namespaces(tmp_path_factory) -> None:
    def attempt() -> None:
        enter_namespace()
        mount(tmp_path_factory.mktemp("disk"), 1)

    outcome = in_child(attempt)
    if outcome.code:
        pytest.skip(f"no disk can be mounted here: {outcome.error.strip().splitlines()[-1]}")


def fill(disk: Path, pages: int) -> Act:
    """When work begins, let something else take the disk but for so many pages."""

    def act(number: int, _: Call, make: Any) -> Any:
        if number == 1:
            (disk / "other").write_bytes(bytes((LARGE - pages) * PAGE))
        return make()

    return act


def on_small_disk(stage: Stage, disk: Path, pages: int, *, meanwhile: bool) -> dict[str, Any]:
    """Extract on a disk with so many free pages, then on a larger one. For use in a child.

    With `meanwhile` the space is there when the command begins and goes while it runs.
    """
    enter_namespace()
    mount(disk, LARGE if meanwhile else pages)
    root, log = disk / "cache", disk.with_name("acknowledged")
    act = fill(disk, pages) if meanwhile else None
    outcome = in_child(lambda: run_command(stage.command, root, act=act, log=log), timeout=60)
    assert outcome.code == 0, outcome
    first = said(outcome.result)
    assert "Traceback" not in first.out + first.err, first
    acknowledged = assert_nothing_lost(stage, root, log)

    resize(disk, 2 * LARGE)
    outcome = in_child(lambda: run_command(stage.command, root), timeout=60)
    assert outcome.code == 0, outcome
    assert_finished(stage, root, said(outcome.result), stage.most(stage.command, acknowledged))
    return {"code": first.code, "document": first.document, "done": len(acknowledged)}


def small_disk(stage: Stage, folder: Path, pages: int, meanwhile: bool, found: dict[int, dict[str, Any]]) -> Trial:
    disk = folder / "disk"
    disk.mkdir(parents=True)
    with about(f"{pages} pages", "meanwhile" if meanwhile else "from the start"):
        outcome = yield Step(Child(lambda: on_small_disk(stage, disk, pages, meanwhile=meanwhile)))
        assert outcome.code == 0, outcome.error
        found[pages] = outcome.result
        if outcome.result["code"]:
            assert outcome.result["code"] == CACHE_ERROR, outcome.result
            error = outcome.result["document"]["error"]
            assert error["kind"] == "cache"
            assert "\n" not in error["message"] + error["hint"]
            assert ("the disk is full" if meanwhile else "are free") in error["message"], error


def needed_pages(stage: Stage) -> int:
    """Return about how many pages the entry takes, each file rounded up."""
    return sum(-(-len(data) // PAGE) for data in stage.files.values())


def test_a_disk_that_fills_up_is_said_and_work_goes_on_when_it_grows(stage, tmp_path, tally):
    needed = needed_pages(stage)
    sizes = list(range(1, needed + 10)) if trials(0, 1) else [2, needed // 2, needed]
    found: dict[int, dict[str, Any]] = {}
    run_trials(small_disk(stage, tmp_path / f"{pages}", pages, True, found) for pages in sizes)
    failed = [pages for pages in sizes if found[pages]["code"]]
    assert failed == sizes[: len(failed)], "a larger disk was too small where a smaller one was not"
    assert len(failed) >= trials(quick=3, full=30)
    done = [found[pages]["done"] for pages in failed]
    assert done == sorted(done)
    assert done[0] == 0 < done[-1]
    tally("sizes of a disk that filled up", len(failed), "said in one line, resumed to equal bytes on a larger one")


def test_what_surely_does_not_fit_is_not_begun(stage, tmp_path, tally):
    needed = needed_pages(stage)
    sizes = list(range(1, needed - 8, 4)) if trials(0, 1) else [needed // 2]
    found: dict[int, dict[str, Any]] = {}
    run_trials(small_disk(stage, tmp_path / f"{pages}", pages, False, found) for pages in sizes)
    assert {result["code"] for result in found.values()} == {CACHE_ERROR}
    assert {result["done"] for result in found.values()} == {0}
    tally("sizes of a disk that was too small from the start", len(sizes), "refused before any work")
