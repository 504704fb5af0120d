"""Manifests, records, plans and stat indexes made to do harm, each with its right seal."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from small_cache import CLASSES, PLAN, SPACE, overwrite

from pipeline.digest import seal
from pipeline.store.manifest import FIELDS, FILE_FIELDS, SHARD_FIELDS
from pipeline.store.samples import SampleTable

Body = dict[str, Any]
Change = Callable[[Body], Any]
ANYTHING: list[Any] = [None, True, -1, 1.5, "text", [], {}, [[]], {"a": 1}]
HUGE, MORE = 1 << 50, 1 << 200
AWAY = ["../../../../etc/passwd", "/etc/passwd", "a\0b", "", "x" * 5000, "A" * 64, "0" * 63, "0" * 64 + "\n", "٠" * 64]
"""What is no SHA-256, some of which leads out of a folder."""


def forge(path: Path, body: Body) -> None:
    """Write a document with its right seal, in the very spelling that this package writes."""
    overwrite(path, json.dumps(seal(body), indent=1, ensure_ascii=True).encode() + b"\n")


def unsealed(path: Path) -> Body:
    """Return a document's fields without the seal."""
    return {name: value for name, value in json.loads(path.read_bytes()).items() if name != "sha256"}


def setting(*keys: Any, to: Any) -> Change:
    """A change that sets one field, however deep."""

    def change(body: Body) -> None:
        for key in keys[:-1]:
            body = body[key]
        body[keys[-1]] = to

    return change


def dropping(*keys: Any) -> Change:
    def change(body: Body) -> None:
        for key in keys[:-1]:
            body = body[key]
        del body[keys[-1]]

    return change


def wrong_kinds(where: tuple[Any, ...], fields: dict[str, Any]) -> Iterator[tuple[str, Change]]:
    """Every field missing, and of every JSON type that it must not have."""
    for name, kind in fields.items():
        yield f"{where} {name} missing", dropping(*where, name)
        for value in ANYTHING:
            if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 0):
                yield f"{where} {name} {value!r}", setting(*where, name, to=value)


def manifests_refused_at_once() -> dict[str, Change]:
    """Manifests that cannot be opened."""
    cases = dict(wrong_kinds((), FIELDS))
    for number in (0, 1):
        cases |= wrong_kinds(("shards", number), SHARD_FIELDS)
    for name in ("samples", "skipped"):
        cases |= wrong_kinds((name,), FILE_FIELDS)
    cases |= wrong_kinds(("skipped",), {"count": int})
    cases |= wrong_kinds(("source",), {"spec": str, "kind": str})
    cases |= wrong_kinds(("backbone",), {"name": str, "weights": str})
    for keys in (("id",), ("space_sha256",), ("samples", "sha256"), ("skipped", "sha256"), ("shards", 0, "sha256")):
        cases |= {f"{keys} {text[:24]!r}": setting(*keys, to=text) for text in AWAY}
    for value in ANYTHING:
        cases[f"shard {value!r}"] = setting("shards", 0, to=value)
        if not isinstance(value, str):
            cases[f"class name {value!r}"] = setting("classes", 0, to=value)
    cases |= {
        "rows that are not there": setting("rows", to=11),
        "a shard of 2**50 rows": setting("shards", 0, "rows", to=HUGE),
        "more samples than rows": setting("samples_listed", to=MORE),
        "a class twice": setting("classes", to=["apple", "apple"]),
        "a class that is no text": setting("classes", 0, to="\ud800"),
        "a split of another name": setting("splits", to={"holdout": 3}),
        "a split of text": setting("splits", to={"train": "3"}),
        "a split of minus 3": setting("splits", to={"train": -3}),
        "another format": setting("format", to="pipeline-plan"),
        "version 2": setting("format_version", to=2),
        "the id of another entry": setting("id", to="0" * 64),
    }
    return cases | {f"space {name}": change for name, change in spaces().items()}


def spaces() -> dict[str, Change]:
    """Feature spaces that none can be."""
    cases = {f"without {name}": dropping("space", name) for name in SPACE.to_json()}
    shapes = [
        5,
        "text",
        None,
        {},
        [-4],
        [0],
        [4.0],
        ["4"],
        [True],
        [[4]],
        [None],
        [1 << 40],
        [1 << 62, 4],
        [4] * 40,
        [],
    ]
    cases |= {f"of shape {shape}": setting("space", "row_shape", to=shape) for shape in shapes if shape != []}
    types = [5, None, [], "object", "O", "S4", "float128", "complex64", "S2000000000", "i4,f4", "<f4", "", "\0", "m8"]
    cases |= {f"of dtype {kind!r}": setting("space", "store_dtype", to=kind) for kind in types}
    for name in ("architecture", "weights", "layer", "pool", "dtype"):
        cases[f"with {name} 5"] = setting("space", name, to=5)
    cases["with preprocess 5"] = setting("space", "preprocess", to=5)
    cases["with one more field"] = setting("space", "more", to=1)
    cases["that is not its digest"] = setting("space", "layer", to="input:head")
    return cases


