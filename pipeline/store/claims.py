"""Who is at work on what, said under `plans/<plan>/claims/`: advice that keeps workers from doing the same twice.

Nothing depends on a claim being right: shards are correct without (see `work`), a wrong one costs time only. A
claim lives as long as its holder touches it. Whoever waits for one watches its time stamp by a clock of its own, so
that clocks of machines need not agree; of a process on the same machine it looks whether that is there.

What a holder that died was computing is in its claim, so that the images that kill workers are found: see
`extraction.careful`.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pipeline.errors import CacheError
from pipeline.store.commit import (
    disk_errors,
    publish_link,
    read_json,
    remove_leftovers,
    temporary_name,
    write_json,
)
from pipeline.store.fields import Fields, check_fields

CLAIMS = "claims"
FORMAT, FORMAT_VERSION = "pipeline-claim", 1
FIELDS: Fields = {"holder": dict, "deaths": int, "trying": list, "strikes": list}
HOLDER: Fields = {"machine": str, "pid": int, "started": str, "token": str}
PATIENCE_SECONDS = 60.0
"""A claim that nobody has touched for so long has lost its holder."""
HANG_SECONDS = 900.0
"""A holder that finishes no batch for so long stops touching its claims: it hangs."""
BEATS = 6
"""How often a claim is touched while others would be patient."""


@dataclass(frozen=True)
class Holder:
    """A process, told from all others that share a cache."""

    machine: str
    """Boot of a kernel and process namespace within it; empty where the system does not say."""
    pid: int
    started: str
    """When that process started, by its kernel's count: process ids are used again."""
    token: str

    @classmethod
    def me(cls) -> Self:
        """Return a new holder of this process."""
        return cls(_machine(), os.getpid(), _started(os.getpid()), secrets.token_hex(8))

    def is_gone(self) -> bool:
        """Tell whether it ran on this machine and does so no more; False of others, of which nobody knows."""
        return bool(self.machine) and self.machine == _machine() and _started(self.pid) != self.started


@dataclass(frozen=True)
class Claim:
    """What a worker says while it makes a shard."""

    holder: Holder
    deaths: int = 0
    """How many holders before this one were lost."""
    trying: tuple[int, ...] = ()
    """Listing rows whose features are being computed, if the holder is careful."""
    strikes: Mapping[int, int] | None = None
    """How many holders were lost while they computed a listing row alone."""

    def inherited(self, holder: Holder) -> "Claim":
        """Return the claim of whoever takes over from a lost holder."""
        strikes = dict(self.strikes or {})
        if len(self.trying) == 1:
            strikes[self.trying[0]] = strikes.get(self.trying[0], 0) + 1
        return replace(self, holder=holder, deaths=self.deaths + 1, strikes=strikes)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "holder": vars(self.holder),
            "deaths": self.deaths,
            "trying": list(self.trying),
            "strikes": [[row, count] for row, count in sorted((self.strikes or {}).items())],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Claim":
        """Build from `to_json`'s fields.

        Raises:
            CacheError: if they are of another version, or not what they must be.
        """
        if (value.get("format"), value.get("format_version")) != (FORMAT, FORMAT_VERSION):
            raise CacheError(f"a claim of version {value.get('format_version')!r}, expected {FORMAT_VERSION}")
        check_fields(value, FIELDS, "claim")
        check_fields(value["holder"], HOLDER, "claim: holder")
        pairs = [pair for pair in value["strikes"] if isinstance(pair, list) and len(pair) == 2]
        rows = [*value["trying"], *(row for pair in pairs for row in pair)]
        if len(pairs) != len(value["strikes"]) or not all(type(row) is int and row >= 0 for row in rows):
            raise CacheError("claim: rows that are no numbers")
        holder = Holder(**{name: value["holder"][name] for name in HOLDER})
        return cls(holder, value["deaths"], tuple(value["trying"]), {row: count for row, count in pairs})


