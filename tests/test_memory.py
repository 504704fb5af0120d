"""How much memory is free: what the kernel says, and what control groups leave of it."""

import pytest

from pipeline.memory import free_memory

MIB = 1 << 20


@pytest.fixture
def machine(tmp_path):
    """A machine with 5,000 MiB to spare, and what makes a control group in it."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable:    {5000 << 10} kB\n")

    def group(path: str, limit: str, use: int, **stat: int) -> None:
        folder = groups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{use * MIB}\n")
        (folder / "memory.stat").write_text("".join(f"{name} {value * MIB}\n" for name, value in stat.items()))

    def member(lines: str) -> int:
        (proc / "self" / "cgroup").write_text(lines)
        return free_memory(proc, groups)

    return proc, groups, group, member


def test_without_limits_it_is_what_the_kernel_says(machine):
    proc, groups, group, member = machine
    assert free_memory(proc, groups) == 5000 * MIB
    assert member("0::/\n") == 5000 * MIB
    group("", "max", 4000)
    assert member("0::/\n") == 5000 * MIB
    group("", str(1 << 40), 4000)
    assert member("0::/\n") == 5000 * MIB


def test_a_container_leaves_its_limit_less_its_use_and_file_cache_is_not_used(machine):
    _, _, group, member = machine
    group("", str(3000 * MIB), 2000)
    assert member("0::/\n") == 1000 * MIB
    group("", str(3000 * MIB), 2900, anon=700, inactive_file=1500, active_file=500)
    assert member("0::/\n") == 2100 * MIB
    group("", str(1000 * MIB), 2000)
    assert member("0::/\n") == 0


def test_a_limit_around_the_own_group_holds_too(machine):
    _, _, group, member = machine
    group("slurm/job_7", str(800 * MIB), 300)
    group("slurm/job_7/step_0", "max", 100)
    group("slurm/other", str(10 * MIB), 9)
    assert member("0::/slurm/job_7/step_0\n") == 500 * MIB


def test_groups_of_version_1_are_known(machine):
    _, groups, _, member = machine
    folder = groups / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{700 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{650 * MIB}\n")
    (folder / "memory.stat").write_text(f"total_inactive_file {250 * MIB}\n")
    assert member("5:cpu,cpuacct:/elsewhere\n4:memory:/job\n") == 300 * MIB


def test_elsewhere_it_is_half_of_the_machines_memory(tmp_path):
    assert free_memory(tmp_path / "none") > 256 * MIB
    assert free_memory() > MIB
