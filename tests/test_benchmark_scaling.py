"""Time and money by hand, phases taken apart, and simulated workers that finish."""

from dataclasses import replace

import pytest

from pipeline.benchmark.costs import costs_claim
from pipeline.benchmark.phases import Phases, constants_from
from pipeline.benchmark.scaling import Constants, estimate, linear_up_to
from pipeline.benchmark.simulation import Fleet, Simulation
from pipeline.benchmark.storage import Server, Storage
from pipeline.cli.figures import show_claim
from pipeline.console import Screen
from pipeline.launch.queue import POLL_SECONDS, SPARE, Queue
from pipeline.launch.share import Share

CONSTANTS = Constants(
    start=10.0,
    listed=1e-6,
    forward=0.01,
    decode=0.005,
    row=1e-4,
    written=1e-8,
    published=1e-5,
    read=1e-9,
    row_bytes=1000,
)


def test_an_estimate_is_the_sum_of_its_terms():
    found = estimate(CONSTANTS, 1_000_000, 10, shard_rows=1000)
    assert found.terms == pytest.approx(
        {
            "starting": 10,
            "listing": 1,
            "network": 1000,
            "decoding": 500,
            "rows": 10,
            "writing": 1,
            "publishing": 11,
        }
    )
    assert (found.seconds, found.worker_hours) == pytest.approx((1533, 1533 / 360))
    assert found.money(2.0) == pytest.approx(1533 / 180)
    assert found.longest == "network"


def test_shards_are_whole_and_workers_beyond_them_are_idle():
    few = estimate(CONSTANTS, 10_000, 7, shard_rows=1000)  # ten shards: two for the busiest
    assert few.terms["network"] == pytest.approx(20)
    assert estimate(CONSTANTS, 10_000, 10, 1000).seconds == estimate(CONSTANTS, 10_000, 1000, 1000).seconds
    assert estimate(CONSTANTS, 500, 1, 1000).terms["network"] == pytest.approx(5)


@pytest.mark.parametrize(("decode", "terms"), [(0.005, (10, 0)), (0.02, (0, 20))])
def test_beside_a_device_the_shorter_of_network_and_decoding_is_hidden(decode, terms):
    found = estimate(replace(CONSTANTS, decode=decode, shared_cores=False), 1000, 1, 1000)
    assert (found.terms["network"], found.terms["decoding"]) == pytest.approx(terms)


def test_what_it_comes_to_fits_eighty_columns_and_is_numbers_in_json(capsys, monkeypatch):
    monkeypatch.setattr("pipeline.console.WIDTH_WITHOUT_TERMINAL", 80)
    claim = costs_claim(CONSTANTS, price=2.5)
    show_claim(Screen(), claim)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("1,000,000,000" in line and "network" in line for line in lines)
    rows = claim.to_json()["tables"][0]
    assert len(rows) == 12
    assert rows[0]["money"] == pytest.approx(2.5 * rows[0]["worker-hours"])
    assert "money" not in costs_claim(CONSTANTS).to_json()["tables"][0][0]


def test_hours_are_well_spent_while_what_every_worker_waits_for_is_small():
    alone = replace(CONSTANTS, start=0.0, listed=0.0, published=0.0, read=0.0)
    assert linear_up_to(alone, 1_000_000, (1, 10, 100), least=0.97) == 100
    assert linear_up_to(CONSTANTS, 1_000_000, (1, 10, 100, 1000)) == 100
    assert linear_up_to(CONSTANTS, 1000, (1, 2)) == 1


def test_phases_of_three_extractions_give_back_the_constants_they_were_made_of():
    def phases(rows: int, row_bytes: int) -> Phases:
        making = rows * (CONSTANTS.row + row_bytes * CONSTANTS.written)
        publishing = rows * (CONSTANTS.published + row_bytes * CONSTANTS.read)
        return Phases(rows, row_bytes, CONSTANTS.start + rows * CONSTANTS.listed, making, publishing)

    found = constants_from(
        phases(1000, 512),
        phases(4000, 512),
        phases(1000, 8192),
        forward=0.01,
        decode=0.005,
        row_bytes=1000,
        shared_cores=True,
    )
    for name, value in vars(CONSTANTS).items():
        assert getattr(found, name) == pytest.approx(value), name


def test_clients_of_a_server_wait_in_line():
    server = Server(Storage(trip=0.01, sync=0.1, operations=10, names=100))
    assert server.ask(0.0, 1) == pytest.approx(0.1)  # the server's time, not the way there
    assert server.ask(0.0, 2, names=10) == pytest.approx(0.4)
    assert server.ask(0.3, 1) == pytest.approx(0.2)
    assert server.ask(9.0, 1, syncs=3) == pytest.approx(0.31)
    assert server.busy == pytest.approx(0.6)


@pytest.mark.parametrize("workers", [1, 3, 40])
def test_simulated_workers_make_every_shard_once(workers):
    fleet = Fleet(workers, images=20_000, shard_rows=100, dying=0.0)
    found = Simulation(fleet).run()
    assert found.computed == fleet.shards == 200
    assert fleet.ideal < found.nearly <= found.made
    assert Simulation(fleet).run().made == found.made


def test_shards_of_simulated_workers_that_die_are_made_by_others():
    fleet = Fleet(12, images=100_000, shard_rows=100, dying=0.5, late=0.3, seed=1)
    found = Simulation(fleet).run()
    assert fleet.shards <= found.computed <= fleet.shards + fleet.workers
    with pytest.raises(RuntimeError, match="no worker is left"):
        Simulation(Fleet(2, images=100_000, shard_rows=100, dying=1.0)).run()


class Shards:
    """Work and board of which nobody else knows, and how often the folder was listed."""

    def __init__(self, shards: int, made: set[int]) -> None:
        self.shards, self.made, self.known, self.looks, self.now = shards, made, set[int](), 0, 0.0
        self.held: list[str] = []

    def missing(self):
        return list(range(self.shards))

    def look(self):
        self.looks += 1
        self.now += 1.0
        self.known = set(self.made)

    def left(self):
        return [number for number in range(self.shards) if number not in self.known]

    def remaining(self):
        return len(self.left())

    def is_made(self, number):
        return number in self.made

    def made_elsewhere(self, number):
        self.known.add(number)

    def take(self, name):
        return name

    def release(self, name):
        pass


def test_a_worker_without_work_tries_what_it_does_not_know_to_be_done_before_it_lists_again():
    shards = Shards(6, made=set())
    queue = Queue(shards, Share(0, 3), shards, lambda: shards.now)
    assert [queue.ahead(), queue.any()] == [0, 1]
    shards.made |= {0, 1, 5}
    shards.known |= {0, 1}
    assert queue.other() == 3  # the end of its neighbour's run
    assert (shards.looks, queue.over) == (0, False)
    shards.made |= {2, 3, 4}
    shards.known |= {3}
    assert queue.other() is None
    assert queue.over
    assert queue.pause() == POLL_SECONDS[0]


def test_all_workers_together_list_the_folder_as_seldom_as_one_would():
    shards = Shards(9, made=set())
    queue = Queue(shards, Share(1, 3), shards, lambda: shards.now)
    queue.look()  # takes a second
    for shards.now in (1.0 + SPARE * 3 - 0.1, 1.0 + SPARE * 3 + 0.1):
        queue.look_now_and_then()
    assert shards.looks == 2
