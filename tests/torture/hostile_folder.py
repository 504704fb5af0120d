"""An image folder that means harm: damaged files under hostile names, and what is no file at all, among good images."""

import contextlib
import os
import random
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from conftest import make_image
from hostile import Sample, encoded, png, png_chunk, refused, tiff, undecidable, whole_files
from PIL import Image

CLASSES = ("apple", "beet")


@dataclass
class Corpus:
    """A folder and what must become of each file in it, by sample id."""

    root: Path
    bad: dict[str, str] = field(default_factory=dict)
    """What is the matter with files that must be refused."""
    good: dict[str, str] = field(default_factory=dict)
    """What is special about files that must be used."""
    either: dict[str, str] = field(default_factory=dict)
    """Files that may be used or refused, and must be one of the two."""

    def __len__(self) -> int:
        return len(self.bad) + len(self.good) + len(self.either)

    def path(self, name: str) -> Path:
        """Return the path of a sample id."""
        return self.root / name


def make_corpus(root: Path, *, every: int, flipped: int, sizes: int) -> Corpus:
    """Make the folder: of the refused files one in `every`, `flipped` undecidable ones, good ones of so many sizes."""
    corpus = Corpus(root)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    # Shuffled, so that good and bad ones share batches and shards.
    samples = [(corpus.bad, sample) for sample in refused(every)]
    samples += [(corpus.either, sample) for sample in undecidable(flipped)]
    samples += [(corpus.good, sample) for sample in good(sizes)]
    random.Random(6).shuffle(samples)
    for number, (kind, sample) in enumerate(samples):
        name = f"{CLASSES[number % 2]}/{number:04d}.{sample.extension}"
        corpus.path(name).write_bytes(sample.data)
        kind[name] = sample.what
    _add_odd_names(corpus)
    _add_special_files(corpus)
    _add_links(corpus)
    return corpus


def good(sizes: int) -> list[Sample]:
    """Return good images of every format and mode, each in so many sizes."""
    return [sample for seed in range(sizes) for sample in _good(seed)]


def _good(seed: int) -> Iterator[Sample]:
    image = make_image(100 + seed, (20 + 3 * seed, 24 + 2 * seed))
    more = make_image(200 + seed, image.size)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    for variant, data in whole_files(300 + seed).items():
        yield Sample(variant, variant.split()[0], data)
        yield Sample(f"{variant} of another name", "png" if variant == "jpg" else "jpg", data)
    for mode in ("L", "CMYK"):
        yield Sample(f"jpg {mode}", "jpeg", encoded(image.convert(mode), "JPEG"))
    for subsampling in (0, 1, 2):
        yield Sample("jpg subsampled", "JPG", encoded(image, "JPEG", subsampling=subsampling, quality=20 + 3 * seed))
    exif = Image.Exif()
    exif[0x0112] = 1 + seed % 8
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        yield Sample(f"{kind} turned by EXIF", kind.lower(), encoded(image, kind, exif=exif))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield Sample(f"png {mode}", "png", encoded(image.convert(mode), "PNG"))
        yield Sample(f"tif {mode}", "tiff", encoded(image.convert(mode), "TIFF"))
    palette = image.convert("P")
    yield Sample("png palette with tRNS", "png", encoded(palette, "PNG", transparency=bytes(range(0, 256, 2))))
    yield Sample("png RGB with tRNS", "png", encoded(image, "PNG", transparency=(1, 2, 3)))
    yield Sample("png 16-bit grey", "png", encoded(deep, "PNG"))
    yield Sample("png 16-bit colour", "png", png(9, 9 + seed, depth=16))
    yield Sample("tif 16-bit grey", "tif", encoded(deep, "TIFF"))
    for mode in ("CMYK", "YCbCr"):
        yield Sample(f"tif {mode}", "tif", encoded(image.convert(mode), "TIFF"))
    yield Sample("tif fax", "tif", encoded(image.convert("1"), "TIFF", compression="group4"))
    yield Sample("tif packbits", "tif", encoded(image, "TIFF", compression="packbits"))
    yield Sample("tif of 500 pages", "tif", tiff(10, 10, pages=500))
    yield Sample("tif that follows itself", "tif", tiff(10, 10, loop=True))
    for mode in ("1", "L", "P"):
        yield Sample(f"bmp {mode}", "bmp", encoded(image.convert(mode), "BMP"))
    for mode, extension in (("1", "pbm"), ("L", "pgm"), ("RGB", "PPM")):
        yield Sample(f"ppm {mode}", extension, encoded(image.convert(mode), "PPM"))
    yield Sample("gif with a hole", "gif", encoded(palette, "GIF", transparency=7))
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        yield Sample(f"{kind} moving", kind.lower(), encoded(image, kind, save_all=True, append_images=[more]))
    yield Sample("jpg of two pictures", "jpg", encoded(image, "MPO", save_all=True, append_images=[more]))
    yield Sample("webp with alpha", "webp", encoded(image.convert("RGBA"), "WEBP"))
    yield Sample("more after the end", "jpg", encoded(image, "JPEG") + b"PK\x03\x04 and a zip archive")
    yield Sample("one pixel", "png", png(1, 1))
    if seed == 1:
        yield Sample("png as large as allowed", "png", png(9_459, 9_459, depth=1, colour=0))
        yield Sample("png as large as allowed, 16 bits with alpha", "png", png(9_459, 9_459, depth=16, colour=6))
    text = png_chunk(b"zTXt", b"k\0\0" + b"no zlib stream")
    yield Sample("png with broken text", "png", png(8, 8 + seed, before=text))


