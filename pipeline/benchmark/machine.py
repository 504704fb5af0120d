"""The machine that figures were measured on."""

import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.threads import default_threads
from pipeline.versions import versions

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """What a figure depends on besides the code."""

    cpu: str
    cores: int
    """That this process may use."""
    memory: int
    """Bytes."""
    gpu: str
    """Its name and memory, empty without one."""
    system: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return asdict(self)


def describe_machine() -> Machine:
    """Look at this machine."""
    return Machine(
        cpu=_cpu(),
        cores=default_threads(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=_gpu(),
        system=platform.platform(),
        versions=versions(),
    )


def _cpu() -> str:
    """Return the processor's name as Linux tells it, else its kind."""
    if CPU_INFO.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
        if named:
            return named[1]
    return platform.processor() or platform.machine()


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return ""
    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
