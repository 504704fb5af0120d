"""Several workers on one extraction, and what may come between: all end the same, with the same bytes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SPACE, make_photos
from harness import FULL, Child, entry_bytes
from PIL import Image

import pipeline
from pipeline.errors import PipelineError, error_to_json
from pipeline.store import statindex

ROWS = 24
TINY = {
    **{"backbone": "sleepy_network:network", "batch_size": 4, "shard_rows": 4, "workers": 1},
    **{"engine": "reference", "worker_timeout": 1.0},
}


def begin(source, cache, worker=None, *, environment=(), remembered=False, **options) -> Child:
    """Start a worker; its answer is its result, or its error."""

    def work():
        os.environ.update(environment)
        if remembered:
            statindex.GRANULARITY_NS = -(10**18)
        try:
            return pipeline.extract(str(source), cache_dir=cache, worker=worker, **{**TINY, **options}).to_json()
        except PipelineError as error:
            return {"error": error_to_json(error)}

    return Child(work)


def ends(*children: Child) -> list[dict]:
    """Wait for all and return their answers."""
    outcomes = [child.end() for child in children]
    assert all(outcome.code == 0 for outcome in outcomes), outcomes
    return [outcome.result for outcome in outcomes]


def wait_for(what, seconds: float = 60.0):
    """Wait until `what()` is true of the disk, and return it."""
    limit = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < limit
        time.sleep(0.005)
    return found


def records(cache) -> list[Path]:
    return sorted(Path(cache).glob("plans/[!.]*/records/*.json"))


def left(cache) -> list[str]:
    """What lies where work in progress does."""
    return sorted(path.name for path in Path(cache).glob("plans/*"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "photos", per_class=ROWS // 3)


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory) -> dict[str, bytes]:
    """The bytes that one process makes."""
    (made,) = ends(begin(photos, tmp_path_factory.mktemp("alone")))
    return entry_bytes(Path(made["path"]))


def started(photos, cache, worker="0/2", seconds="0.3") -> Child:
    """A worker that has committed a shard and is at another."""
    child = begin(photos, cache, worker, environment={"SLEEPY_SECONDS": seconds})
    wait_for(lambda: records(cache))
    return child


def test_a_worker_that_was_stopped_for_long_wakes_up_and_changes_nothing(photos, alone, tmp_path, tally):
    sleeper = started(photos, tmp_path)
    sleeper.kill(signal.SIGSTOP)
    (made,) = ends(begin(photos, tmp_path, "1/2"))
    files = [path for path in Path(made["path"]).rglob("*") if path.is_file()]
    inodes = {path: path.stat().st_ino for path in files}
    stamps = {path: path.stat().st_mtime_ns for path in files if path.name != "entry.json"}  # which says: found by both
    sleeper.kill(signal.SIGCONT)
    (woken,) = ends(sleeper)
    assert woken["cache"] == made["cache"]
    assert woken["computed"] + woken["elsewhere"] >= ROWS
    assert {path: path.stat().st_ino for path in inodes} == inodes
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert entry_bytes(Path(made["path"])) == alone
    assert left(tmp_path) == []
    tally("workers stopped and woken", 1, "the others finished, nothing changed")


CLAIMS = {
    "garbage": lambda path: path.write_bytes(b"{"),
    "nothing": lambda path: path.touch(),
    "a folder": lambda path: (path / "x").mkdir(parents=True),
    "a link": lambda path: path.symlink_to("/etc/passwd"),
    "a pipe": lambda path: os.mkfifo(path),
    "of a version to come": lambda path: path.write_text('{"format": "pipeline-claim", "format_version": 9}'),
}


def test_claims_that_are_none_or_of_lost_machines_are_no_obstacle(photos, alone, tmp_path, tally):
    worker = started(photos, tmp_path, seconds="1")
    worker.kill()
    worker.end()
    (folder,) = tmp_path.glob("plans/*/claims")
    there = next(folder.glob("*.json"))
    said = there.read_text()
    for number, make in enumerate(CLAIMS.values()):
        path = folder / f"{number}.json"
        path.unlink(missing_ok=True)
        make(path)
    (folder / "entry.json").write_text(said)  # of a process that is gone, if it can be read at all
    (folder / "rest.json").mkdir()
    made, again = ends(begin(photos, tmp_path, "0/2"), begin(photos, tmp_path, "1/2"))
    assert made["cache"] == again["cache"]
    assert entry_bytes(Path(made["path"])) == alone
    assert left(tmp_path) == []
    tally("damaged and foreign claims", len(CLAIMS), "no obstacle, none followed")


def test_unusable_images_end_every_worker_with_the_same_error_and_skip_goes_on(photos, tmp_path):
    broken = shutil.copytree(photos, tmp_path / "photos")
    (broken / "beet" / "03.jpg").write_bytes(b"no image")
    answers = ends(*(begin(broken, tmp_path / "cache", f"{index}/3") for index in range(3)))
    errors = {json.dumps(answer["error"]) for answer in answers}
    assert len(errors) == 1
    assert "1 of 24 images cannot be used: beet/03.jpg" in errors.pop()
    skipping = (begin(broken, tmp_path / "cache", f"{index}/2", on_bad_image="skip") for index in range(2))
    for answer in ends(*skipping):
        assert (answer["rows"], answer["skipped"], answer["computed"]) == (ROWS - 1, 1, 0)


def test_features_that_are_not_finite_end_every_worker_and_keep_what_is_done(photos, alone, tmp_path):
    marked = shutil.copytree(photos, tmp_path / "photos")
    Image.new("RGB", (8, 8), (77, 77, 77)).save(marked / "beet" / "03.jpg", quality=100)
    answers = ends(*(begin(marked, tmp_path / "cache", f"{n}/2", environment={"SLEEPY_NAN": "77"}) for n in range(2)))
    assert len({json.dumps(answer["error"]) for answer in answers}) == 1
    assert "not finite (NaN or infinity): beet/03.jpg" in answers[0]["error"]["message"]
    (made,) = ends(begin(marked, tmp_path / "cache", "1/2"))
    assert made["rows"] == ROWS
    assert 4 <= made["computed"] < ROWS


def test_the_first_to_begin_decides_the_recipe_and_another_engine_is_refused(photos, alone, tmp_path):
    first = started(photos, tmp_path)
    other = begin(photos, tmp_path, "1/2", engine="eager")
    joined = begin(photos, tmp_path, "1/2", engine="auto", batch_size=2, shard_rows=2)
    made, refused, same = ends(first, other, joined)
    assert "started with engine reference, you ask for eager" in refused["error"]["message"]
    assert made["cache"] == same["cache"]
    assert made["computed"] + same["computed"] >= ROWS
    assert entry_bytes(Path(made["path"])) == alone


def test_a_worker_that_begins_when_all_is_published_computes_nothing(photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / "photos")

    def others_finish(plan):
        """Called when this worker has looked for a finished entry and not begun."""
        assert plan.state == "new"
        pipeline.extract(str(moved), cache_dir=tmp_path / "cache", worker="0/2", **TINY)

    (late,) = ends(begin(moved, tmp_path / "cache", "1/2", remembered=True, on_plan=others_finish))
    assert (late["rows"], late["computed"], late["reused"], late["skipped"]) == (ROWS, 0, ROWS, 0)
    assert left(tmp_path / "cache") == []


def test_plain_runs_beside_workers_end_with_the_same_entry(photos, alone, tmp_path):
    slowly = {"SLEEPY_SECONDS": "0.05"}
    workers = [begin(photos, tmp_path, worker, environment=slowly) for worker in ("0/2", None, "1/2", None)]
    answers = ends(*workers)
    assert len({answer["cache"] for answer in answers}) == 1
    assert entry_bytes(Path(answers[0]["path"])) == alone
    assert left(tmp_path) == []


def test_work_that_is_removed_under_the_workers_is_begun_again_by_all(photos, alone, tmp_path):
    workers = [begin(photos, tmp_path, f"{n}/2", environment={"SLEEPY_SECONDS": "0.2"}) for n in range(2)]
    wait_for(lambda: len(records(tmp_path)) > 1)
    gone = next(tmp_path.glob("plans/[!.]*"))
    gone.rename(tmp_path / "gone")
    made, again = ends(*workers)
    assert made["cache"] == again["cache"]
    assert entry_bytes(Path(made["path"])) == alone
    assert left(tmp_path) == []


def test_more_workers_than_shards_and_no_images_at_all(photos, tmp_path):
    answers = ends(*(begin(photos, tmp_path / "cache", f"{n}/5", remembered=True, shard_rows=ROWS) for n in range(5)))
    assert len({answer["cache"] for answer in answers}) == 1
    assert sum(answer["computed"] for answer in answers) == ROWS
    (tmp_path / "none").mkdir()
    errors = ends(*(begin(tmp_path / "none", tmp_path / "cache", f"{n}/2") for n in range(2)))
    assert len({json.dumps(answer["error"]) for answer in errors}) == 1


def test_workers_that_list_other_files_finish_each_their_own(photos, tmp_path):
    grown = shutil.copytree(photos, tmp_path / "photos")
    first = started(grown, tmp_path / "cache")
    shutil.copy(grown / "beet" / "00.jpg", grown / "beet" / "99.jpg")
    second = begin(grown, tmp_path / "cache", "1/2")
    one, other = ends(first, second)
    assert (one["rows"], other["rows"]) == (ROWS, ROWS + 1)
    assert left(tmp_path / "cache") == []


def test_limits_layers_and_float16_are_shared_alike(photos, tmp_path):
    options = {**SPACE, "beside": ("maxpool",), "limit": 12, "store_dtype": "float16"}
    (plain,) = ends(begin(photos, tmp_path / "alone", **options))
    answers = ends(*(begin(photos, tmp_path / "cache", f"{n}/2", remembered=True, **options) for n in range(2)))
    assert not [answer["error"] for answer in (plain, *answers) if "error" in answer]
    entries = [[Path(entry["path"]) for entry in answer["entries"]] for answer in (plain, *answers)]
    assert entries[1] == entries[2]
    for ours, theirs in zip(entries[0], entries[1], strict=True):
        assert entry_bytes(ours) == entry_bytes(theirs)
    assert sum(answer["entries"][0]["computed"] for answer in answers) == 12


def processes_of(session: int) -> list[str]:
    """The processes of a session that are not only waited for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, *fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == session and state not in "ZX":
                found.append(path.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are listed from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT][: 2 if FULL else 1], ids=lambda number: number.name)
