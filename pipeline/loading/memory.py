"""Memory shared with child processes by file descriptor: no name, so nothing stays behind after a kill."""

import mmap
import os
import tempfile

import numpy as np


class SharedMemory:
    """Anonymous shared memory of `size` bytes; children map it by its inherited descriptor."""

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        self.descriptor = _anonymous_file()
        os.ftruncate(self.descriptor, self.size)
        self._map = mmap.mmap(self.descriptor, self.size)

    @classmethod
    def attach(cls, descriptor: int, size: int) -> "SharedMemory":
        """Map memory that another process made."""
        memory = cls.__new__(cls)
        memory.size, memory.descriptor = max(1, size), descriptor
        memory._map = mmap.mmap(descriptor, memory.size)
        return memory

    def array(self, shape: tuple[int, ...], dtype: str, offset: int = 0) -> np.ndarray:
        """Return a view of the memory as an array."""
        return np.ndarray(shape, dtype, buffer=self._map, offset=offset)

    def close(self) -> None:
        """Give up the descriptor; the memory goes when the last view of it does."""
        os.close(self.descriptor)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        # Not /dev/shm: containers often limit it to 64 MB.
        return os.memfd_create("pipeline-batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