class Claims:
    """The claims of one extraction in progress, as one worker sees and makes them. Use as a context."""

    def __init__(self, work: Path, *, patience: float = PATIENCE_SECONDS, hang: float = HANG_SECONDS) -> None:
        """See the claims of the extraction in progress in the folder `work`; nothing is written.

        Args:
            work: `plans/<plan>`.
            patience: seconds after which a claim that is not touched has lost its holder; all workers have the same.
            hang: seconds without `moved` after which this process touches its claims no more.
        """
        self.folder = work / CLAIMS
        self.patience, self.hang = patience, hang
        self.holder = Holder.me()
        self.held: dict[str, Claim] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        """When a claim of another was last touched, by its file system, and since when that is known here."""
        self._moved = time.monotonic()
        self._done = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._beating is not None:
            self._beating.join()
        for name in list(self.held):
            self.release(name)

    def take(self, name: str, *, lost: Collection[str] = ()) -> Claim | None:
        """Claim `name`; return None while another holds it and lives. `lost` are tokens of holders known to be dead.

        Raises:
            FileNotFoundError: if the work is done and its folder removed.
            CacheError: if the disk is full or cannot be written.
        """
        self.held[name] = Claim(self.holder)  # beforehand: whatever interrupts what follows gives it up again
        mine = self._taken(name, lost=lost)
        if mine is None:
            del self.held[name]
            return None
        self.held[name] = mine
        self._beat()
        return mine

    def _taken(self, name: str, *, lost: Collection[str]) -> Claim | None:
        path = self._path(name)
        there = self._read(path)  # opening it also makes a network file system ask for its time stamp anew
        if there is None:
            with disk_errors(self.folder, 0):
                self.folder.mkdir(exist_ok=True)  # never its parent: work that is done does not come back
            mine = Claim(self.holder)
            return mine if self._write(path, mine) else None
        if there.holder == self.holder:
            return there
        if there.holder.token not in lost and not self._is_lost(name, there):
            return None
        mine = there.inherited(self.holder)
        return mine if self._take_over(path, there, mine) else None

    def update(self, name: str, **changes: Any) -> Claim:  # noqa: ANN401 - fields of a Claim
        """Change what is said in a claim that is held, durably."""
        claim = replace(self.held[name], **changes)
        self.held[name] = claim
        with contextlib.suppress(FileNotFoundError):  # the work is done and its folder removed
            if self._is_mine(name):
                write_json(self._path(name), claim.to_json(), replace=True)
        return claim

    def release(self, name: str) -> None:
        """Give a claim up: what it was for is done, or left to others."""
        if name in self.held:
            with contextlib.suppress(OSError, CacheError):
                if self._is_mine(name):  # others may have taken it over from a process that was stopped for long
                    self._path(name).unlink()
            del self.held[name]

    def moved(self) -> None:
        """Tell that work goes on."""
        self._moved = time.monotonic()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    @staticmethod
    def _write(path: Path, claim: Claim) -> bool:
        return write_json(path, claim.to_json(), replace=False)

    def _read(self, path: Path) -> Claim | None:
        """Return a claim, None if there is none; one that cannot be read is removed: it is as if it were lost.

        Raises:
            CacheError: if it cannot be removed: nobody could ever claim this shard.
        """
        try:
            return Claim.from_json(read_json(path))
        except FileNotFoundError:
            return None
        except CacheError as error:
            remove_leftovers([path])
            if os.path.lexists(path):
                raise CacheError(f"{error.message}, and cannot be removed", f"Remove it: rm -r '{path}'") from error
            return None

    def _is_mine(self, name: str) -> bool:
        there = self._read(self._path(name))
        return there is not None and there.holder == self.holder

    def _is_lost(self, name: str, claim: Claim) -> bool:
        if claim.holder.is_gone():
            return True
        try:
            touched = self._path(name).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        before, since = self._seen.get(name, (0, now))
        if touched != before:
            self._seen[name] = touched, now
            return False
        return now - since > self.patience

    def _take_over(self, path: Path, lost: Claim, mine: Claim) -> bool:
        """Put a claim in the place of a lost one; return False if another was quicker."""
        ready, aside = temporary_name(path), temporary_name(path)
        try:
            self._write(ready, mine)  # beforehand, so that the name is free for a moment only
            with contextlib.suppress(FileNotFoundError):
                with disk_errors(path, 0):
                    os.rename(path, aside)  # of several that take it for lost one succeeds
                moved = self._read(aside)
                quicker = moved is not None and moved.holder != lost.holder  # that of another: it stays
                return publish_link(aside if quicker else ready, path, sync=False) and not quicker
            return False
        finally:
            remove_leftovers([ready, aside])

    def _beat(self) -> None:
        if self._beating is None:
            self._beating = threading.Thread(target=self._touch, name="claims", daemon=True)
            self._beating.start()

    def _touch(self) -> None:
        """Touch what is held while work goes on."""
        while not self._done.wait(self.patience / BEATS):
            if time.monotonic() - self._moved > self.hang:
                continue
            for name in list(self.held):
                with contextlib.suppress(OSError, CacheError):
                    if self._is_mine(name):
                        os.utime(self._path(name))


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process of this machine started, in its kernel's ticks; empty if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
