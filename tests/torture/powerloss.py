"""A disk that loses power: what is done to it is recorded, then every state that a crash may leave is made.

The disk of this model promises less than any journalling file system does, and nothing that POSIX does not say:

- `fsync` of a file makes its bytes and its size durable, and none of its names.
- `fsync` of a folder makes the names in it durable: what was created, linked, renamed and removed there. The folder's
  own name needs an `fsync` of the folder it lies in, and the bytes of the files an `fsync` of their own.
- Whatever was done since is undecided, each name and each file for itself, in any order: a name shows any of the
  values it has had since the last `fsync` of its folder. A rename changes two names, so that afterwards the old one,
  the new one, both or neither may be there.
- A file written since its last `fsync` holds its old bytes, the new ones, or a mixture: cut off anywhere, of the right
  size but zeros, or with some of its 512-byte blocks new and the others old or zeros.

What the model leaves out: sectors that rot, a disk that lies about `fsync`, mode bits and times.
"""

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 512
DISK = 0
"""The node of the folder that stands for the whole disk."""

Tree = dict[str, tuple[int, bytes | None]]
"""Node and bytes by path; None instead of bytes for a folder."""


@dataclass(frozen=True)
class Names:
    """Names that change at once: (folder, name, node), None for a name that goes."""

    changes: tuple[tuple[int, str, int | None], ...]
    folder: int | None = None
    """The node that is a new folder."""


@dataclass(frozen=True)
class Write:
    """Bytes written at a place; None for a file cut off there."""

    node: int
    at: int
    data: bytes | None


Calls = tuple[tuple[str, str, int], ...]
"""Calls within the package, innermost first: (file, function, line)."""


@dataclass(frozen=True)
class Sync:
    """An fsync, and the calls that led to it."""

    node: int
    calls: Calls
    step: int
    """How many changes were made before it, those that failed included."""


@dataclass(frozen=True)
class Mark:
    """Nothing done to the disk: from here on something is promised."""

    promise: Any


Op = Names | Write | Sync | Mark


@dataclass
class Disk:
    """What is durable, and what has changed since."""

    names: dict[int, dict[str, int]] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    late_names: dict[int, dict[str, list[int | None]]] = field(default_factory=dict)
    """Values that a name has had, the durable one first, by folder and name."""
    late_contents: dict[int, list[bytes]] = field(default_factory=dict)

    def copy(self) -> "Disk":
        return Disk(
            {node: dict(names) for node, names in self.names.items()},
            dict(self.contents),
            {node: {name: list(old) for name, old in names.items()} for node, names in self.late_names.items()},
            {node: list(old) for node, old in self.late_contents.items()},
        )

    def apply(self, op: Op) -> None:
        if isinstance(op, Names):
            for folder, name, node in op.changes:
                if node is not None and node not in self.names and node not in self.contents:
                    (self.names if node == op.folder else self.contents)[node] = {} if node == op.folder else b""
                values = self.late_names.setdefault(folder, {})
                values.setdefault(name, [self.names[folder].get(name)]).append(node)
        elif isinstance(op, Write):
            values = self.late_contents.setdefault(op.node, [self.contents[op.node]])
            old = values[-1][: op.at].ljust(op.at, b"\0")
            values.append(old if op.data is None else old + op.data + values[-1][op.at + len(op.data) :])
        elif isinstance(op, Sync) and op.node in self.names:
            for name, values in self.late_names.pop(op.node, {}).items():
                _put(self.names[op.node], name, values[-1])
        elif isinstance(op, Sync):
            self.contents[op.node] = self.late_contents.pop(op.node, [self.contents[op.node]])[-1]

    def undecided(self) -> tuple[list[tuple[int, str]], list[int]]:
        """Return the names, by folder, and the files that a crash may leave in several ways."""
        return [(folder, name) for folder, names in self.late_names.items() for name in names], [*self.late_contents]

    def tree(self, names: dict[tuple[int, str], int | None], contents: dict[int, bytes]) -> Tree:
        """Return the disk with these names and bytes, and what is durable where none are given."""
        found: Tree = {}
        todo = [("", DISK)]
        while todo:
            path, folder = todo.pop()
            there = dict(self.names[folder])
            for name in self.late_names.get(folder, {}):
                if (folder, name) in names:
                    _put(there, name, names[folder, name])
            for name, node in there.items():
                if node in self.names:
                    todo.append((f"{path}{name}/", node))
                    found[path + name] = (node, None)
                else:
                    found[path + name] = (node, contents.get(node, self.contents[node]))
        return found

    def newest(self) -> tuple[dict[tuple[int, str], int | None], dict[int, bytes]]:
        """Return all undecided names and bytes as a process sees them while there is power."""
        names, files = self.undecided()
        return (
            {key: self.late_names[key[0]][key[1]][-1] for key in names},
            {node: self.late_contents[node][-1] for node in files},
        )


