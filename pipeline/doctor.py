"""What this installation is and what is wrong with it; each check survives what it looks for."""

import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.versions import versions

NETWORK_FILESYSTEMS = ("nfs", "lustre", "gpfs", "cifs", "smb", "fuse.sshfs", "beegfs")
IMPORT_SECONDS = 180
LOADED = (
    "import torch, torchvision; "
    "print(torch.__version__, torchvision.__version__, torch.version.cuda or 'no CUDA build', "
    "torch.cuda.device_count() if torch.cuda.is_available() else 0, "
    "torch.cuda.get_device_name(0) if torch.cuda.is_available() else '-', sep='|')"
)


@dataclass(frozen=True)
class Check:
    """One thing looked at; `advice` says what to do, or what to know."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def examine(cache_dir: Path) -> list[Check]:
    """Look at everything `extract` and `train-head` need."""
    return [_python(), _packages(), *_torch(), _cores(), _cache(cache_dir), _loading()]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, f"{platform.python_version()} on {platform.platform()}", "" if ok else "3.11 is needed.")


def _packages() -> Check:
    found = versions()
    missing = [name for name, version in found.items() if version == "not installed"]
    text = ", ".join(f"{name} {version}" for name, version in found.items() if name != "python")
    return Check("packages", not missing, text, f"Install {', '.join(missing)}." if missing else "")


def _torch() -> list[Check]:
    """Import torch and torchvision in a process of their own: a mixed pair fails in ways that cannot be caught."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        advice = "Install both from one index: pip install --force-reinstall torch torchvision"
        if "nms" in last or "torchvision" in last:
            advice = (
                "torch and torchvision are of different builds (often a CPU build of one and a CUDA build of the "
                "other). Install both from one index: pip install --force-reinstall torch torchvision, or both with "
                "--index-url https://download.pytorch.org/whl/cpu"
            )
        return [Check("torch", False, last, advice)]
    torch_version, vision_version, cuda, devices, device = done.stdout.strip().splitlines()[-1].split("|")
    found = f"torch {torch_version} and torchvision {vision_version} import together"
    gpu = f"{devices} CUDA device(s), {device}" if devices != "0" else "none that torch can use: the CPU computes"
    return [Check("torch", True, found), Check("gpu", True, f"{gpu} (torch built for {cuda})")]


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", True, f"{usable} usable of {os.cpu_count()}")


def _cache(cache_dir: Path) -> Check:
    there = next(folder for folder in (cache_dir, *cache_dir.absolute().parents) if folder.exists())
    kind = _filesystem(there)
    free = os.statvfs(there)
    found = f"{cache_dir} on {kind}, {free.f_bavail * free.f_frsize / 1e9:.1f} GB free"
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            os.fsync(file.fileno())
    except OSError as error:
        return Check(
            "cache", False, f"{found}, cannot be written: {error.strerror}", "Choose another with --cache-dir."
        )
    if kind.startswith(NETWORK_FILESYSTEMS):
        return Check(
            "cache", True, found, "A network file system: no lock is relied on, but a power loss may cost more."
        )
    return Check("cache", True, found)


def _filesystem(path: Path) -> str:
    """Return the file system type of the mount that holds `path`, as Linux says it."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "an unknown file system"
    real = str(path.resolve())
    fitting = [m for m in mounts if real == m[1] or real.startswith(m[1].rstrip("/") + "/")]
    return max(fitting, key=lambda mount: len(mount[1]))[2] if fitting else "an unknown file system"


def _loading() -> Check:
    """Decode one image in a real loading process."""
    import numpy as np

    from pipeline.backbones.preprocess import Preprocess
    from pipeline.errors import PipelineError
    from pipeline.loading.loader import Loader
    from pipeline.sources.source import ArrayPayload

    preprocess = Preprocess(8, 8, "bilinear", (0.5,) * 3, (0.5,) * 3)
    try:
        with Loader(preprocess, batch_size=1, workers=1) as loader:
            loader.request([0], lambda _: ArrayPayload(np.zeros((8, 8), np.uint8)))
            loader.release(loader.next_batch())
    except (PipelineError, OSError) as error:
        return Check("loading", False, str(error), "The decoding processes cannot start.")
    return Check("loading", True, "a decoding process starts and answers")
