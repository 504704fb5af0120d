"""Whole files that are not as this package writes them. A maker takes (folder, kind) and returns bytes.

Those in `REFUSED` must be refused. Those in `ODD` are valid HDF5 that nobody here writes: refused, or read right.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from crafted import Kind, crafted
from h5py import h5a, h5s, h5t

Maker = Callable[[Path, Kind], bytes]


def _with(change: Callable[[h5py.File, Kind], None], **options: Any) -> Maker:
    return lambda folder, kind: crafted(folder, kind, lambda file: change(file, kind), **options)


def _attribute(make: Callable[[h5py.File], Any], name: str = "format") -> Maker:
    """Replace an attribute."""

    def change(file: h5py.File, kind: Kind) -> None:
        if name in file.attrs:
            del file.attrs[name]
        make(file)

    return _with(change)


def _more(make: Callable[[h5py.File], Any]) -> Maker:
    """Add an attribute named `more`; one of text or integers would do no harm."""
    return _with(lambda file, kind: make(file))


def _low_attribute(file: h5py.File, kind: Any, space: Any) -> None:
    h5a.create(file.id, b"more", kind, space)


def _links(count: int) -> Callable[[h5py.File, Kind], None]:
    def change(file: h5py.File, kind: Kind) -> None:
        for number in range(count):
            file.id.links.create_soft(b"%d" % number, b"/status")

    return change


def _groups(count: int) -> Callable[[h5py.File, Kind], None]:
    def change(file: h5py.File, kind: Kind) -> None:
        for number in range(count):
            h5py.h5g.create(file.id, b"%d" % number)

    return change


def _attributes(count: int) -> Callable[[h5py.File, Kind], None]:
    def change(file: h5py.File, kind: Kind) -> None:
        for number in range(count):
            file.attrs[f"more {number}"] = number

    return change


def _renamed(name: str, to: str) -> Maker:
    return _with(lambda file, kind: file.move(name, to))


REFUSED: dict[str, Maker] = {
    "17 attributes": _with(_attributes(14)),
    "1,000 attributes": _with(_attributes(1000)),
    "one more dataset": _with(lambda file, kind: file.create_dataset("more", data=np.zeros(5))),
    "one more group": _with(lambda file, kind: file.create_group("more")),
    "one more dangling link": _with(lambda file, kind: file.__setitem__("more", h5py.SoftLink("/nowhere"))),
    "the root once more": _with(lambda file, kind: file.__setitem__("more", file["/"])),
    "a committed type": _with(lambda file, kind: file.__setitem__("more", np.dtype("f4"))),
    "no status": _with(lambda file, kind: file.__delitem__("status")),
    "nothing": lambda folder, kind: crafted(folder, Kind({}, {}, kind.parse)),
    "no attributes": lambda folder, kind: crafted(folder, Kind(kind.columns, {}, kind.parse)),
    "a name in other case": _renamed("status", "Status"),
    "a name with an invisible end": _renamed("status", "status\u200b"),
    "a name of 60 kilobytes": _renamed("status", "s" * 60_000),
    "an attribute of 64 kilobytes": _more(lambda file: file.attrs.create("more", np.bytes_(b"x" * 64_000))),
    "an attribute of 10 megabytes": _more(lambda file: file.attrs.create("more", np.bytes_(b"x" * 10**7))),
    "an attribute in any length": _more(lambda file: file.attrs.__setitem__("more", "pipeline-shard")),
    "an attribute of references": _more(lambda file: file.attrs.create("more", file["/"].ref)),
    "an attribute of records": _more(lambda file: file.attrs.create("more", np.zeros(2, "f4,u1"))),
    "an attribute of enumerated values": _more(
        lambda file: file.attrs.create("more", 1, dtype=h5py.enum_dtype({"a": 0}))
    ),
    "an attribute of lists": _more(
        lambda file: _low_attribute(file, h5t.vlen_create(h5t.STD_U8LE), h5s.create(h5s.SCALAR))
    ),
    "an attribute of floats": _more(lambda file: file.attrs.create("more", 1.0)),
    "an attribute with two axes": _more(lambda file: file.attrs.create("more", np.zeros((2, 2), "u1"))),
    "an attribute without data": _more(lambda file: file.attrs.create("more", h5py.Empty("S4"))),
    "an attribute without items": _more(lambda file: file.attrs.create("more", np.zeros(0, "u1"))),
    "an attribute that is no UTF-8": _more(lambda file: file.attrs.create("more", np.bytes_(b"\xff" * 14))),
    "an attribute of opaque bytes": _more(
        lambda file: _low_attribute(file, h5t.create(h5t.OPAQUE, 14), h5s.create(h5s.SCALAR))
    ),
    "an attribute that is missing": _attribute(lambda file: None),
    "another format": _attribute(lambda file: file.attrs.create("format", np.bytes_(b"pipeline-other"))),
    "version 2": _attribute(lambda file: file.attrs.create("format_version", 2), "format_version"),
    "version as text": _attribute(lambda file: file.attrs.create("format_version", np.bytes_(b"1")), "format_version"),
    "version as a list": _attribute(lambda file: file.attrs.create("format_version", [1, 1]), "format_version"),
    "half of it": lambda folder, kind: crafted(folder, kind)[: 5 * 512 // 2],
    "all but a byte": lambda folder, kind: crafted(folder, kind)[:-1],
    "its superblock only": lambda folder, kind: crafted(folder, kind)[:48],
    "its signature only": lambda folder, kind: crafted(folder, kind)[:8],
    "no byte": lambda folder, kind: b"",
    "text": lambda folder, kind: b"text",
    "zeros": lambda folder, kind: bytes(4096),
    "another file format": lambda folder, kind: b"PK\x03\x04" + crafted(folder, kind)[4:],
}
SOME: dict[str, Maker] = {"5,000 groups": _with(_groups(5_000)), "20,000 links": _with(_links(20_000))}
MANY: dict[str, Maker] = {"250,000 groups": _with(_groups(250_000)), "a million links": _with(_links(1_000_000))}
"""These take a minute to make."""

ODD: dict[str, Maker] = {
    "superblock 0": lambda folder, kind: crafted(folder, kind, libver="earliest"),
    "superblock 2": lambda folder, kind: crafted(folder, kind, libver=("v108", "v108")),
    "the newest format": lambda folder, kind: crafted(folder, kind, libver="latest"),
    "a user block": lambda folder, kind: crafted(folder, kind, userblock_size=512),
    "512 zeros in front": lambda folder, kind: bytes(512) + crafted(folder, kind),
    "garbage after its end": lambda folder, kind: crafted(folder, kind) + b"garbage" * 99,
    "another file after its end": lambda folder, kind: crafted(folder, kind) * 2,
    "pages": lambda folder, kind: crafted(folder, kind, fs_strategy="page", fs_page_size=4096, fs_persist=True),
    "free space that is kept": lambda folder, kind: crafted(folder, kind, fs_strategy="fsm", fs_persist=True),
    "links and attributes in order": lambda folder, kind: crafted(folder, kind, track_order=True),
    "attributes in a heap": _with(_attributes(12)),
}
