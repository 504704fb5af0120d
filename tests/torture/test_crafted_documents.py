"""Manifests, records, plans and stat indexes that mean harm under a right seal: refused, soon, in little memory."""

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import crafted_documents as documents
import numpy as np
import pytest
from crafted_documents import Change, forge, unsealed
from harness import trials
from small_cache import CLASSES, FOLDER, RECIPE, SPACE, SmallCache, make_cache, make_rows, overwrite
from test_crafted_files import MEMORY, SECONDS, trace
from watch import MB, answers, needs_proc

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.features import read_features
from pipeline.store.catalog import list_entries
from pipeline.store.entry import open_entry
from pipeline.store.key import entry_id
from pipeline.store.prune import plan_pruning
from pipeline.store.rows import index_rows
from pipeline.store.samples import SampleTable
from pipeline.store.statindex import MAGIC, ROW, StatIndex, index_path
from pipeline.store.verify import find_damage
from pipeline.store.work import list_work


@pytest.fixture
def cache(tmp_path) -> SmallCache:
    return make_cache(tmp_path / "cache", seeds=(0, 1), work_seeds=(2, 3))


def ending(read: Callable[[], Any]) -> str:
    """Tell how a reading ended."""
    try:
        found = read()
    except CacheError as error:
        memory = any(isinstance(cause, MemoryError) for cause in trace(error))
        return "refused after it asked for too much memory" if memory else "refused"
    except Exception as error:  # noqa: BLE001 - told to the parent
        return f"{type(error).__name__}: {error}"[:200]
    return "refused" if found is None else "read"


def judge(
    cache: SmallCache,
    cases: dict[str, Callable[[], None]],
    read: Callable[[], Any],
    allowed: tuple[str, ...] = ("refused",),
) -> int:
    """Prepare and read each case. Return how many there were; all ended as they should, soon, in little memory."""
    needs_proc()
    names = list(cases)

    def put(number: int) -> None:
        cases[names[number]]()

    notes = cache.root.with_name("answers")
    found = answers(lambda _: ending(read), len(names), notes, limit=2 * SECONDS, before=put)
    problems = [
        f"{name}: {answer.said}, {answer.seconds:.1f} s, {answer.grown / MB:.0f} MB"
        for name, answer in zip(names, found, strict=True)
        if answer.said not in allowed or answer.seconds > SECONDS or answer.grown > MEMORY
    ]
    strange = {path for answer in found for path in answer.opened if not path.startswith((str(cache.root), "<", "b'"))}
    assert not problems, f"{len(problems)} of {len(names)}:\n" + "\n".join(problems)
    assert not {path for path in strange if not path.isdigit()}, "files outside the cache were opened"
    return len(names)


def forging(path: Path, changes: dict[str, Change]) -> dict[str, Callable[[], None]]:
    """One preparation for each change of a document."""
    body = unsealed(path)

    def prepare(change: Change) -> None:
        changed = copy.deepcopy(body)
        change(changed)
        forge(path, changed)

    return {name: functools.partial(prepare, change) for name, change in changes.items()}


def read_everything(path: Path) -> None:
    """Read all that an entry holds."""
    entry = open_entry(path)
    entry.read_samples()
    entry.skipped()
    list(entry.read_shards())
    read_features(entry)


def look_around(cache: SmallCache) -> None:
    """Everything that looks through a cache root."""
    for entry in list_entries(cache.root):
        find_damage(entry)
    list_work(cache.root)
    cache.work.records()
    plan_pruning(cache.root, keep=0)
    index = index_rows(cache.root, SPACE, recipe=RECIPE, engine_only=True)
    digests = np.concatenate([make_rows(seed).digests for seed in range(4)])
    index.fetch(index.find(digests), digests, np.zeros((len(digests), *SPACE.row_shape), np.float32))


def test_an_undamaged_cache_is_read(cache):
    judge(cache, {"nothing": lambda: None}, lambda: read_everything(cache.entry.path) or "all", ("read",))
    judge(cache, {"nothing": lambda: None}, lambda: look_around(cache) or "all", ("read",))


def test_a_manifest_with_a_field_that_cannot_be_is_not_opened(cache, tally):
    cases = forging(cache.entry.path / "entry.json", documents.manifests_refused_at_once())
    count = judge(cache, cases, lambda: open_entry(cache.entry.path).space)
    tally("manifests with fields that cannot be", count, "all refused on opening")


def test_a_manifest_that_names_other_files_is_refused_on_reading(cache, tally):
    cases = forging(cache.entry.path / "entry.json", documents.manifests_refused_on_reading())
    count = judge(cache, cases, lambda: read_everything(cache.entry.path) or "all")
    tally("manifests that do not fit their files", count, "all refused on reading")


def test_whoever_looks_through_the_root_goes_on_past_any_manifest(cache, tally):
    changes = documents.manifests_refused_at_once()
    some = {name: changes[name] for name in list(changes)[:: trials(10, 1)]}
    cases = forging(cache.entry.path / "entry.json", documents.manifests_refused_on_reading() | some)
    tally(
        "walks past such a manifest", judge(cache, cases, lambda: look_around(cache) or "all", ("read",)), "all went on"
    )


def test_a_record_that_cannot_be_does_not_count(cache, tally):
    path = cache.work.path / "records" / "00000.json"
    count = judge(cache, forging(path, documents.records()), lambda: cache.work.record(0))
    tally("commit records with fields that cannot be", count, "none counted")
    names = list(documents.records())[:: trials(8, 1)]
    cases = forging(path, {name: documents.records()[name] for name in names})
    tally(
        "walks past such a record", judge(cache, cases, lambda: look_around(cache) or "all", ("read",)), "all went on"
    )


