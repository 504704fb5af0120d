"""Caches in known states, and commands that work on them in children."""

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# Imported before children are forked, so that none of them has to: a trial then takes half a second.
import h5py  # noqa: F401
import torchvision.models  # noqa: F401
from conftest import BACKBONE, make_image
from harness import entry_bytes, in_child, photos_in
from syscalls import Act, Call, Watch, kill_at

import pipeline.cli.cache
import pipeline.cli.extract
import pipeline.cli.show  # noqa: F401
from pipeline.cli import main
from pipeline.digest import sha256_bytes
from pipeline.store import statindex
from pipeline.store.commit import read_json
from pipeline.store.work import WorkFolder

SHARD_ROWS, ROWS = 8, 24
EXTRACT = [*BACKBONE, "--batch-size", "4", "--shard-rows", str(SHARD_ROWS), "--workers", "1", "--on-bad-image", "skip"]


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str
    calls: list[Call]

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Stage:
    """A command on a cache in a known state, and what an uninterrupted run of it makes."""

    name: str
    source: Path
    command: list[str]
    finish: tuple[list[str], ...]
    """Commands of which each brings it to its end after a fault."""
    template: Path | None = None
    """A cache root to begin with."""
    promised: dict[int, str] = field(default_factory=dict)
    """SHA-256 of shards committed before the command by number."""
    kept: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Other entries, which the command has nothing to do with."""
    damaged: frozenset[str] = frozenset()
    """Files of the entry that are damaged before the command."""
    entry: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """The entry's id and bytes in the end."""
    computed: int = 0
    calls: tuple[Call, ...] = ()
    """What an uninterrupted run calls, opening for reading included."""
    seconds: float = 0.0

    def root(self, folder: Path) -> Path:
        """Make a cache root in this stage's first state."""
        root = folder / "cache"
        folder.mkdir(parents=True)
        if self.template is not None:
            copy_tree(self.template, root)
        return root

    @property
    def changes(self) -> tuple[Call, ...]:
        """The calls that change the disk."""
        return tuple(call for call in self.calls if call.name != "read")

    @property
    def published(self) -> int:
        """The number of the last call that matters, counted in `calls`: after it the entry is there for good."""
        if self.command[0] != "extract":
            return len(self.calls)
        named = max(n for n, call in enumerate(self.calls) if (call.name, call.path) == ("rename", self.entry))
        return next(n for n, call in enumerate(self.calls, 1) if n > named and call == Call("fsync", "."))

    def most(self, command: list[str], acknowledged: set[int]) -> int:
        """Return how many rows may be computed by `command` when some shards were acknowledged before."""
        left = 0 if "--restart" in command else SHARD_ROWS * len(acknowledged)
        return min(self.computed, ROWS - left)


def copy_tree(source: Path, goal: Path) -> None:
    """Copy a folder with its times and its hard links."""
    subprocess.run(["cp", "-a", str(source), str(goal)], check=True)


def run_command(
    command: list[str], root: Path, *, act: Act | None = None, reads: bool = False, log: Path | None = None
) -> dict[str, Any]:
    """Run a command line in this process, which must be a child. Return the fields of `Said`.

    Commits that have returned are written to `log`.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as SIGINT, until the command line sets its own
    statindex.GRANULARITY_NS = -(10**18)  # files made a moment ago are remembered like those made long ago
    if log is not None:
        _acknowledge(log)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), Watch(root, act, reads=reads) as watch:
        try:
            main([*command, "--cache-dir", str(root), "--json"])
        except SystemExit as end:
            code = end.code or 0
    calls = [[call.name, call.path, call.size] for call in watch.calls]
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "calls": calls}


def said(result: dict[str, Any]) -> Said:
    """Take what `run_command` returned."""
    return Said(result["code"], result["out"], result["err"], [Call(*call) for call in result["calls"]])


def _acknowledge(log: Path) -> None:
    """Write down every commit that has returned: (number, shard, record), each in one write."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    commit, open_unseen = WorkFolder.commit, open

    def acknowledged(self: WorkFolder, number: int, *given: Any, **options: Any) -> Any:
        record = commit(self, number, *given, **options)
        with open_unseen(self.path / "records" / f"{number:05d}.json", "rb") as file:
            text = file.read()
        os.write(descriptor, json.dumps([number, record.sha256, sha256_bytes(text)]).encode() + b"\n")
        return record

    WorkFolder.commit = acknowledged  # type: ignore[method-assign]


