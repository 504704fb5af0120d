"""Which of several workers a process is, as launchers say it, and which shards it begins with."""

import pytest

from pipeline.errors import UsageError
from pipeline.launch.share import Share

SAID = {
    "torchrun": (
        {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
        Share(5, 8, 1, 4, "RANK"),
    ),
    "a Kubernetes job that sets the same": ({"RANK": "2", "WORLD_SIZE": "3"}, Share(2, 3, 0, 1, "RANK")),
    "a Slurm array": (
        {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_ARRAY_TASK_MIN": "0"},
        Share(3, 16, told_by="SLURM_ARRAY_TASK_ID"),
    ),
    "a Slurm array from 10 to 40 in tens": (
        {
            "SLURM_ARRAY_TASK_ID": "30",
            "SLURM_ARRAY_TASK_COUNT": "4",
            "SLURM_ARRAY_TASK_MIN": "10",
            "SLURM_ARRAY_TASK_STEP": "10",
        },
        Share(2, 4, told_by="SLURM_ARRAY_TASK_ID"),
    ),
    "srun in a Slurm array": (
        {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        Share(1, 2, told_by="SLURM_ARRAY_TASK_ID"),
    ),
    "srun with two tasks in each of a Slurm array": (
        {
            **{"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"},
            **{"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            **{"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2"},
        },
        Share(3, 8, 1, 2, "SLURM_ARRAY_TASK_ID"),
    ),
    "srun on three nodes": (
        {
            **{"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "6"},
            **{"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"},
        },
        Share(4, 6, 0, 2, "SLURM_PROCID"),
    ),
    "mpirun": (
        {
            **{"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
            **{"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        },
        Share(1, 2, 1, 2, "OMPI_COMM_WORLD_RANK"),
    ),
    "nobody": ({}, Share()),
    "torchrun with one process": ({"RANK": "0", "WORLD_SIZE": "1"}, Share()),
    "an allocation without srun": ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Share()),
    "a Slurm array of one": ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1"}, Share()),
    "somebody who cannot count": ({"RANK": "4", "WORLD_SIZE": "4", "LOCAL_RANK": "x"}, Share()),
}


@pytest.mark.parametrize("launcher", SAID)
def test_a_launcher_says_which_worker_it_is(launcher):
    environment, share = SAID[launcher]
    assert Share.from_environment(environment) == share


def test_what_a_user_says_goes_before_what_a_launcher_says(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Share.of(None) == Share(1, 2, told_by="RANK")
    assert Share.of("3/4") == Share(3, 4, told_by="--worker")


@pytest.mark.parametrize("text", ["", "4/4", "1", "-1/4", "1/0", "a/b", "1/4/2", "¹/4"])
def test_a_worker_that_cannot_be_is_refused(text):
    with pytest.raises(UsageError, match="worker"):
        Share.parse(text)


@pytest.mark.parametrize(("shards", "count"), [(0, 3), (1, 8), (7, 3), (100, 16)])
def test_workers_begin_with_every_shard_once_and_help_with_all_that_is_left(shards, count):
    numbers = list(range(shards))
    workers = [Share(index, count) for index in range(count)]
    assert [number for worker in workers for number in worker.begins_with(numbers)] == numbers
    left = numbers[::3]
    for worker in workers:
        assert sorted(worker.helps_with(left, shards)) == left


def test_helpers_begin_at_the_far_end_of_the_fullest_run():
    assert list(Share(0, 2).helps_with([5, 6, 7], 8)) == [7, 6, 5]
    assert list(Share(0, 4).helps_with([1, 4, 5, 6], 8)) == [5, 1, 4, 6]
