"""A Ray cluster of which a worker, a node or the driver is killed, or to which a node comes late: nothing is lost."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_photos
from harness import FULL
from ray_nodes import Nodes

import pipeline

pytestmark = pytest.mark.skipif(not FULL, reason="a cluster and minutes: `make torture`")

RUNS = int(os.environ.get("PIPELINE_RAY_RUNS", "20"))
IMAGES, SHARD = 120, 8
OPTIONS = {"backbone": "sleepy_network:network", "batch_size": 4, "shard_rows": SHARD, "engine": "reference"}
PATIENCE = 180.0
"""Seconds for what must happen; it takes 20 at most on two cores that have nothing else to do."""


class World:
    """The cluster, the images, and the run alone with which all others are compared."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.photos = make_photos(folder / "photos", per_class=IMAGES // 3)
        self.alone = pipeline.extract(self.photos, cache_dir=folder / "alone", workers=1, **OPTIONS)
        self.nodes = Nodes(2, {"SLEEPY_SECONDS": "0.3", "SLEEPY_LOG": str(self.log)})
        self.address = self.nodes.ready()
        self.random = random.Random(7)

    def driver(self, run: Path) -> "subprocess.Popen[str]":
        """Start the command, in a process group of its own as a terminal does."""
        sizes = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
        command = ["extract", self.photos, *sizes, "--workers", "1", "--cache-dir", run / "cache", "--json", "--quiet"]
        paths = [Path(__file__).parents[1], Path(pipeline.__file__).parents[1]]
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "pipeline", *command, "--on", "ray", "--ray-address", self.address],
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.pathsep.join(map(str, paths))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def forwards(self) -> list[tuple[int, int]]:
        """(process, images) of each forward pass on images of this run."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(process), int(images)) for process, images in map(str.split, lines) if int(images)]

    def wait(self, what, driver):
        """Wait until `what()` is true while the driver runs."""
        limit = time.monotonic() + PATIENCE
        while not what():
            assert driver.poll() is None, f"ended too early:\n{driver.communicate()}"
            assert time.monotonic() < limit, f"nothing came of it in {PATIENCE} s"
            time.sleep(0.02)

    def busy(self, driver) -> None:
        """Wait until the workers have come some way."""
        passes = self.random.randint(4, 18)
        self.wait(lambda: len(self.forwards()) >= passes, driver)

    def check(self, driver, in_flight: int) -> None:
        """Wait for the end, and compare with the run alone."""
        out, err = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == 0, err
        result = json.loads(out)
        assert (result["cache"], result["rows"]) == (self.alone.cache, IMAGES), result
        made, expected = (sorted(Path(path, "shards").iterdir()) for path in (result["path"], self.alone.path))
        assert [path.read_bytes() for path in made] == [path.read_bytes() for path in expected]
        assert not list(Path(result["path"]).parent.glob("plans/*"))
        again = sum(images for _, images in self.forwards()) - IMAGES
        assert 0 <= again <= SHARD * in_flight, f"{again} images again, {in_flight} shards were in flight"


def a_worker(world: World, run: Path) -> None:
    driver = world.driver(run)
    world.busy(driver)
    os.kill(world.forwards()[-1][0], signal.SIGKILL)
    world.check(driver, in_flight=1)


def a_node(world: World, run: Path) -> None:
    driver = world.driver(run)
    world.busy(driver)
    world.nodes.tell("kill")
    world.nodes.ready()
    world.check(driver, in_flight=1)
    world.nodes.tell("add")
    world.nodes.ready()


def the_driver(world: World, run: Path) -> None:
    driver = world.driver(run)
    world.busy(driver)
    number = world.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    os.kill(driver.pid, number)
    out, err = driver.communicate(timeout=PATIENCE)
    if number == signal.SIGKILL:
        assert driver.returncode == -signal.SIGKILL
    else:
        assert (driver.returncode, json.loads(out)["error"]["kind"]) == (130, "interrupted"), err
        assert "Traceback" not in err
    world.check(world.driver(run), in_flight=2)


def a_late_node(world: World, run: Path) -> None:
    world.nodes.tell("kill")
    world.nodes.ready()
    driver = world.driver(run)
    world.wait(lambda: len(world.forwards()) >= 2, driver)
    first = world.forwards()[-1][0]
    os.kill(first, signal.SIGSTOP)  # so that something is left to do when the node is there
    world.nodes.tell("add")
    world.nodes.ready()
    world.wait(lambda: {process for process, _ in world.forwards()} != {first}, driver)
    os.kill(first, signal.SIGCONT)
    world.check(driver, in_flight=0)


FAULTS = (a_worker, a_node, the_driver, a_late_node)


def gone(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    pytest.importorskip("ray")
    made = World(tmp_path_factory.mktemp("ray"))
    yield made
    made.nodes.close()


def test_whatever_of_a_cluster_dies_nothing_is_lost(world, tmp_path, tally):
    started, again = time.monotonic(), 0
    for number in range(RUNS):
        fault = FAULTS[number % len(FAULTS)]
        world.log.unlink(missing_ok=True)
        try:
            fault(world, tmp_path / str(number))
        except BaseException as error:
            error.add_note(f"in run {number}, {fault.__name__}")
            raise
        again += sum(images for _, images in world.forwards()) - IMAGES
        limit = time.monotonic() + PATIENCE
        while not all(gone(process) for process, _ in world.forwards()):
            assert time.monotonic() < limit, "workers outlive their driver"
            time.sleep(0.1)
    took = f"{(time.monotonic() - started) / RUNS:.0f} s a run"
    tally(
        "runs on Ray, a worker, node or driver killed or a node late",
        RUNS,
        f"bytes equal, {again} images of 8 a shard again, {took}",
    )
