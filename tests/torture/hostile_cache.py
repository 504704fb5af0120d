"""Runs and cache folders in which files were damaged, replaced by what is no file, or forged with a right seal."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hostile_places import EXTRACT, LONG, Case, Place

from pipeline.digest import seal
from pipeline.store.statindex import index_path


def forged(path: Path, **changes: object) -> None:
    """Change fields of a sealed document and seal it again, as whoever means harm would."""
    body = {**json.loads(path.read_bytes()), **changes}
    body = {key: value for key, value in body.items() if value is not ... and key != "sha256"}
    path.write_text(json.dumps(seal(body), indent=1) + "\n")


def replaced(path: Path, kind: str) -> None:
    """Put something that is no regular file in the place of one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to a device": lambda: path.symlink_to("/dev/zero"),
        "link to a system file": lambda: path.symlink_to("/etc/passwd"),
        "link to itself": lambda: path.symlink_to(path.name),
        "file": lambda: path.write_bytes(b"a file"),
        "nothing": lambda: None,
    }[kind]()


KINDS = ("pipe", "folder", "link to a device", "link to a system file", "link to itself", "nothing")


def runs() -> Iterator[Case]:
    """Runs whose files are damaged, replaced, or forged with a right seal."""
    evaluate = ("evaluate", "0001", "--split", "train")
    for name in ("head.json", "head.safetensors", "run.json"):
        for kind in KINDS:
            yield Case(f"{name}: {kind}", 3, lambda p, n=name, k=kind: replaced(p.run / n, k), evaluate)
        damages = {
            "empty": b"", "zeros": bytes(500), "text": b"text", "deep": b"[" * 100_000, "null": b"null\n",
            "a list": b"[]\n", "a number": b"1" * 6000, "not UTF-8": b'{"a": "\xff"}',
        }  # fmt: skip
        for what, data in damages.items():
            yield Case(f"{name}: {what}", 3, lambda p, n=name, d=data: (p.run / n).write_bytes(d), evaluate)
        yield Case(
            f"{name}: cut", 3, lambda p, n=name: os.truncate(p.run / n, (p.run / n).stat().st_size // 2), evaluate
        )
    changes: dict[str, tuple[tuple[str, object], ...]] = {
        "head.json": (
            ("classes", 5), ("classes", ["a"] * 10_000), ("classes", ...), ("dim", "x"), ("dim", 10**18), ("dim", ...),
            ("space", 5), ("space", ...), ("space_sha256", 5), ("space_sha256", ...), ("kind", "pickle"),
            ("format", "other"), ("weights_sha256", ...), ("classes", [1, 2]), ("classes", [["a"], {}]),
        ),
        "run.json": (
            ("cache", 5), ("cache", ...), ("cache", {}), ("cache", {"id": 5, "path": 5}),
            ("cache", {"id": "", "path": "/etc"}), ("cache", {"id": "x", "path": "a\0b"}),
            ("cache", {"id": "x", "path": LONG}), ("format_version", 99),
        ),
    }  # fmt: skip
    for name, fields in changes.items():
        for key, value in fields:
            what = f"{name}: forged {key} = {str(value)[:30]}"
            code = 4 if isinstance(value, dict) and len(value) == 2 and isinstance(value["path"], str) else 3
            yield Case(what, code, lambda p, n=name, k=key, v=value: forged(p.run / n, **{k: v}), evaluate)

    for key in ("cache", "backbone", "settings", "metrics", "created", "source", "classes"):
        for value in (5, ..., {}, []):
            prepare = lambda p, k=key, v=value: forged(p.run / "run.json", **{k: v})  # noqa: E731
            yield Case(f"run.json: forged {key} = {value}, listed", 0, prepare, ("runs",))
    for value in (5, {}, [], {"accuracy": "all"}):
        prepare = lambda p, v=value: _evaluation(p, v)  # noqa: E731
        yield Case(f"evaluation-test.json: forged metrics = {value}, listed", 0, prepare, ("runs",))


def _evaluation(place: Place, metrics: object) -> None:
    path = place.run / "evaluation-test.json"
    path.write_text("{}")
    forged(path, metrics=metrics)


def caches() -> Iterator[Case]:
    """Cache roots with other things in the place of their files and folders; `extract` mends what it can."""
    again = ("extract", "photos", *EXTRACT)
    yield Case("cache: a file", 2, lambda place: replaced(place.root / "cache", "file"), again)
    yield Case("cache: a pipe", 4, lambda place: replaced(place.root / "cache", "pipe"), again)
    for name in ("plans", "quarantine"):
        blocked = lambda p, n=name: (_hurt(p), replaced(p.root / "cache" / n, "file"))  # noqa: E731
        yield Case(f"cache/{name}: a file", 4, blocked, again)
    for name in ("entry.json", "samples.h5", "skipped.csv", "shards", "shards/00000.h5"):
        # Training does not look into the ledger.
        read = ("cache", "verify", "cache/ENTRY") if name == "skipped.csv" else ("train-head", "cache/ENTRY")
        for kind in KINDS:
            prepare = lambda p, n=name, k=kind: replaced(p.entry / n, k)  # noqa: E731
            yield Case(f"{name}: {kind}", 0, prepare, again)
            yield Case(f"{name}: {kind}, read", 4, prepare, read)
    for kind in (*KINDS, "file"):
        yield Case(f"stat index: {kind}", 0, lambda p, k=kind: replaced(_index(p), k), again)
        yield Case(f"entry: {kind}", 0, lambda p, k=kind: replaced(p.entry, k), again)
        yield Case(f"index folder: {kind}", 0, lambda p, k=kind: replaced(p.root / "cache" / "index", k), again)


def _index(place: Place) -> Path:
    return index_path(place.root / "cache", str(place.photos.resolve()))


def _hurt(place: Place) -> None:
    """Damage the entry, so that something must be set aside and made again."""
    shard = place.entry / "shards" / "00000.h5"
    shard.unlink()
    shard.write_bytes(b"damaged")
