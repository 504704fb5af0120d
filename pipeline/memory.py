"""How much memory there is to use."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
"""Files with the limit and the use of a control group, and what of that use is file cache, in memory.stat."""


def free_memory(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Return the bytes this process may still take without driving others to disk.

    On Linux what the kernel says is available, or what the limits of a container or a batch job leave if that is
    less; elsewhere half of the machine's memory. File cache is free: it is given up when memory is asked for.
    """
    meminfo = proc / "meminfo"
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    [line] = (line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    return min(int(line.split()[1]) << 10, *_left(proc, cgroup))


def _left(proc: Path, cgroup: Path) -> Iterator[int]:
    """Yield what each limit leaves: of the process's own control group, and of all those around it."""
    memberships = proc / "self" / "cgroup"
    yield 1 << 62  # no limit at all
    for line in memberships.read_text().splitlines() if memberships.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = cgroup / "memory" if controllers else cgroup
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            limit, use, cached = V1 if controllers else V2
            if (folder / limit).exists() and (asked := (folder / limit).read_text().strip()) != "max":
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                kept = int((folder / use).read_text()) - sum(int(stat.get(name, 0)) for name in cached)
                yield max(0, int(asked) - max(0, kept))
            if folder == top:
                break
