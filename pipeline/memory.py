"""How much memory there is to use."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""Limit and use of a container under /sys/fs/cgroup, as version 2 and version 1 name them."""


def free_memory(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = MEMINFO) -> int:
    """Return the bytes this process may still take without driving others to disk.

    On Linux what the kernel says is available, or what the container's limit leaves if that is less; elsewhere half
    of the machine's memory.
    """
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    [line] = (line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    free = int(line.split()[1]) << 10
    for limit, used in CGROUPS:
        if (cgroup / limit).exists() and (asked := (cgroup / limit).read_text().strip()) != "max":
            free = min(free, max(0, int(asked) - int((cgroup / used).read_text())))
    return free