def _put(names: dict[str, int], name: str, node: int | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def extremes(disk: Disk) -> Iterator[Tree]:
    """Yield what a crash leaves where it spares nothing, all, names only or bytes only, and with bytes torn."""
    names, contents = disk.newest()
    yield disk.tree({}, {})
    yield disk.tree(names, contents)
    yield disk.tree(names, {})
    yield disk.tree({}, contents)
    yield disk.tree(names, {node: bytes(len(data)) for node, data in contents.items()})
    yield disk.tree(names, {node: data[: len(data) // 2] for node, data in contents.items()})


def single_losses(disk: Disk) -> Iterator[Tree]:
    """Yield what is left if a single change is lost, and if a single one survives."""
    names, contents = disk.newest()
    for key in names:
        for older in disk.late_names[key[0]][key[1]][:-1]:
            yield disk.tree({**names, key: older}, contents)
        yield disk.tree({key: names[key]}, contents)
    for node, data in contents.items():
        for older in (disk.contents[node], bytes(len(data)), data[: len(data) // 2]):
            yield disk.tree(names, {**contents, node: older})


def losses_of(disk: Disk, node: int) -> Iterator[Tree]:
    """Yield what is left if what is undecided of one file or folder is lost, and little else."""
    names, contents = disk.newest()
    late = disk.late_names.get(node, {})
    for name, values in late.items():
        yield disk.tree({**names, (node, name): values[0]}, contents)
    if node in contents:
        yield disk.tree(names, {**contents, node: bytes(len(contents[node]))})
    names = {key: value for key, value in names.items() if key[0] != node}
    contents = {file: data for file, data in contents.items() if file != node}
    yield disk.tree(names, contents)
    for lost in names:
        yield disk.tree({key: value for key, value in names.items() if key != lost}, contents)


def drawn(disk: Disk, rng: random.Random) -> Tree:
    """Return one of all states, drawn: sometimes nearly all survives, sometimes nearly nothing."""
    names, files = disk.undecided()
    spared = rng.choice([0.1, 0.5, 0.9])
    picked = {}
    for folder, name in names:
        values = disk.late_names[folder][name]
        picked[folder, name] = values[-1] if rng.random() < spared else rng.choice(values[:-1])
    contents = {}
    for node in files:
        values = disk.late_contents[node]
        contents[node] = values[-1] if rng.random() < spared else _torn(values, rng)
    return disk.tree(picked, contents)


def _torn(values: list[bytes], rng: random.Random) -> bytes:
    """Return a mixture of the old and the new bytes of a file, in blocks, of any size."""
    old, new = values[0], rng.choice(values[1:])
    size = rng.choice([len(old), len(new), rng.randint(0, len(new))])
    kinds = rng.choice([(old,), (new,), (b"",), (old, new), (new, b""), (old, new, b"")])
    blocks = [rng.choice(kinds)[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, size, BLOCK)]
    return b"".join(blocks)[:size]


def make_tree(tree: Tree, where: Path) -> None:
    """Make a state as real files; names of one node are links to one file."""
    first: dict[int, str] = {}
    for path, (node, data) in sorted(tree.items()):
        goal = f"{where}/{path}"
        if data is None:
            os.mkdir(goal)
        elif node in first:
            os.link(first[node], goal)
        else:
            first[node] = goal
            descriptor = os.open(goal, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
            os.write(descriptor, data)
            os.close(descriptor)


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory, where there is one: nothing here needs a disk, it is what is modelled."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
