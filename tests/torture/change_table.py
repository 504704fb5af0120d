"""Every change that is tried on a finished entry, and what the same extraction must compute and reuse after it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import changes as c
from entry_world import IMAGES, SHARDS, World


@dataclass(frozen=True)
class Change:
    """What is done to a world, and what must be computed and reused after it."""

    do: Callable[[World], c.Options | None]
    computed: int = 0
    reused: int = IMAGES
    same: bool = False
    """Whether the entry is the same one."""
    shared: int = SHARDS
    """Shards that are the very files there were."""
    remade: int = 0
    """Shards of the same bytes as before in files of their own."""
    unread: bool = False
    """Whether the stat index and the cache say everything, so that no image is opened."""
    settled: bool = True
    """Whether the same once more opens no image."""


ALL = {"computed": IMAGES, "reused": 0, "shared": 0}
"""Nothing can be reused."""
SAME = {"same": True}
KNOWN = {"same": True, "unread": True}

CHANGES = {
    "nothing": Change(c.options(), **KNOWN),
    # images
    "touched": Change(lambda world: os.utime(world.image()), **SAME),
    "mode": Change(lambda world: world.image().chmod(0o600), **SAME),
    "written again with the same bytes": Change(c.written_again, **SAME),
    "one pixel, in place, time restored": Change(c.edited, computed=1, reused=11, shared=2),
    "another file of the same size and time": Change(c.replaced, computed=1, reused=11, shared=2),
    "the same pixels in another format": Change(c.as_png, computed=1, reused=11, shared=2),
    "folder copied": Change(c.copied, **SAME),
    "folder moved": Change(c.folder_moved, **SAME),
    "folder by another path": Change(c.by_a_link, **KNOWN),
    "file renamed": Change(c.moved("beet/01.bmp", "beet/011.bmp")),
    "file relabelled": Change(c.moved("apple/03.bmp", "beet/!.bmp")),
    "files reordered": Change(c.moved("apple/00.bmp", "apple/99.bmp"), shared=2),
    "two files exchanged": Change(c.exchanged, shared=2),
    "file becomes a link": Change(c.linked, **SAME),
    "file added at the end": Change(c.added("corn/zz.bmp"), computed=1),
    "file added at the start": Change(c.added("apple/!.bmp"), computed=1, shared=0),
    "class added": Change(c.added("daikon/00.bmp"), computed=1),
    "duplicate added": Change(c.duplicated, reused=13),
    "file added twice": Change(c.new_and_duplicated, computed=1, reused=13),
    "file removed at the end": Change(
        lambda world: world.image("corn/03.bmp").unlink(), reused=11, shared=2, unread=True
    ),
    "file removed at the start": Change(
        lambda world: world.image("apple/00.bmp").unlink(), reused=11, shared=0, unread=True
    ),
    "class removed": Change(lambda world: shutil.rmtree(world.image("corn")), reused=8, shared=2, unread=True),
    "class renamed": Change(c.moved("apple", "aubergine"), unread=True),
    "moved into split folders": Change(c.split_folders),
    "file broken": Change(c.broken, reused=11, shared=2),
    "bad file mended": Change(c.mended, computed=1, reused=11, shared=2),
    "bad file as it was before": Change(c.mended_as_it_was, **SAME),
    # options that change features
    "image size": Change(c.options(image_size=40), **ALL),
    "mean": Change(c.options(mean=(0.5,)), **ALL),
    "std": Change(c.options(std=(0.25, 0.25, 0.3)), **ALL),
    "architecture": Change(c.options(backbone="shufflenet_v2_x1_0"), **ALL),
    "stored dtype": Change(c.options(store_dtype="float16"), **ALL),
    "one bit of the weights": Change(c.weights(c.flip("conv1.0.weight")), **ALL),
    "one bit of a running mean": Change(c.weights(c.flip("conv5.1.running_mean")), **ALL),
    "the same weights from a file": Change(c.weights(lambda _state: None), **KNOWN),
    "one bit of the layer that is cut off": Change(c.weights(c.flip("fc.weight")), **KNOWN),
    # options that do not
    "test fraction": Change(c.options(test_fraction=0.2), unread=True),
    "no test fraction": Change(c.options(test_fraction=0.0), unread=True),
    "limit": Change(c.options(limit=6), reused=6, shared=0, unread=True),
    "batch size": Change(c.options(batch_size=2), **KNOWN),
    "batch size, and a file added": Change(c.added("corn/zz.bmp", batch_size=2), computed=1),
    "rows a shard": Change(c.options(shard_rows=8), **KNOWN),
    "rows a shard, and a file added": Change(c.added("corn/zz.bmp", shard_rows=8), computed=1, shared=0),
    "threads": Change(c.all_cores, **KNOWN),
    "threads, and a file added": Change(c.all_cores_and_added, computed=1),
    "workers, engine and device by name": Change(c.options(workers=2, engine="eager", device="cpu"), **KNOWN),
    "what bad images do": Change(c.options(on_bad_image="fail"), **KNOWN),
    "another cache root": Change(c.another_cache, same=True, remade=SHARDS, **ALL),
    "restart": Change(c.options(restart=True), same=True, remade=SHARDS, **ALL),
    "rehash": Change(c.options(rehash=True), **SAME),
    # the cache
    "stat index deleted": Change(c.index_becomes(lambda _data: None), **SAME),
    "stat index empty": Change(c.index_becomes(lambda _data: b""), **SAME),
    "stat index cut": Change(c.index_becomes(lambda data: data[:-64]), **SAME),
    "stat index damaged": Change(c.index_becomes(lambda data: data[:-1] + bytes([data[-1] ^ 1])), **SAME),
    "stat index of another folder": Change(c.index_of_another_folder, **SAME),
    "entry deleted, another has its rows": Change(c.entry_deleted, **KNOWN),
    "entry called otherwise": Change(c.entry_renamed, **KNOWN),
    "one shard damaged": Change(c.damaged("shards/00001.h5"), computed=4, reused=8, same=True, shared=2, remade=1),
    "sample table damaged": Change(c.damaged("samples.h5"), **KNOWN),
    "ledger damaged": Change(c.damaged("skipped.csv"), **KNOWN),
    "manifest damaged: nothing vouches for the shards": Change(
        c.damaged("entry.json"), same=True, remade=SHARDS, **ALL
    ),
    "made with another torch": Change(c.recorded("torch"), settled=False, **SAME),
    "made with another Pillow, and a file added": Change(c.recorded_and_added("pillow"), computed=1),
    "made with another torch that computes otherwise": Change(
        c.recorded("torch", 1.01), same=True, remade=SHARDS, **ALL
    ),
    "made with another h5py": Change(c.recorded("h5py"), **KNOWN),
}
