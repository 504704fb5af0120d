"""Versions of what computes: recorded beside the rows, never part of their names."""

import contextlib
import platform
from functools import cache
from importlib import metadata

PACKAGES = ("torch", "torchvision", "numpy", "h5py", "pillow", "safetensors", "scikit-learn")
EXTRAS = ("timm", "openvino")
"""Recorded where they are installed."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that features and heads depend on."""
    return dict(_installed())


@cache
def _installed() -> dict[str, str]:
    # Reading them takes 20 ms, and every shard records them.
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    for package in EXTRAS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
