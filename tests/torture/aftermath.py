"""What must hold of a cache after a fault, and after the command that brings the work to its end."""

import json
import re
from pathlib import Path

from harness import entry_bytes
from stages import Said, Stage

from pipeline.digest import sha256_file
from pipeline.sources.folder import FolderSource
from pipeline.store.catalog import entry_folders
from pipeline.store.commit import read_json
from pipeline.store.entry import Entry, open_entry
from pipeline.store.statindex import StatIndex
from pipeline.store.verify import find_damage

ENTRY = r"[0-9a-f]{16}(/(entry\.json|samples\.h5|skipped\.csv|shards(/\d{5}\.h5)?))?"
WORK = r"plan\.json|records(/\d{5}\.json)?|shards(/[0-9a-f]{64}\.h5)?|claims(/(\d+|entry)\.json)?"
PLAN = rf"plans(/[0-9a-f]{{16}}(/({WORK}))?)?"
INDEX, TEMPORARY, ASIDE = r"index(/[0-9a-f]{16}\.stat)?", r"(.*/)?\.tmp-[^/]+(/.*)?", r"quarantine(/.*)?"


def assert_nothing_lost(stage: Stage, root: Path, log: Path) -> set[int]:
    """Check a cache after a fault. Return the numbers of the shards that were acknowledged, in all runs so far."""
    allowed = [ENTRY, PLAN, INDEX, TEMPORARY, *([ASIDE] if stage.damaged else [])]
    names = re.compile("|".join(f"(?:{pattern})" for pattern in allowed))
    strange = [name for name in sorted(_names(root)) if not names.fullmatch(name)]
    assert not strange, f"left behind: {strange}"
    entries = assert_whole(stage, root)
    acknowledged: dict[int, tuple[str, str]] = {number: (sha256, "") for number, sha256 in stage.promised.items()}
    for line in log.read_text().splitlines() if log.exists() else []:
        number, shard, record = json.loads(line)
        acknowledged[number] = (shard, record)
    published = entries.get(stage.entry)
    for number, (shard, record) in acknowledged.items():
        if published is None or published.shards[number]["sha256"] != shard:
            _assert_committed(root, number, shard, record)
    return set(acknowledged)


def assert_whole(stage: Stage, root: Path) -> dict[str, Entry]:
    """Check that every entry that can be seen is whole and what it was or is to be. Return them by id."""
    entries = {folder.name: open_entry(folder) for folder in entry_folders(root)}
    known = {**stage.kept, stage.entry: stage.files}
    assert set(stage.kept) <= set(entries) <= set(known)
    for name, entry in entries.items():
        wrong = {str(item.path.relative_to(entry.path)) for item in find_damage(entry)}
        if name == stage.entry and wrong and wrong <= stage.damaged:
            continue
        assert not wrong, f"{entry.path}: {wrong}"
        assert entry_bytes(entry.path) == known[name]
    bare = {path.name for path in root.glob("[0-9a-f]*") if re.fullmatch(r"[0-9a-f]{16}", path.name)} - set(entries)
    assert not bare, f"entries without a manifest: {bare}"
    return entries


def _assert_committed(root: Path, number: int, shard: str, record: str) -> None:
    plans = [path for path in root.glob("plans/*") if not path.name.startswith(".")]
    assert len(plans) == 1, f"shard {number} was acknowledged and lies neither in the entry nor in the one of {plans}"
    path = plans[0] / "records" / f"{number:05d}.json"
    assert read_json(path)["shard_sha256"] == shard
    assert not record or sha256_file(path) == record
    assert sha256_file(plans[0] / "shards" / f"{shard}.h5") == shard


def leftovers_of(root: Path) -> list[str]:
    """Return the names of temporary files and folders."""
    return sorted(name for name in _names(root) if Path(name).name.startswith(".tmp-"))


def _names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def assert_finished(stage: Stage, root: Path, end: Said, most: int) -> None:
    """Check the result of the command that followed the faults; `most` rows may have been computed by it."""
    assert end.code == 0, end
    assert "Traceback" not in end.err, end.err
    assert end.document["cache"] == stage.entry
    assert end.document["computed"] <= most, f"{end.document['computed']} rows were computed again, not {most}"
    assert stage.entry in assert_whole(stage, root)
    assert entry_bytes(root / stage.entry) == stage.files
    plans = [path for path in root.glob("plans/*") if not path.name.startswith(".")]
    assert not plans, "a finished extraction is listed as unfinished"
    assert_remembered(stage, root)


def assert_remembered(stage: Stage, root: Path) -> None:
    """Check that the stat index loads and knows every file of the source."""
    source = FolderSource(stage.source)
    digests, known = StatIndex.load(root, source.folder).lookup(source.listing().stats[:])
    assert known.all()
    files = [stage.source / sample_id for sample_id in source.listing().ids]
    assert [bytes(digest).hex() for digest in digests] == [sha256_file(file) for file in files]
