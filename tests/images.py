"""The same labelled images as a folder, a table, tar shards and a Hugging Face data set."""

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def rows_of(root: Path) -> list[tuple[Path, str]]:
    """(file, class) of every image in a folder of class folders, sorted."""
    return [(path, path.parent.name) for path in sorted(root.rglob("*.jpg"))]


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]], delimiter: str = ",") -> Path:
    """Write a CSV or TSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar file of (name, bytes) pairs."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, rows: list[tuple[Path, str]], shards: int = 2) -> Path:
    """Write `folder/NNN.tar` with an image, its class and more fields a key."""
    for number in range(shards):
        members = []
        for key, (path, label) in list(enumerate(rows))[number::shards]:
            fields: Mapping[str, object] = {"label": label, "patient": f"p{key // 3}"}
            members += [
                (f"{key:06d}.jpg", path.read_bytes()),
                (f"{key:06d}.cls", label.encode()),
                (f"{key:06d}.json", json.dumps(fields).encode()),
            ]
        write_tar(folder / f"{number:03d}.tar", members)
    return folder


def hugging(rows: list[tuple[Path, str]]):
    """A datasets.Dataset that holds the files' own bytes."""
    import datasets

    names = sorted({label for _, label in rows})
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": path.read_bytes(), "path": None} for path, _ in rows],
            "label": [names.index(label) for _, label in rows],
            "patient": [f"p{row // 3}" for row in range(len(rows))],
        },
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=names), "patient": datasets.Value("string")}
        ),
    )
