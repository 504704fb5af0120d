"""The C library's allocator, told to keep what it has.

Activations of a batch are hundreds of megabytes. glibc takes such blocks from the kernel and gives them back in
every layer of every forward pass, and the kernel clears each page again: measured on a virtual machine with 2
cores, this was two thirds of MobileNetV2's time (22 images/s, 74 without). Results do not change by a bit.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Let this process keep freed memory for reuse. Return whether the C library has the means (glibc has)."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
