"""Who is at work on what: taken by one, kept while it lives, taken over when it is lost, and never in the way."""

import os
import threading
import time
from dataclasses import replace

import pytest

from pipeline.errors import CacheError
from pipeline.store.claims import Claims, Holder
from pipeline.store.commit import write_json


@pytest.fixture
def work(tmp_path):
    """The folder of an extraction in progress."""
    folder = tmp_path / "plans" / "0123"
    folder.mkdir(parents=True)
    return folder


def claims(work, patience: float = 60.0, machine: str | None = None) -> Claims:
    """The claims as a worker sees them, on a machine of its own if one is named."""
    made = Claims(work, patience=patience)
    if machine is not None:
        made.holder = replace(made.holder, machine=machine)
    return made


def test_a_claim_is_one_worker_s_until_it_is_given_up(work):
    with claims(work) as one, claims(work) as other:
        assert one.take("3") is not None
        assert one.take("3") is not None
        assert other.take("3") is None
        other.release("3")
        assert other.take("3") is None
        one.release("3")
        assert other.take("3") is not None
    assert list((work / "claims").iterdir()) == []


def test_waiting_for_a_claim_writes_nothing(work):
    with claims(work) as one, claims(work) as other:
        one.take("3")
        before = (work / "claims").stat().st_mtime_ns
        assert other.take("3") is None
        assert (work / "claims").stat().st_mtime_ns == before


def test_a_claim_that_is_touched_stays_and_one_that_is_not_is_lost_after_its_patience(work, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("pipeline.store.claims.time.monotonic", lambda: now)
    with claims(work, machine="one") as one, claims(work, machine="two") as other:
        one.take("3")
        path = work / "claims" / "3.json"
        assert other.take("3") is None  # from now on it is watched
        now += 59
        assert other.take("3") is None
        os.utime(path, (0, 0))  # a clock that is wrong by decades says as much
        now += 2
        assert other.take("3") is None
        now += 61
        taken = other.take("3")
        assert (taken.deaths, taken.holder) == (1, other.holder)
        one.release("3")  # which wakes up: the claim is not its own any more
        assert path.exists()


def test_a_holder_that_finishes_nothing_touches_its_claims_no_more(work):
    with Claims(work, patience=0.06, hang=1e9) as at_work, Claims(work, patience=0.06, hang=-1.0) as hung:
        at_work.take("1")
        hung.take("2")
        first, second = work / "claims" / "1.json", work / "claims" / "2.json"
        os.utime(first, (0, 0))
        os.utime(second, (0, 0))
        limit = time.monotonic() + 60
        while not first.stat().st_mtime:
            assert time.monotonic() < limit
            time.sleep(0.01)
        assert not second.stat().st_mtime


def test_a_process_of_this_machine_that_is_gone_is_lost_at_once(work):
    with claims(work) as gone, claims(work) as heir:
        gone.holder = replace(gone.holder, started="never")
        gone.take("3")
        gone.update("3", trying=(7,), strikes={7: 1})
        taken = heir.take("3")
        assert (taken.deaths, taken.strikes) == (1, {7: 2})
        assert taken.holder == heir.holder


def test_of_many_heirs_one_takes_over(work):
    with claims(work) as gone:
        gone.holder = replace(gone.holder, started="never")
        gone.take("3")
        gone.held.clear()
    heirs = [claims(work, machine=str(number)) for number in range(8)]
    start, taken = threading.Barrier(len(heirs)), []

    def take(heir: Claims) -> None:
        start.wait()
        found = heir.take("3")
        if found is not None:
            taken.append(found)

    for heir in heirs:  # they know that it is lost: they have watched it for long
        heir._is_lost = lambda _, claim: claim.holder.started == "never"  # type: ignore[method-assign]
    threads = [threading.Thread(target=take, args=(heir,)) for heir in heirs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for heir in heirs:
        heir.__exit__()
    assert len(taken) == 1


def test_work_that_is_done_does_not_come_back(work):
    with claims(work) as one:
        one.take("3")
        os.rename(work, work.with_name("gone"))
        with pytest.raises(FileNotFoundError):
            one.take("4")
        one.update("3", trying=(1,))
        one.release("3")
    assert not work.exists()


FOREIGN = {
    "garbage": lambda path: path.write_bytes(b"\xff{"),
    "a folder": lambda path: (path / "inner").mkdir(parents=True),
    "a link": lambda path: path.symlink_to("/etc/hostname"),
    "a pipe": lambda path: os.mkfifo(path),
    "fields that cannot be": lambda path: write_json(
        path, {"format": "pipeline-claim", "format_version": 1, "holder": {}}, replace=False
    ),
    "rows that are none": lambda path: write_json(
        path,
        {
            **{"format": "pipeline-claim", "format_version": 1, "holder": vars(Holder.me()), "deaths": 0},
            **{"trying": [True], "strikes": [[1, 2, 3]]},
        },
        replace=False,
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_claim_is_removed_and_taken(work, what):
    (work / "claims").mkdir()
    FOREIGN[what](work / "claims" / "3.json")
    with claims(work) as one:
        assert one.take("3") is not None
        assert one.take("3").holder == one.holder


def test_what_can_be_neither_read_nor_removed_is_said(work, monkeypatch):
    (work / "claims" / "3.json").mkdir(parents=True)
    monkeypatch.setattr("pipeline.store.claims.remove_leftovers", lambda found: None)
    with claims(work) as one, pytest.raises(CacheError, match=r"3\.json.*cannot be removed"):
        one.take("3")