def manifests_refused_on_reading() -> dict[str, Change]:
    """Manifests that may be opened but name files that are not there."""
    return {
        "a shard of 2**50 bytes": setting("shards", 0, "bytes", to=HUGE),
        "a shard of 2**200 bytes": setting("shards", 0, "bytes", to=MORE),
        "a shard of no byte": setting("shards", 0, "bytes", to=0),
        "a sample table of 2**50 bytes": setting("samples", "bytes", to=HUGE),
        "a ledger of 2**50 bytes": setting("skipped", "bytes", to=HUGE),
        "another shard": setting("shards", 0, "sha256", to="0" * 64),
        "another sample table": setting("samples", "sha256", to="0" * 64),
        "another ledger": setting("skipped", "sha256", to="0" * 64),
        "shards in another order": lambda body: body["shards"].reverse(),
        "a shard twice": lambda body: body["shards"].__setitem__(1, body["shards"][0]),
        "rows in other shards": lambda body: [
            shard.update(rows=10 * number) for number, shard in enumerate(body["shards"])
        ],
        "one shard less": lambda body: body["shards"].pop() and body.update(samples_listed=5, rows=4),
        "500 more shards": lambda body: body["shards"].extend([{**body["shards"][0], "rows": 0}] * 500),
        "one class less": setting("classes", to=["apple"]),
        "a class more": setting("classes", to=["apple", "beet", "corn"]),
        "classes in another order": setting("classes", to=["beet", "apple"]),
    }


def records() -> dict[str, Change]:
    """Commit records that do not count."""
    cases = {}
    kinds = {"shard": int, "shard_sha256": str, "bytes": int, "rows": int, "computed": int, "reused": int}
    for name, kind in {**kinds, "bad": list, "stats": str, "facts": dict, "format": str}.items():
        cases |= wrong_kinds((), {name: kind})
    cases |= {f"SHA-256 {text[:24]!r}": setting("shard_sha256", to=text) for text in AWAY}
    for bad in (
        ["text"],
        [[1]],
        [[1, 2, 3]],
        [["1", "text"]],
        [[1, 5]],
        [[-1, "text"]],
        [[99, "text"]],
        [[1.0, "text"]],
    ):
        cases[f"bad images {bad}"] = setting("bad", to=bad)
    for stats in ("text", "AAAA", "=", "ä", base64.b64encode(bytes(65)).decode()):
        cases[f"stat fields {stats[:8]!r}"] = setting("stats", to=stats)
    cases["another shard"] = setting("shard", to=7)
    cases["version 2"] = setting("format_version", to=2)
    return cases


def plans() -> dict[str, Change]:
    """Plans that cannot be joined."""
    cases = dict(wrong_kinds((), {"plan": str, "recipe": dict, "format": str}))
    kinds = {"engine": str, "engine_version": str, "device": str, "threads": int, "batch_size": int, "shard_rows": int}
    cases |= wrong_kinds(("recipe",), kinds)
    cases["another plan"] = setting("plan", to=PLAN[:-1] + "0")
    cases["one more field"] = setting("recipe", "more", to=1)
    cases["no rows a batch"] = setting("recipe", "batch_size", to=0)
    cases["no rows a shard"] = setting("recipe", "shard_rows", to=0)
    return cases


def plans_that_say_little() -> dict[str, Change]:
    """Plans that can be joined, but whose other fields are not what they must be for who looks through the root."""
    cases = dict(wrong_kinds((), {"space": dict, "about": dict}))
    cases |= {f"space {name}": change for name, change in spaces().items()}
    return cases


TEXTS: dict[str, bytes] = {
    "nested 10,000 deep": b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "nested a million deep": b"[" * 1_000_000,
    "objects nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 5,000 digits": b'{"rows": ' + b"9" * 5_000 + b"}",
    "a number of a million digits": b'{"rows": ' + b"9" * 1_000_000 + b"}",
    "a number with a million zeros": b'{"rows": 1e1000000}',
    "no number": b'{"rows": NaN, "sha256": "0"}',
    "infinity": b'{"rows": -Infinity, "sha256": "0"}',
    "a field twice": b'{"a": 1, "a": 2}',
    "a list": b"[]",
    "text": b'"text"',
    "null": b"null",
    "nothing": b"",
    "zeros": bytes(4096),
    "a mark in front": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "no UTF-8": b'{"a": "\xff"}',
    "NUL": b'{"a": "\x00"}',
    "two documents": b"{}\n{}\n",
    "8 megabytes of lists": b'{"a": [' + b"[]," * ((8 << 20) // 3) + b"[]]}",
    "60 megabytes of lists": b'{"a": [' + b"[]," * ((60 << 20) // 3) + b"[]]}",
    "60 megabytes of numbers": b'{"a": [' + b"1000," * ((60 << 20) // 5) + b"1]}",
}


def tables(table: SampleTable) -> dict[str, SampleTable]:
    """Sample tables with values that cannot be."""

    def changed(**changes: Any) -> SampleTable:
        return SampleTable(**{**vars(table), **changes})

    def first(array: np.ndarray, value: int) -> np.ndarray:
        array = array.copy()
        array[0] = value
        return array

    cases = {f"label {value}": changed(labels=first(table.labels, value)) for value in (-1, len(CLASSES), 1 << 40)}
    cases |= {f"split {value}": changed(splits=first(table.splits, value)) for value in (-1, 3, 127)}
    cases |= {f"status {value}": changed(status=first(table.status, value)) for value in (2, 255)}
    odd = {"NUL": "a\0b", "absolute": "/etc/passwd", "above": "../../secret", "above within": "a/../../secret"}
    cases |= {f"id {what}": changed(ids=[text, *table.ids[1:]]) for what, text in odd.items()}
    columns = {name: value for name, value in vars(table).items() if value is not None}
    shorter = {name: value[:-1] for name, value in columns.items()}
    cases["a row less"] = SampleTable(**shorter)
    cases["no rows"] = SampleTable(**{name: value[:0] for name, value in columns.items()})
    return cases
