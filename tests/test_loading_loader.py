"""The loader with real worker processes: order, content, and what a bad image or a lost worker may cost."""

import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_image, make_photos
from PIL import Image

import pipeline
from pipeline.backbones.preprocess import Preprocess
from pipeline.digest import array_digest
from pipeline.loading.batch import Batch
from pipeline.loading.decode import decode
from pipeline.loading.loader import CHUNK, Loader, auto_workers
from pipeline.loading.memory import SharedMemory
from pipeline.loading.worker import BAD, KNOWN, OK
from pipeline.sources.source import ArrayPayload, FilePayload
from pipeline.store.rows import digest_keys

PREPROCESS = Preprocess(16, 12, "bilinear", (0.5,) * 3, (0.5,) * 3)
ROOT = Path(pipeline.__file__).parents[1]
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs what Linux has")
PATIENCE = 60


def within(seconds: float, call):
    """Return what a call returns; fail, instead of waiting for ever, if it takes too long."""
    box = []

    def run():
        try:
            box.append((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised below
            box.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        pytest.fail(f"nothing within {seconds} s")
    value, error = box[0]
    if error is not None:
        raise error
    return value


def until(condition, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def take(loader: Loader, count: int = 1) -> list[Batch]:
    """Return the next batches, with copies of their pixels, and release them."""
    batches = []
    for _ in range(count):
        batch = within(PATIENCE, loader.next_batch)
        batches.append(Batch(batch.rows, batch.pixels.copy(), batch.sizes.copy(), batch.loaded, batch.slot))
        loader.release(batch)
    return batches


def pids(loader: Loader) -> list[int]:
    return [member.process.pid for member in loader._team]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def pictures(tmp_path):
    """40 image files of different sizes and kinds, as a list of paths."""
    paths = []
    for index in range(40):
        path = tmp_path / f"{index:02d}.{('jpg', 'png', 'bmp')[index % 3]}"
        make_image(index, (14 + index, 50 - index)).save(path)
        paths.append(path)
    return paths


def expected(path: Path) -> np.ndarray:
    return PREPROCESS.pixels(decode(path.read_bytes()))


def files(paths):
    return lambda row: FilePayload(str(paths[row]))


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_the_order_of_requests_with_the_right_pixels_and_digests(pictures, workers):
    rows = np.random.default_rng(0).permutation(40).tolist()
    with Loader(PREPROCESS, batch_size=18, workers=workers) as loader:
        loader.request(rows, files(pictures))
        loader.request([5, 5, 7], files(pictures))
        batches = take(loader, 4)
    assert [batch.rows for batch in batches] == [rows[:18], rows[18:36], rows[36:], [5, 5, 7]]
    for batch in batches:
        assert batch.pixels.shape == (18, 12, 12, 3)
        assert len(batch.loaded) == len(batch.rows)
        for place, (row, loaded) in enumerate(zip(batch.rows, batch.loaded, strict=True)):
            facts = pictures[row].stat()
            assert loaded.outcome == OK
            assert loaded.reason == ""
            assert loaded.digest == hashlib.sha256(pictures[row].read_bytes()).digest()
            assert loaded.facts == (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            assert abs(time.time_ns() - loaded.read_ns) < 300e9
            assert np.array_equal(batch.pixels[place], expected(pictures[row]))


def test_arrays_and_files_may_be_mixed(pictures):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in [(8, 8), (30, 20, 3), (28, 28), (500, 400, 3)]]
    arrays.append(arrays[1][:, ::-1])
    payloads = [ArrayPayload(array) for array in arrays] + [FilePayload(str(pictures[3]))]
    with Loader(PREPROCESS, batch_size=6, workers=2) as loader:
        loader.request(range(6), payloads.__getitem__)
        [batch] = take(loader)
    for place, array in enumerate(arrays):
        loaded = batch.loaded[place]
        assert (loaded.outcome, loaded.digest, loaded.facts) == (OK, array_digest(array), None)
        assert np.array_equal(batch.pixels[place], PREPROCESS.pixels(Image.fromarray(array).convert("RGB")))
    assert np.array_equal(batch.pixels[5], expected(pictures[3]))


def test_bad_images_among_good_ones_keep_their_places_as_zeros_with_a_reason(pictures, tmp_path):
    bad = {3: b"", 4: b"text called jpg", 20: pictures[20].read_bytes()[:-150]}
    for row, data in bad.items():
        pictures[row].write_bytes(data)
    pictures[9].unlink()
    pictures[10] = tmp_path / "a file" / "below.jpg"
    os.mkfifo(tmp_path / "pipe.jpg")
    pictures[11] = tmp_path / "pipe.jpg"
    reasons = {3: "is empty", 4: "not an image", 20: "cannot be decoded", 9: "cannot be opened"}
    reasons |= {10: "cannot be opened", 11: "not a regular file"}
    with Loader(PREPROCESS, batch_size=8, workers=1) as loader:
        loader.request(range(40), files(pictures))
        batches = take(loader, 5)
    assert [row for batch in batches for row in batch.rows] == list(range(40))
    for batch in batches:
        for place, (row, loaded) in enumerate(zip(batch.rows, batch.loaded, strict=True)):
            if row in reasons:
                assert loaded.outcome == BAD
                assert reasons[row] in loaded.reason
                assert not batch.pixels[place].any()
                assert loaded.digest == (hashlib.sha256(bad[row]).digest() if row in bad else None)
            else:
                assert loaded.outcome == OK
                assert np.array_equal(batch.pixels[place], expected(pictures[row]))


def test_a_folder_in_the_place_of_an_image_costs_no_worker(pictures, tmp_path):
    pictures[1] = tmp_path
    with Loader(PREPROCESS, batch_size=3, workers=1) as loader:
        loader.request(range(3), files(pictures))
        [batch] = take(loader)
    assert [loaded.outcome for loaded in batch.loaded] == [OK, BAD, OK]
    assert batch.loaded[1].reason == "is not a regular file"


def test_a_slot_that_is_used_again_shows_nothing_old_in_the_place_of_a_bad_image(pictures, tmp_path):
    gone = [tmp_path / "gone.jpg"] * 4
    with Loader(PREPROCESS, batch_size=4, workers=1) as loader:
        loader.request(range(4 * loader.slots), files(pictures))
        loader.request(range(4), files(gone))
        batches = take(loader, loader.slots + 1)
    assert batches[-1].slot in {batch.slot for batch in batches[:-1]}
    assert not batches[-1].pixels.any()


def test_an_image_that_would_become_enormous_costs_itself_alone(pictures):
    Image.new("L", (7_000_000, 1)).save(pictures[1], "TIFF")
    with Loader(PREPROCESS, batch_size=3, workers=1) as loader:
        loader.request(range(3), files(pictures))
        [batch] = take(loader)
    assert [loaded.outcome for loaded in batch.loaded] == [OK, BAD, OK]
    assert "too long and thin" in batch.loaded[1].reason


def test_known_digests_are_not_decoded(pictures):
    pictures[2].write_bytes(b"no image, yet known: its row is there")
    known_rows = [0, 2, 5, 7, 39]
    digests = np.array([list(hashlib.sha256(pictures[row].read_bytes()).digest()) for row in known_rows], np.uint8)
    with Loader(PREPROCESS, batch_size=40, workers=2, known=digest_keys(digests)) as loader:
        loader.request(range(40), files(pictures))
        [first] = take(loader)
    for row, loaded in enumerate(first.loaded):
        assert loaded.outcome == (KNOWN if row in known_rows else OK)
        assert loaded.digest == hashlib.sha256(pictures[row].read_bytes()).digest()
        assert loaded.facts[1] == pictures[row].stat().st_size


@pytest.mark.parametrize("place", [0, 4, 7])
def test_a_digest_with_a_zero_byte_is_known_and_one_like_it_is_not(place):
    arrays = [np.array([[value % 256, value // 256]], np.uint8) for value in range(2000)]
    with_zero = [array for array in arrays if array_digest(array)[place] == 0][:4]
    without = [array for array in arrays if 0 not in array_digest(array)][:4]
    known = np.array([list(array_digest(array)) for array in with_zero], np.uint8)
    almost = np.array([list(array_digest(array)) for array in without], np.uint8)
    almost[:, 7] = 0
    with Loader(PREPROCESS, batch_size=8, workers=1, known=digest_keys(np.concatenate([known, almost]))) as loader:
        loader.request(range(8), lambda row: ArrayPayload((with_zero + without)[row]))
        [batch] = take(loader)
    assert [loaded.outcome for loaded in batch.loaded] == [KNOWN] * 4 + [OK] * 4


def test_names_that_are_no_utf8_are_opened(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.png")
    try:
        make_image(0).save(path, "PNG")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with Loader(PREPROCESS, batch_size=1, workers=1) as loader:
        loader.request([0], lambda _row: FilePayload(path))
        [batch] = take(loader)
    assert batch.loaded[0].outcome == OK


def test_a_worker_killed_with_images_in_hand_costs_nothing(pictures):
    with Loader(PREPROCESS, batch_size=40, workers=2) as loader:
        loader.request(range(40), files(pictures))
        take(loader)
        until(lambda: all(member.ready for member in loader._team))  # one alone may have been quick enough
        before = pids(loader)
        os.kill(before[0], signal.SIGSTOP)  # so that it surely has images in hand
        loader.request(range(40), files(pictures))
        until(lambda: loader._team[0].task is not None)
        assert len(loader._team[0].task.places) == CHUNK
        os.kill(before[0], signal.SIGKILL)
        [batch] = take(loader)
        assert pids(loader)[0] != before[0]
    assert [loaded.outcome for loaded in batch.loaded] == [OK] * 40
    for row in range(40):
        assert np.array_equal(batch.pixels[row], expected(pictures[row]))


def test_idle_workers_that_are_killed_are_replaced(pictures):
    with Loader(PREPROCESS, batch_size=8, workers=2) as loader:
        loader.request(range(8), files(pictures))
        take(loader)
        until(lambda: all(member.idle for member in loader._team))
        before = pids(loader)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not set(before) & set(pids(loader)))
        loader.request(range(8, 16), files(pictures))
        [batch] = take(loader)
    assert [loaded.outcome for loaded in batch.loaded] == [OK] * 8
    assert not set(before) & set(pids(loader))


def test_a_worker_killed_from_outside_costs_nothing_even_if_it_had_one_image(pictures):
    with Loader(PREPROCESS, batch_size=4, workers=1) as loader:
        loader.request(range(4), files(pictures))
        take(loader)
        os.kill(pids(loader)[0], signal.SIGSTOP)
        loader.request([4], files(pictures))
        until(lambda: loader._team[0].task is not None)
        os.kill(pids(loader)[0], signal.SIGKILL)
        [batch] = take(loader)
    assert batch.loaded[0].outcome == OK


def test_an_image_that_kills_each_worker_that_gets_it_costs_itself_alone(pictures):
    with Loader(PREPROCESS, batch_size=20, workers=1) as loader:
        loader.request([7] * 20 * loader.slots, files(pictures))
        take(loader, loader.slots)  # no slot is blank now

        def payload(row):
            if row == 6:  # whoever is about to get this image dies of it
                os.kill(pids(loader)[0], signal.SIGKILL)
            return FilePayload(str(pictures[row]))

        loader.request(range(20), payload)
        [batch] = take(loader)
    assert [row for row, loaded in enumerate(batch.loaded) if loaded.outcome != OK] == [6]
    assert batch.loaded[6].outcome == BAD
    assert batch.loaded[6].reason == "the decoder crashed on it (signal 9)"
    assert not batch.pixels[6].any()
    for row in (0, 5, 7, 19):
        assert np.array_equal(batch.pixels[row], expected(pictures[row]))


def test_a_worker_that_hangs_is_replaced_and_costs_nothing(pictures):
    with Loader(PREPROCESS, batch_size=10, workers=1) as loader:
        loader.request(range(10), files(pictures))
        take(loader)
        [before] = pids(loader)
        os.kill(before, signal.SIGSTOP)
        loader.image_timeout = 0.2
        loader.request(range(10, 20), files(pictures))
        until(lambda: pids(loader) != [before])
        loader.image_timeout = 60.0  # the next one may take its time to start
        [batch] = take(loader)
        assert is_gone(before)
    assert [loaded.outcome for loaded in batch.loaded] == [OK] * 10
    assert np.array_equal(batch.pixels[0], expected(pictures[10]))


def test_an_image_that_hangs_each_worker_that_gets_it_costs_itself_alone(pictures):
    stopped = []
    with Loader(PREPROCESS, batch_size=5, workers=1) as loader:
        loader.request([7] * 5 * loader.slots, files(pictures))
        take(loader, loader.slots)  # no slot is blank now

        def payload(row):
            if row == 2:
                stopped.append(pids(loader)[0])
                os.kill(stopped[-1], signal.SIGSTOP)
            return FilePayload(str(pictures[row]))

        loader.request(range(5), payload)

        def is_done():
            # Short for a worker that hangs, long for the next one, which may take its time to start.
            loader.image_timeout = 0.3 if pids(loader)[0] in stopped else 60.0
            return not loader._ordered[0].missing

        until(is_done)
        [batch] = take(loader)
    assert len(stopped) == 2  # once among others, once alone
    assert [loaded.outcome for loaded in batch.loaded] == [OK, OK, BAD, OK, OK]
    assert batch.loaded[2].reason.startswith("decoding took longer than")
    assert not batch.pixels[2].any()
    assert all(is_gone(pid) for pid in stopped)


@ON_LINUX
def test_a_worker_that_hangs_before_large_arrays_does_not_hang_the_loader():
    image = np.zeros((300, 300, 3), np.uint8)
    loader = Loader(PREPROCESS, batch_size=2, workers=1)
    stopped = 0
    try:
        loader.request([0, 1], lambda _row: ArrayPayload(image))
        take(loader)
        [stopped] = pids(loader)
        os.kill(stopped, signal.SIGSTOP)
        loader.image_timeout = 0.2
        loader.request([0, 1], lambda _row: ArrayPayload(image))
        until(lambda: pids(loader) != [stopped], seconds=10)
        loader.image_timeout = 60.0
        stopped = 0
        take(loader)
    finally:
        if stopped:
            os.kill(stopped, signal.SIGCONT)
        loader.close()


def test_no_process_and_no_descriptor_stays_behind(pictures):
    folder = Path("/proc/self/fd") if sys.platform == "linux" else Path("/dev/fd")
    gc.collect()
    before = len(list(folder.iterdir()))
    loader = Loader(PREPROCESS, batch_size=40, workers=2)
    loader.request(range(40), files(pictures))
    batch = within(PATIENCE, loader.next_batch)
    loader.request(range(40), files(pictures))  # left undone
    started = pids(loader)
    assert len(started) == 2
    within(PATIENCE, loader.close)
    loader.close()
    assert all(is_gone(pid) for pid in started)
    assert batch.pixels.any()  # still there for who holds it
    del batch, loader
    gc.collect()
    assert len(list(folder.iterdir())) == before
    assert not any(thread.name == "pipeline-loader" for thread in threading.enumerate())


def test_an_error_in_the_with_block_ends_the_workers_too(pictures):
    started = []

    def work(loader):
        loader.request(range(4), files(pictures))
        take(loader)
        started.extend(pids(loader))
        raise KeyError

    with pytest.raises(KeyError), Loader(PREPROCESS, batch_size=4, workers=2) as loader:
        work(loader)
    assert len(started) == 2
    assert all(is_gone(pid) for pid in started)


def test_an_error_of_the_source_reaches_who_waits(pictures):
    def payload(row):
        raise LookupError(f"row {row} is nowhere")

    with Loader(PREPROCESS, batch_size=4, workers=1) as loader:
        loader.request(range(4), payload)
        with pytest.raises(LookupError, match="row 0 is nowhere"):
            take(loader)


def test_asking_for_a_batch_that_nobody_requested_is_an_error():
    with Loader(PREPROCESS, batch_size=4, workers=1) as loader, pytest.raises(ValueError, match="no batch"):
        loader.next_batch()


SCRIPT = """
import os, sys, time
from pathlib import Path
print("main runs", flush=True)
from pipeline.backbones.preprocess import Preprocess
from pipeline.loading.loader import Loader
from pipeline.sources.source import FilePayload
paths = sorted(Path(sys.argv[1]).rglob("*.jpg"))
preprocess = Preprocess(16, 12, "bilinear", (0.5,) * 3, (0.5,) * 3)
with Loader(preprocess, batch_size=8, workers=2) as loader:
    loader.request(range(len(paths)), lambda row: FilePayload(str(paths[row])))
    print(sum(item.outcome == 0 for _ in range(-(-len(paths) // 8)) for item in loader.next_batch().loaded), flush=True)
    if sys.argv[2] == "wait":
        while not all(member.ready for member in loader._team):
            time.sleep(0.01)
        print(*[member.process.pid for member in loader._team], flush=True)
        time.sleep(120)
"""


def start_script(tmp_path: Path, then: str) -> "subprocess.Popen[str]":
    (tmp_path / "unguarded.py").write_text(SCRIPT)
    make_photos(tmp_path / "photos", 6)
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "unguarded.py"), str(tmp_path / "photos"), then],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_script_without_a_main_guard_may_load(tmp_path):
    with start_script(tmp_path, "end") as process:
        out, _ = process.communicate(timeout=PATIENCE)
    assert out.split("\n") == ["main runs", "18", ""]
    assert process.returncode == 0


@ON_LINUX
def test_workers_go_when_their_parent_is_killed(tmp_path):
    with start_script(tmp_path, "wait") as process:
        assert [process.stdout.readline() for _ in range(2)] == ["main runs\n", "18\n"]
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        assert not any(is_gone(pid) for pid in workers)
        os.kill(workers[0], signal.SIGSTOP)  # one that hangs, and does not see its pipe end
        process.kill()
    until(lambda: all(is_gone(pid) for pid in workers), seconds=20)


def test_a_worker_imports_neither_torch_nor_the_command_line():
    code = "import sys, pipeline.loading.worker; print([m for m in sys.modules if m.split('.')[0] in sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", code, "torch", "torchvision", "h5py", "sklearn", "click", "rich", "pydantic"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_automatic_workers_are_the_cores_of_this_process():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert auto_workers() == min(cores, 16)


def test_shared_memory_is_seen_through_its_descriptor_and_outlives_it():
    memory = SharedMemory(48)
    memory.array((2, 3), "<i8")[:] = np.arange(6).reshape(2, 3)
    other = SharedMemory.attach(os.dup(memory.descriptor), 48)
    view = other.array((3,), "<i8", offset=24)
    assert view.tolist() == [3, 4, 5]
    view[0] = -1
    memory.close()
    assert memory.array((6,), "<i8").tolist() == [0, 1, 2, -1, 4, 5]
    other.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(other.descriptor)


def test_shared_memory_of_nothing_can_be_had():
    memory = SharedMemory(0)
    assert memory.array((0,), "S32").size == 0
    memory.close()
