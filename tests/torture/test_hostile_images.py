"""Images that are damaged, lie, or are none: each is named in the ledger, costs itself alone, and kills nothing."""

import csv
import hashlib
import io
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Told, run_command
from conftest import BACKBONE, make_photos
from harness import Outcome, in_child, run_extract, trials
from hostile_folder import CLASSES, Corpus, make_corpus

import pipeline
import pipeline.loading.process
from pipeline.store.entry import open_entry

EXTRACT = [*BACKBONE, "--workers", "2", "--batch-size", "16", "--follow-symlinks"]
TIMEOUT = trials(100, 900)
PEAK_BYTES = 1 << 30
"""A worker holds a file, its pixels, those in RGB and those resized: of the largest image allowed, less than this."""


@dataclass(frozen=True)
class Run:
    """The corpus, and what one extraction of all of it said and left."""

    corpus: Corpus
    folder: Path
    """Where the command ran; its cache is there."""
    command: list[object]
    told: Told

    @property
    def made(self) -> dict[str, Any]:
        return json.loads(self.told.out)

    @property
    def path(self) -> Path:
        return self.folder / self.made["path"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    corpus = make_corpus(folder / "photos", every=trials(12, 1), flipped=trials(30, 500), sizes=trials(1, 6))
    command = ["extract", corpus.root, *EXTRACT, "--json"]
    told = run_command(*command, "--on-bad-image", "skip", cwd=folder, timeout=TIMEOUT)
    assert told.code == 0, told.err
    return Run(corpus, folder, command, told)


def test_each_hostile_file_is_named_and_each_good_one_is_used(run, tally):
    corpus, entry = run.corpus, open_entry(run.path)
    table = entry.read_samples()
    ledger = {line["id"]: line["reason"] for line in entry.skipped()}
    used = {name for name, usable in zip(table.ids, table.usable.tolist(), strict=True) if usable}

    wrongly_used = {name: what for name, what in corpus.bad.items() if name in used}
    assert wrongly_used == {}
    wrongly_refused = {name: (what, ledger[name]) for name, what in corpus.good.items() if name in ledger}
    assert wrongly_refused == {}
    assert sorted(table.ids) == sorted({**corpus.bad, **corpus.good, **corpus.either})
    assert used | set(ledger) == set(table.ids)
    assert (run.made["rows"], run.made["skipped"]) == (len(corpus) - len(ledger), len(ledger))
    assert all(len(reason) > 5 for reason in ledger.values())
    what_is_no_file = {
        name for name, what in corpus.bad.items() if "device" in what or "pipe" in what or "/dev" in what
    }
    assert {ledger[name] for name in what_is_no_file} == {"is not a regular file"}
    raw = (entry.path / "skipped.csv").read_bytes().decode("utf-8", "surrogateescape")
    assert dict(list(csv.reader(io.StringIO(raw, newline="")))[1:]) == ledger

    took = f"{run.told.seconds:.0f} s"
    tally("hostile files", len(corpus.bad), f"all refused by name, in {took} with the good ones")
    tally("good files beside them", len(corpus.good), "all used")
    tally("JPEG files with flipped bits", len(corpus.either), "each a row or a line in the ledger")


def test_no_process_died_of_the_hostile_files_or_took_much_memory(run, tally):
    reasons = [line["reason"] for line in open_entry(run.path).skipped()]
    assert not [reason for reason in reasons if "the decoder" in reason or "longer than" in reason]
    assert run.told.workers == 2  # none was replaced
    assert run.told.peak_bytes < PEAK_BYTES
    if sys.platform == "linux":
        assert run.told.peak_bytes > 10 << 20  # or nothing was measured
    tally("loading processes", 2, f"0 died of all that, at most {run.told.peak_bytes >> 20} MB each")


def test_good_images_have_the_features_they_have_without_bad_ones_beside_them(run, tmp_path):
    for number, name in enumerate(run.corpus.good):
        goal = tmp_path / "alone" / CLASSES[number % 2] / f"{number:04d}.png"
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.hardlink_to(run.corpus.path(name).resolve())
    told = run_command("extract", "alone", *EXTRACT, "--json", cwd=tmp_path, timeout=TIMEOUT)
    assert told.code == 0, told.err
    beside, alone = (
        {digest.tobytes(): row for digest, row in zip(found.digests, found.x.numpy(), strict=True)}
        for found in (pipeline.open_cache(run.path), pipeline.open_cache(tmp_path / json.loads(told.out)["path"]))
    )
    assert len(alone) > 50
    assert all(np.array_equal(beside[digest], row) for digest, row in alone.items())
    assert np.isfinite(np.stack(list(beside.values()))).all()


def test_the_same_command_again_computes_nothing_and_without_skip_names_them_in_one_line(run):
    again = run_command(*run.command, "--on-bad-image", "skip", cwd=run.folder, timeout=TIMEOUT)
    assert (again.code, json.loads(again.out)["computed"]) == (0, 0)
    assert json.loads(again.out)["cache"] == run.made["cache"]
    failed = run_command(*run.command[:-1], cwd=run.folder, timeout=TIMEOUT)
    assert failed.code == 3
    assert failed.is_one_line, failed.err
    assert f"{run.made['skipped']:,} of {len(run.corpus):,} images cannot be used: apple/" in failed.err
    assert "--on-bad-image skip" in failed.err


DEEDS = {
    "segfault": ("ctypes.string_at(0)", "crashed on it (signal 11)"),
    "hang": ("time.sleep(3600)", "decoding took longer than 2 s"),
    "memory": (
        "hold = []\n        while True: hold.append(numpy.empty(1 << 28, numpy.uint8))",
        "more memory than a worker may take",
    ),
    "abort": ("os.abort()", "crashed on it (signal 6)"),
    "kill": ("os.kill(os.getpid(), 9)", "crashed on it (signal 9)"),
    "exit": ("os._exit(3)", "stopped on it (exit 3)"),
    "stop": ("os.kill(os.getpid(), 19)", "decoding took longer than 2 s"),
}
"""What a broken decoder does, and what the ledger must say of it."""

DRILL = """
import ctypes, hashlib, os, time
import numpy, PIL.Image

def opened(file, *arguments, whole=PIL.Image.open, **more):
    if hashlib.sha256(file.getvalue()).hexdigest() == {culprit!r}:
        {deed}
    return whole(file, *arguments, **more)
PIL.Image.open = opened
"""
"""Makes the loading processes' Pillow a broken one, which does its deed on one image."""


def break_decoder(monkeypatch, file: Path, culprit: Path, deed: str) -> None:
    file.write_text(DRILL.format(culprit=hashlib.sha256(culprit.read_bytes()).hexdigest(), deed=deed))
    boot = pipeline.loading.process.BOOT
    broken = boot.replace("from pipeline", f"exec(open({str(file)!r}).read(), {{}}); from pipeline")
    assert broken != boot
    monkeypatch.setattr("pipeline.loading.process.BOOT", broken)


def extracted(photos: Path, cache: Path, **options: Any) -> Outcome:
    """Extract in a child."""
    return in_child(lambda: run_extract(photos, cache, **options))


def rows_by_id(path: str) -> dict[str, bytes]:
    found = pipeline.open_cache(path)
    return {name: row.tobytes() for name, row in zip(found.ids, found.x.numpy(), strict=True)}


def test_a_decoder_that_crashes_hangs_or_eats_memory_costs_one_image(tmp_path, monkeypatch, tally):
    photos = make_photos(tmp_path / "photos", per_class=6)
    clean = extracted(photos, tmp_path / "clean").result
    wanted = rows_by_id(clean["path"])
    assert len(wanted) == 18
    rng = random.Random(7)
    # Each deed in turn, those that take the time of two hangs less often.
    turns = [*DEEDS, *[deed for deed in DEEDS if deed not in ("hang", "stop")] * 2]
    for trial in range(trials(3, 100)):
        name = turns[trial % len(turns)]
        deed, reason = DEEDS[name]
        culprit = rng.choice(sorted(wanted))
        cache = tmp_path / f"cache{trial}"
        with monkeypatch.context() as patch:
            break_decoder(patch, tmp_path / "drill.py", photos / culprit, deed)
            ended = extracted(photos, cache, image_timeout=2.0)
        assert (ended.code, ended.error) == (0, ""), (name, culprit)
        ledger = open_entry(Path(ended.result["path"])).skipped()
        assert [line["id"] for line in ledger] == [culprit], name
        assert reason in ledger[0]["reason"]
        assert rows_by_id(ended.result["path"]) == {other: row for other, row in wanted.items() if other != culprit}
        if not trial % 5:  # with a decoder that works again it costs that one image
            mended = extracted(photos, cache).result
            assert (mended["computed"], mended["cache"]) == (1, clean["cache"]), name
    tally("decoders that crash, hang or eat memory on one image", trial + 1, "each cost that image alone")


def test_the_corpus_is_as_large_as_it_is_said_to_be(run):
    assert len(run.corpus.bad) >= trials(200, 2_000)
    assert len(run.corpus.good) >= trials(60, 300)