def test_a_driver_that_is_interrupted_leaves_no_process_and_no_claim(photos, tmp_path, number):
    options = [
        "--batch-size",
        "4",
        "--shard-rows",
        "4",
        "--workers",
        "1",
        "--engine",
        "reference",
        "--worker-timeout",
        "1",
    ]
    command = ["extract", str(photos), "--backbone", "sleepy_network:network", "--devices", "cpu,cpu", *options]
    paths = os.pathsep.join(str(folder) for folder in Path(__file__).parents[1:3])
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command, "--cache-dir", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "SLEEPY_SECONDS": "0.5"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: records(tmp_path))
    os.killpg(child.pid, number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted; what is finished is kept" in said
    assert "Traceback" not in said
    wait_for(lambda: not processes_of(child.pid))
    assert list(tmp_path.glob("plans/*/claims/*.json")) == []


UNSHARE = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run([*UNSHARE, "true"], stderr=-3, check=False).returncode


@pytest.mark.skipif(not can_unshare(), reason="process namespaces are not to be had")
def test_of_two_machines_one_is_cut_off_and_the_other_finishes(photos, alone, tmp_path, tally):
    """Imitated by process namespaces: none sees whether a process of the other lives."""
    script = "import json, sys, pipeline; print(pipeline.extract(**json.loads(sys.argv[1])).path)"

    def machine(worker: str, seconds: str) -> subprocess.Popen[str]:
        told = json.dumps({"source": str(photos), "cache_dir": str(tmp_path), "worker": worker, **TINY})
        paths = os.pathsep.join(str(folder) for folder in Path(__file__).parents[1:3])
        environment = {**os.environ, "PYTHONPATH": paths, "SLEEPY_SECONDS": seconds}
        command = [*UNSHARE, sys.executable, "-c", script, told]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    cut_off = machine("0/2", "1.0")
    wait_for(lambda: records(tmp_path))
    cut_off.kill()  # and with it the whole namespace, at once
    cut_off.communicate()
    assert list(tmp_path.glob("plans/*/claims/*.json"))
    other = machine("1/2", "0")
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 0
    assert entry_bytes(Path(said.strip())) == alone
    tally("machines cut off", 1, "the other finished, bytes equal")
