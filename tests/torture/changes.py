"""Changes to images, options and the cache, one function each; they return options for the next extraction."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from conftest import make_image
from entry_world import OPTIONS, World, as_before, edit, make_images, replace_copy
from safetensors.torch import save_file
from torchvision import models

from pipeline.digest import sha256_bytes
from pipeline.store.commit import write_json
from pipeline.store.entry import MANIFEST
from pipeline.store.shard import ShardRows, shard_bytes
from pipeline.store.statindex import index_path

Options = dict[str, Any]


def moved(old: str, new: str) -> Callable[[World], None]:
    def do(world: World) -> None:
        world.image(new).parent.mkdir(parents=True, exist_ok=True)
        world.image(old).rename(world.image(new))

    return do


def options(**changes: Any) -> Callable[[World], Options]:
    return lambda _world: changes


def added(name: str, **changes: Any) -> Callable[[World], Options]:
    def do(world: World) -> Options:
        world.image(name).parent.mkdir(exist_ok=True)
        make_image(77).save(world.image(name))
        return changes

    return do


def duplicated(world: World) -> None:
    shutil.copy(world.image("apple/00.bmp"), world.image("corn/zz.bmp"))


def new_and_duplicated(world: World) -> None:
    added("corn/yy.bmp")(world)
    shutil.copy(world.image("corn/yy.bmp"), world.image("corn/zz.bmp"))


def another_cache(world: World) -> Options:
    return {"cache_dir": world.cache.with_name("other")}


def edited(world: World) -> None:
    facts = world.image().stat()
    edit(world.image())
    as_before(world.image(), facts)
    assert world.image().stat().st_mtime_ns == facts.st_mtime_ns


def replaced(world: World) -> None:
    """Another file of the same name, size and time."""
    facts = world.image().stat()
    new = world.photos / "new.tmp"
    shutil.copy(world.image(), new)
    edit(new)
    new.replace(world.image())
    as_before(world.image(), facts)
    assert world.image().stat().st_size == facts.st_size


def written_again(world: World) -> None:
    world.image().write_bytes(world.image().read_bytes())


def as_png(world: World) -> None:
    make_image(1001).save(world.image("beet/01.png"))
    world.image().unlink()


def copied(world: World) -> Options:
    return {"source": shutil.copytree(world.photos, world.photos.with_name("copy"))}


def folder_moved(world: World) -> Options:
    return {"source": world.photos.rename(world.photos.with_name("moved"))}


def by_a_link(world: World) -> Options:
    (world.photos.parent / "link").symlink_to(world.photos)
    return {"source": world.photos.parent / "link" / "apple" / ".."}


def split_folders(world: World) -> None:
    """The last image becomes the test split, all others train."""
    everything = world.photos.rename(world.photos.with_name("train"))
    world.photos.mkdir()
    everything = everything.rename(world.photos / "train")
    (world.photos / "test" / "corn").mkdir(parents=True)
    (everything / "corn" / "03.bmp").rename(world.photos / "test" / "corn" / "03.bmp")


def exchanged(world: World) -> None:
    """Two images take each other's name."""
    one, other, aside = world.image("apple/00.bmp"), world.image("apple/02.bmp"), world.photos / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def linked(world: World) -> None:
    """An image becomes a link to itself elsewhere in the folder."""
    world.image().rename(world.photos / "beet" / ".kept")
    world.image().symlink_to(".kept")


def all_cores(_world: World) -> None:
    """A forward pass uses as many threads as there are cores: from here on more than one, where there are more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def all_cores_and_added(world: World) -> None:
    all_cores(world)
    added("corn/zz.bmp")(world)


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[World], Options]:
    """The random weights of seed 0 from a file, after a change of theirs."""

    def do(world: World) -> Options:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = models.get_model(OPTIONS["backbone"]).state_dict()
        change(state)
        save_file(state, world.photos.with_name("weights.safetensors"))
        return {"weights": str(world.photos.with_name("weights.safetensors"))}

    return do


def flip(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        state[name].view(-1)[:1].view(torch.int32).bitwise_xor_(1)

    return change


def broken(world: World) -> None:
    world.image().write_bytes(world.image().read_bytes()[:100])


def mended(world: World) -> None:
    broken(world)
    assert world.extract().skipped == 1
    make_image(78).save(world.image())


def mended_as_it_was(world: World) -> None:
    data = world.image().read_bytes()
    broken(world)
    world.extract()
    world.image().write_bytes(data)


def index_becomes(data: Callable[[bytes], bytes | None]) -> Callable[[World], None]:
    def do(world: World) -> None:
        path = index_path(world.cache, str(world.photos.resolve()))
        new = data(path.read_bytes())
        path.unlink()
        if new is not None:
            path.write_bytes(new)

    return do


def index_of_another_folder(world: World) -> None:
    """The index of a folder with other images under the same names."""
    other = World(make_images(world.photos.with_name("other")), world.cache)
    for path in other.photos.rglob("*.bmp"):
        edit(path)
    other.remember()
    mine, theirs = (index_path(world.cache, str(folder.resolve())) for folder in (world.photos, other.photos))
    theirs.replace(mine)


def entry_deleted(world: World) -> None:
    """Another entry has its rows."""
    world.image("apple").rename(world.image("avocado"))
    other = world.extract()
    assert (other.computed, other.cache == world.base) == (0, False)
    world.image("avocado").rename(world.image("apple"))
    shutil.rmtree(world.cache / world.base)


def damaged(name: str) -> Callable[[World], None]:
    def do(world: World) -> None:
        path = world.cache / world.base / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        replace_copy(path, bytes(data))

    return do


def entry_renamed(world: World) -> None:
    (world.cache / world.base).rename(world.cache / "called otherwise")


def recorded(package: str, factor: float = 1.0) -> Callable[[World], None]:
    """The entry says it was made with another version of a package, which computed other features."""

    def do(world: World) -> None:
        entry, path = world.entry, world.cache / world.base / MANIFEST
        body = {key: value for key, value in entry.manifest.items() if key != "sha256"}
        for number, shard in enumerate(body["shards"]):
            shard["facts"]["versions"][package] = "0.0.1"
            if factor != 1:
                rows = entry.read_shard(number)
                other = ShardRows(rows.features * np.float32(factor), rows.digests, rows.status)
                data = shard_bytes(entry.space, other)
                shard["sha256"], shard["bytes"] = sha256_bytes(data), len(data)
                replace_copy(entry.shard_path(number), data)
        body["versions"][package] = "0.0.1"
        write_json(path, body, replace=True)

    return do


def recorded_and_added(package: str) -> Callable[[World], None]:
    def do(world: World) -> None:
        recorded(package)(world)
        added("corn/zz.bmp")(world)

    return do