@functools.cache
def make_stages(base: Path) -> dict[str, Stage]:
    """Make the stages below `base`: a new entry and everything that `extract` and `cache rm` do to an old one."""
    photos = photos_in(base / "photos")
    new = _measured(Stage("new", photos, _extract(photos, base), (_extract(photos, base),)), base)
    done = base / "done"  # a cache with the finished entry

    # The last image of one class becomes the first of the next: the order and so the shards stay, labels change.
    moved = base / "moved"
    copy_tree(photos, moved)
    (moved / "apple" / "07.jpg").rename(moved / "beet" / "00-was-apple.jpg")
    relabel = Stage("relabelled", moved, _extract(moved, base), (_extract(moved, base),), done)
    relabel = _measured(replace(relabel, kept={new.entry: new.files}), base)

    again = [*new.command, "--restart"]
    restarted = _measured(
        replace(new, name="restarted", command=again, finish=(new.command, again), template=done), base
    )

    both = base / "done-relabelled"
    kept = {relabel.entry: relabel.files}
    remove = ["cache", "rm", new.entry, "--yes"]
    removed = replace(new, name="removed", command=remove, template=both, kept=kept, computed=0)
    removed = replace(removed, calls=tuple(_run(removed, base / "run-removed").calls))

    made = (new, relabel, restarted, removed, _resumed(base), _repaired(new, base), *_shared(new, base))
    return {stage.name: stage for stage in made}


def _extract(source: Path, base: Path) -> list[str]:
    return ["extract", str(source), "--runs-dir", str(base / "runs"), *EXTRACT]


def _resumed(base: Path) -> Stage:
    """An extraction killed after two shards; since then all files were touched, and one of the first was changed."""
    touched = base / "touched"
    copy_tree(base / "photos", touched)
    command = _extract(touched, base)
    template = base / "interrupted"
    calls = _run(Stage("", touched, command, (command,)), base / "run-touched").calls
    changes = [call for call in calls if call.name != "read"]
    shards = [n for n, call in enumerate(changes, 1) if call.name == "open" and "/shards/.tmp-" in call.path]
    assert in_child(lambda: run_command(command, template, act=kill_at(shards[2], "before"))).code == -signal.SIGKILL
    make_image(77).save(touched / "apple" / "00.jpg")
    for file in touched.rglob("*.jpg"):
        os.utime(file)
    record = read_json(next(template.glob("plans/*/records/00001.json")))
    promised = {1: record["shard_sha256"]}
    return _measured(Stage("resumed", touched, command, (command,), template, promised), base)


def _shared(new: Stage, base: Path) -> list[Stage]:
    """An extraction by the second of two workers; by the first, after the second was killed at its first shard."""
    first, second = ([*new.command, "--worker", f"{index}/2"] for index in (0, 1))
    shared = _measured(replace(new, name="shared", command=second, finish=(first, new.command)), base)
    template = base / "left"
    shard = next(n for n, call in enumerate(shared.changes, 1) if call.name == "open" and "/shards/.tmp-" in call.path)
    assert in_child(lambda: run_command(second, template, act=kill_at(shard, "before"))).code == -signal.SIGKILL
    assert len(list(template.glob("plans/*/claims/*.json"))) == 1
    left = replace(new, name="left", command=first, finish=(second, new.command), template=template)
    return [shared, _measured(left, base)]


def _repaired(new: Stage, base: Path) -> Stage:
    """A finished entry in which one shard was damaged."""
    template = base / "damaged"
    copy_tree(base / "done", template)
    shard = template / new.entry / "shards" / "00001.h5"
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    stage = replace(new, name="repaired", template=template, damaged=frozenset({"shards/00001.h5"}))
    return _measured(stage, base)


def _run(stage: Stage, folder: Path) -> Said:
    root = stage.root(folder)
    outcome = in_child(lambda: run_command(stage.command, root, reads=True))
    assert outcome.code == 0, outcome
    end = said(outcome.result)
    assert end.code == 0, end
    return end


def _measured(stage: Stage, base: Path) -> Stage:
    """Run the stage's command without a fault and add what it made; the cache stays at `done` or `done-NAME`."""
    started = time.monotonic()
    end = _run(stage, base / f"run-{stage.name}")
    seconds = time.monotonic() - started
    goal = base / ("done" if stage.name == "new" else f"done-{stage.name}")
    (base / f"run-{stage.name}" / "cache").rename(goal)
    entry, computed = end.document["cache"], end.document["computed"]
    return replace(
        stage,
        entry=entry,
        files=entry_bytes(goal / entry),
        computed=computed,
        calls=tuple(end.calls),
        seconds=seconds,
    )