def _add_odd_names(corpus: Corpus) -> None:
    """Names that break lines, quotes, terminals and encodings: a bad and a good file of each."""
    names = [
        "new\nline",
        "quo\"te's",
        "comma,semi;colon",
        "=cmd|calc",
        "carriage\rreturn",
        "\x1b[2J\x1b]0;title\x07",
        " blank ",
        "-rf",
        "$(touch canary)",
        "snow☃man",
        "a" * 250,
        os.fsdecode(b"caf\xe9"),
        os.fsdecode(b"\xff\xfe\x80"),
        "..",
    ]
    for number, name in enumerate(names):
        fine = png(7, 7 + number)
        for kind, start, data in ((corpus.bad, "!", fine[:-30]), (corpus.good, "z", fine)):
            sample_id = f"apple/{start}{name}"[: len("apple/") + 251] + ".png"
            with contextlib.suppress(OSError, UnicodeError):  # not every file system takes every name
                corpus.path(sample_id).write_bytes(data)
                kind[sample_id] = "an odd name"
    lower, upper = corpus.path("beet/twin.png"), corpus.path("beet/TWIN.PNG")
    lower.write_bytes(png(7, 40))
    corpus.good["beet/twin.png"] = "a twin"
    if not upper.exists():
        upper.write_bytes(b"the twin of another name")
        corpus.bad["beet/TWIN.PNG"] = "a twin"


def _add_special_files(corpus: Corpus) -> None:
    """What has an image's name and is no regular file, or too large a one."""

    def add(name: str, what: str) -> Path:
        corpus.bad[f"beet/{name}"] = what
        return corpus.path(f"beet/{name}")

    os.mkfifo(add("pipe.jpg", "a pipe"))
    here = os.getcwd()
    os.chdir(corpus.path("beet"))  # a socket's path may have 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.jpg")
    finally:
        os.chdir(here)
    add("socket.jpg", "a socket")
    for name, number in {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "terminal": (5, 0)}.items():
        path = corpus.path(f"beet/{name}.jpg")
        with contextlib.suppress(OSError):  # root may, in some containers
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*number))
            add(path.name, "a terminal" if name == "terminal" else "a device")
    with add("hole.jpg", "a file of holes").open("wb") as file:
        file.truncate(50 << 20)
    with add("too-large.bmp", "a file too large").open("wb") as file:
        file.truncate((256 << 20) + 1)
    corpus.path("beet/folder.jpg").mkdir()  # a folder is no image, and is entered
    corpus.path("beet/folder.jpg/inner.png").write_bytes(png(7, 50))
    corpus.good["beet/folder.jpg/inner.png"] = "a file in a folder called .jpg"
    corpus.path("beet/empty.png").mkdir()
    corpus.path("beet/.hidden.jpg").write_bytes(b"hidden files are no samples")


def _add_links(corpus: Corpus) -> None:
    """Symbolic links to nowhere, to themselves, to devices and files that never end."""
    goals = {
        "nowhere.jpg": "/nowhere/at/all.jpg",
        "loop.jpg": "link-loop.jpg",
        "ring-a.jpg": "link-ring-b.jpg",
        "ring-b.jpg": "link-ring-a.jpg",
        "zero.png": "/dev/zero",
        "random.png": "/dev/urandom",
        "input.png": "/dev/stdin",
        "version.png": "/proc/version",
        "memory.png": "/proc/self/mem",
        "maps.png": "/proc/self/pagemap",
        "passwords.png": "/etc/passwd",
    }
    for name, goal in goals.items():
        if goal.startswith(("/dev", "/proc")) and not os.path.exists(goal):
            continue
        corpus.path(f"beet/link-{name}").symlink_to(goal)
        corpus.bad[f"beet/link-{name}"] = f"a link to {goal}"
    first = next(iter(corpus.good))
    corpus.path("beet/link-good.jpg").symlink_to(corpus.path(first))
    os.link(corpus.path(first), corpus.path("beet/hard.jpg"))
    corpus.good |= {"beet/link-good.jpg": "a link", "beet/hard.jpg": "a hard link"}
    elsewhere = corpus.root.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "outside.png").write_bytes(png(7, 60))
    corpus.path("beet/linked").symlink_to(elsewhere)
    corpus.good["beet/linked/outside.png"] = "a file in a linked folder"