def test_a_record_of_2_to_the_50_bytes_is_refused_without_reading(cache):
    path = cache.work.path / "records" / "00000.json"
    cases = forging(path, {"size": documents.setting("bytes", to=documents.HUGE)})
    judge(cache, cases, lambda: cache.work.read_shard(cache.work.record(0), SPACE))


def test_a_plan_that_cannot_be_is_not_joined(cache, tally):
    path = cache.work.path / "plan.json"
    count = judge(cache, forging(path, documents.plans()), cache.work.pinned)
    tally("plans with fields that cannot be", count, "all refused")
    changes = documents.plans() | documents.plans_that_say_little()
    names = list(changes)[:: trials(8, 1)]
    cases = forging(path, {name: changes[name] for name in names})
    tally("walks past such a plan", judge(cache, cases, lambda: look_around(cache) or "all", ("read",)), "all went on")


@pytest.mark.parametrize("name", ["entry.json", "plan.json", "00000.json"])
def test_json_that_means_harm_is_refused(cache, name, tally):
    """Lists that take twenty times their text, numbers that take minutes, nesting without end."""
    path = next(cache.root.rglob(name))
    read = {
        "entry.json": lambda: open_entry(cache.entry.path),
        "plan.json": cache.work.pinned,
        "00000.json": lambda: cache.work.record(0),
    }[name]
    cases = {what: functools.partial(overwrite, path, text) for what, text in documents.TEXTS.items()}

    def of_300_megabytes() -> None:
        with path.open("r+b") as file:
            file.truncate(300 * MB)

    cases["300 megabytes"] = of_300_megabytes
    tally(f"JSON texts that mean harm as {name}", judge(cache, cases, read), "all refused")


def test_a_sample_table_with_values_that_cannot_be_is_refused(cache, tally):
    """Under the very id that such a table gives, in a manifest that names it."""
    body = unsealed(cache.entry.path / "entry.json")

    def prepare(table: SampleTable) -> None:
        data = table.to_bytes()
        named = entry_id(SPACE, CLASSES, table.ids, table.digests, table.labels, table.splits)
        overwrite(cache.entry.path / "samples.h5", data)
        named_by = {"sha256": sha256_bytes(data), "bytes": len(data)}
        forge(folder / "entry.json", {**body, "id": named, "samples": named_by})

    folder = cache.entry.path.rename(cache.entry.path.with_name("moved"))
    cache = SmallCache(cache.root, open_entry(folder), cache.work, cache.records)
    cases = {
        name: functools.partial(prepare, table) for name, table in documents.tables(cache.entry.read_samples()).items()
    }
    count = judge(cache, cases, lambda: read_everything(folder) or "all")
    tally("sample tables with values that cannot be", count, "all refused")


def test_no_memory_is_set_aside_for_rows_that_are_not_there(cache):
    """A space with rows of 512 MB, in shards that are said to be large enough, under the id that this gives."""
    space = replace(SPACE, row_shape=(1 << 27,))
    table = cache.entry.read_samples()
    named = entry_id(space, CLASSES, table.ids, table.digests, table.labels, table.splits)
    folder = cache.entry.path.rename(cache.entry.path.with_name("moved"))

    def change(body: documents.Body) -> None:
        body |= {"id": named, "space": space.to_json(), "space_sha256": space.sha256}
        for shard in body["shards"]:
            shard["bytes"] = documents.HUGE

    cases = forging(folder / "entry.json", {"rows of 512 MB": change})
    judge(cache, cases, lambda: read_features(open_entry(folder)))


def test_a_stat_index_that_means_harm_is_empty_or_in_order(cache, tally):
    path = index_path(cache.root, FOLDER)
    rng = np.random.default_rng(0)

    def sealed(payload: bytes) -> bytes:
        return MAGIC + sha256_bytes(payload).encode() + b"\n" + payload

    rows = np.frombuffer(rng.bytes(ROW.itemsize * 100), ROW)
    payloads = {
        "half a row": bytes(ROW.itemsize // 2),
        "random rows": rows.tobytes(),
        "one inode a hundred times": np.repeat(rows[:1], 100).tobytes(),
        "rows backwards": rows[::-1].tobytes(),
        "the smallest and largest numbers": b"\x80".rjust(8, b"\0") * 8 + (b"\x7f".rjust(8, b"\xff")) * 8,
        "no rows": b"",
    }
    cases = {name: functools.partial(overwrite, path, sealed(payload)) for name, payload in payloads.items()}
    other = {
        "no seal": b"text",
        "nothing": b"",
        "a seal of nothing": MAGIC + b"0" * 64 + b"\n",
        "JSON": json.dumps({}).encode(),
    }
    cases |= {name: functools.partial(overwrite, path, data) for name, data in other.items()}

    def of_8_terabytes() -> None:
        with path.open("r+b") as file:
            file.truncate(8 << 40)

    cases["8 terabytes"] = of_8_terabytes

    def read() -> Any:
        index = StatIndex.load(cache.root, FOLDER)
        assert (index.rows["inode"][:-1] <= index.rows["inode"][1:]).all()
        index.lookup(np.zeros((3, 4), np.int64))
        index.updated(rows[:3].copy())
        return None if not len(index.rows) else "rows"

    tally("stat indexes that mean harm", judge(cache, cases, read, ("refused", "read")), "empty or in order")
