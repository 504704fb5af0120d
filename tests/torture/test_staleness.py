"""After any change the same `extract` computes exactly the rows that are not in the cache, and takes no stale one."""

import hashlib
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import changes as c
import pytest
from change_table import CHANGES
from entry_world import IMAGES, World, check_rows, edit, make_images, shard_files, shared_shards
from harness import on_one_core

from pipeline.errors import DataError
from pipeline.loading.process import WorkerProcess
from pipeline.store.entry import open_entry
from pipeline.store.statindex import StatIndex, index_path

PASSED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="module", autouse=True)
def old_files():
    """Let files made a moment ago pass for old ones, which the stat index remembers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.store.statindex.GRANULARITY_NS", -(10**18))
        yield


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Networks as small as this one are quicker on one thread; a change of theirs may take more."""
    with on_one_core():
        yield


@pytest.fixture(autouse=True)
def still_one_core(one_core):
    with on_one_core():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    world = World(make_images(folder / "photos"), folder / "cache")
    world.base = world.extract().cache
    return world


@pytest.fixture
def world(base, tmp_path):
    return base.copy(tmp_path)


@pytest.fixture
def loading(monkeypatch):
    """The loading processes that were started: without one no image was opened."""
    started: list[WorkerProcess] = []

    class Counted(WorkerProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr("pipeline.loading.loader.WorkerProcess", Counted)
    return started


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_costs_what_it_must_and_no_more(world, tmp_path, loading, request, name):
    change = CHANGES[name]
    before = shard_files(world.entry, tmp_path / "before")
    options = change.do(world) or {}
    loading.clear()
    result = world.extract(**options)
    assert (result.computed, result.reused) == (change.computed, change.reused)
    assert (result.cache == world.base) == change.same
    assert bool(loading) != change.unread
    assert shared_shards(open_entry(Path(result.path)), before) == (change.shared, change.remade)
    check_rows(result, Path(options.get("source", world.photos)), options)
    loading.clear()
    again = world.extract(**{key: value for key, value in options.items() if key not in ("restart", "rehash")})
    assert (again.cache, again.computed, bool(loading)) == (result.cache, 0, not change.settled)
    request.config.stash.setdefault(PASSED, []).append(name)


def test_every_field_of_a_space_names_another_one(world):
    """Also those that no option changes yet."""
    space = world.entry.space
    other = {"row_shape": (7,), "preprocess": {}}
    names = {replace(space, **{name: other.get(name, "other")}).sha256 for name in asdict(space)}
    for name, value in space.preprocess.items():
        changed = {**space.preprocess, name: [0.1, 0.2, 0.3] if isinstance(value, list) else f"{value}0"}
        names.add(replace(space, preprocess=changed).sha256)
    assert len(names | {space.sha256}) == len(asdict(space)) + len(space.preprocess) + 1


def test_a_damaged_stat_index_is_noticed_and_made_again(world, caplog):
    path = index_path(world.cache, str(world.photos.resolve()))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    world.extract()
    assert "is damaged and is made anew" in caplog.text
    assert path.read_bytes() == whole


def test_rows_of_another_version_are_compared_and_that_is_said(world, caplog):
    c.recorded("torch")(world)
    with caplog.at_level("INFO", "pipeline"):
        assert world.extract().computed == 0
    assert "agree with this installation" in caplog.text
    caplog.clear()
    shutil.rmtree(world.cache / world.base)
    world.extract()
    c.recorded("torch", 1.01)(world)
    assert world.extract().computed == IMAGES
    assert "differ from this installation's by" in caplog.text


def test_a_file_edited_while_its_remembered_digest_is_relied_upon_is_seen_next_time(world):
    c.added("corn/zz.bmp")(world)
    old = hashlib.sha256(world.image().read_bytes()).digest()
    first = world.extract(on_plan=lambda _plan: edit(world.image()))
    assert (first.computed, first.reused) == (1, IMAGES)
    table = open_entry(Path(first.path)).read_samples()
    assert table.digests[table.ids.index("beet/01.bmp")].tobytes() == old  # the rows are those of these very bytes
    second = world.extract()
    assert (second.computed, second.reused) == (1, IMAGES)
    check_rows(second, world.photos, {})


def test_a_file_edited_after_it_was_listed_or_read_is_taken_for_what_it_then_is(base, tmp_path):
    world = World(make_images(tmp_path / "photos"), tmp_path / "cache")
    edits = {4: world.image("corn/02.bmp"), 8: world.image("apple/01.bmp")}
    """When so many rows are done, one that is still to be read is edited, and one that has been."""

    def on_progress(progress):
        if path := edits.pop(progress.done, None):
            edit(path)

    assert world.extract(on_progress=on_progress).computed == IMAGES
    assert not edits
    second = world.extract()
    assert second.computed == 1  # the one that had been read
    check_rows(second, world.photos, {})


def test_a_file_edited_within_the_second_it_was_read_in_is_seen(tmp_path, monkeypatch):
    # An hour, so that a machine which is busy for seconds changes nothing.
    monkeypatch.setattr("pipeline.store.statindex.GRANULARITY_NS", 3_600 * 10**9)
    world = World(make_images(tmp_path / "photos"), tmp_path / "cache")
    first = world.extract()
    # Its times could stay the same in an edit now, so what was read is not remembered.
    assert not len(StatIndex.load(world.cache, str(world.photos.resolve())).rows)
    c.edited(world)
    second = world.extract()
    assert (second.computed, second.cache == first.cache) == (1, False)
    check_rows(second, world.photos, {})


def test_stat_fields_that_were_forged_are_believed_until_rehash(world):
    """Nothing in user space forges ctime: here the index is."""
    whole = hashlib.sha256(world.image().read_bytes()).digest()
    edit(world.image())
    world.remember(lambda p: whole if p == world.image() else hashlib.sha256(p.read_bytes()).digest())
    believed = world.extract()
    assert (believed.computed, believed.cache) == (0, world.base)
    rehashed = world.extract(rehash=True)
    assert (rehashed.computed, rehashed.reused, rehashed.cache == world.base) == (1, IMAGES - 1, False)
    check_rows(rehashed, world.photos, {})
    assert world.extract().cache == rehashed.cache  # and it is remembered rightly from now on


def test_what_was_committed_is_lost_with_the_plan_folder_and_only_then(base, tmp_path):
    for deleted, computed in ((True, IMAGES), (False, IMAGES - 4)):
        world = World(base.photos, tmp_path / f"cache{deleted}")

        def stop(progress):
            if progress.done >= 8:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            world.extract(on_progress=stop)
        assert len(list(world.cache.glob("plans/*/records/*.json"))) == 1
        if deleted:
            shutil.rmtree(world.cache / "plans")
        assert world.extract().computed == computed


def test_bad_images_stop_an_extraction_each_time_unless_they_are_skipped(world):
    c.broken(world)
    for _ in range(2):
        with pytest.raises(DataError, match="beet/01.bmp"):
            world.extract(on_bad_image="fail")
    assert (world.extract().skipped, world.extract().computed) == (1, 0)
    with pytest.raises(DataError, match="beet/01.bmp"):
        world.extract(on_bad_image="fail")


def test_the_checks_see_a_stale_row(world):
    """Else the tests above would prove nothing."""
    result = world.extract()
    check_rows(result, world.photos, {})
    edit(world.image())
    with pytest.raises(AssertionError):
        check_rows(result, world.photos, {})


def test_the_matrix_was_gone_through(request, tally):
    passed = request.config.stash.get(PASSED, [])
    tally("changes to a finished entry", len(passed), "each computed exactly what it had to")
