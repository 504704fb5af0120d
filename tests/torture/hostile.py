"""Image files that are damaged, lie about themselves, or are none, and good ones beside them; all from seeds.

Everything that `refused` makes has lost pixels, fails a checksum of its own format, claims what cannot be, or is
no image: a loader that uses any of it is wrong. What decoders cannot know about is in `undecidable`.
"""

import io
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conftest import make_image
from PIL import Image


@dataclass(frozen=True)
class Sample:
    """A file to be: what is the matter with it, its extension and its bytes."""

    what: str
    extension: str
    data: bytes


BOMBS = ((60_000, 60_000), (12_000, 9_000), (65_535, 65_535), (40_000, 2_300), (65_000, 1_377))
"""Sizes in pixels that are claimed; all exceed the limit."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with its length and CRC."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a whole PNG file of black pixels, with chunks before and after them."""
    row = bytes(1 + -(-width * {0: 1, 2: 3, 6: 4}[colour] * depth // 8))
    packer = zlib.compressobj()
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + png_chunk(b"IDAT", pixels) + after + png_chunk(b"IEND", b"")


def tiff(width: int, height: int, *, compression: int = 1, pages: int = 1, loop: bool = False) -> bytes:
    """Return a grey TIFF file with 100 bytes of pixels; its pages are the same one, or one that follows itself."""
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: height, 279: 100}
    size = 2 + 12 * len(tags) + 4
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    first = 8 + 100
    following = [first if loop else first + size * number for number in range(1, pages)] + [first if loop else 0]
    return b"II*\0" + struct.pack("<I", first) + bytes(100) + b"".join(body + struct.pack("<I", at) for at in following)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WEBP file of these chunks."""
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def vp8l(width: int, height: int) -> tuple[bytes, bytes]:
    """Return a chunk of lossless pixels that claims a size and holds nothing."""
    return b"VP8L", b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(50)


def whole_files(seed: int) -> dict[str, bytes]:
    """Return a good file of every allowed format and compression by extension-and-variant."""
    image = make_image(seed, (36 + seed % 9, 28 + seed % 7))
    return {
        "jpg": encoded(image, "JPEG"),
        "jpg progressive": encoded(image, "JPEG", progressive=True),
        "png": encoded(image, "PNG"),
        "webp": encoded(image, "WEBP"),
        "webp lossless": encoded(image, "WEBP", lossless=True),
        "bmp": encoded(image, "BMP"),
        "gif": encoded(image, "GIF"),
        "tif": encoded(image, "TIFF"),
        "tif lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "tif deflate": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "tif jpeg": encoded(image, "TIFF", compression="jpeg"),
        "ppm": encoded(image, "PPM"),
    }


def refused(every: int = 1) -> list[Sample]:
    """Return one in `every`, and the last of each kind, of more than 2,000 files none of which may become a row."""
    samples: list[Sample] = []
    for maker in (truncated, zeroed, flipped_png, no_images, bombs, unknown_range):
        made = list(maker())
        samples += [*made[:-1:every], made[-1]]
    return samples


def truncated() -> Iterator[Sample]:
    """Whole files cut short, so that at least some pixels are gone."""
    rng = random.Random(1)
    for seed in range(2):
        for variant, data in whole_files(seed).items():
            longest = len(data) - 64 if variant == "png" else len(data) - 4  # a PNG's last chunk has no pixels
            lengths = {*range(1, 13), *(rng.randrange(13, longest) for _ in range(34)), longest}
            for length in sorted(lengths):
                yield Sample(f"{variant} cut to {length} of {len(data)}", variant.split()[0], data[:length])


def zeroed() -> Iterator[Sample]:
    """Whole files whose first bytes are zeros, and PNG files with zeros inside the pixels."""
    for seed in range(2, 4):
        for variant, data in whole_files(seed).items():
            for count in (2, 3, 4, 8, 16, 32, 64):
                yield Sample(f"{variant} with {count} zeros", variant.split()[0], bytes(count) + data[count:])
    data = whole_files(4)["png"]
    first = data.index(b"IDAT") + 4
    for at in range(first, len(data) - 32, 16):
        if any(data[at : at + 16]):
            yield Sample(f"png with a hole at {at}", "png", data[:at] + bytes(16) + data[at + 16 :])


def flipped_png() -> Iterator[Sample]:
    """PNG files with one bit flipped inside a chunk: every chunk has a CRC."""
    rng = random.Random(2)
    for seed in range(5, 9):
        data = png_with_text(seed)
        head, pixels = data.index(b"IHDR") + 4, data.index(b"IDAT") + 4
        end = len(data) - 16  # where the pixels' chunk ends
        places = [*range(head, head + 17), *(rng.randrange(pixels, end) for _ in range(60)), *range(end - 40, end)]
        for at in places:
            changed = bytearray(data)
            changed[at] ^= 1 << rng.randrange(8)
            yield Sample(f"png with a bit flipped at {at - len(data)}", "png", bytes(changed))


def png_with_text(seed: int) -> bytes:
    """Return a whole PNG file with a chunk of text before its pixels."""
    data = whole_files(seed)["png"]
    return data[:33] + png_chunk(b"tEXt", b"Comment\0made by a test") + data[33:]


def no_images() -> Iterator[Sample]:
    """Files that are something else, whatever their name says."""
    rng = random.Random(3)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    page = b"<!DOCTYPE html><html><body><img src=x onerror=alert(1)></body></html>"
    xbm = b"#define im_width 8\n#define im_height 8\nstatic char im_bits[] = {\n0x00, 0x00 };\n"
    texts = {
        "nothing": b"",
        "a line": b"this is a text called .jpg\n",
        "zeros": bytes(4096),
        "html": page,
        "svg": svg,
        "eps": eps,
        "ps": b"%!PS\n(/etc/passwd) run\n",
        "xbm": xbm,
        "csv": b"id,reason\n" * 50,
        "shell script": b"#!/bin/sh\ntouch canary\n",
        "windows program": b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0" + bytes(200),
        "program": Path(sys.executable).read_bytes()[:20_000],
        "pickle": b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.",
        "jpeg's first marker": b"\xff\xd8\xff\xe0" + bytes(300),
        "pgm of too many values": b"P5 4 4 1000000\n" + bytes(32),
    }
    for what, data in texts.items():
        for extension in ("jpg", "png", "gif", "tif"):
            yield Sample(what, extension, data)
    image = make_image(9)
    for kind in ("ICO", "PDF", "TGA", "EPS", "ICNS", "JPEG2000", "SGI", "PCX", "DDS"):
        yield Sample(f"a {kind} file", "png", encoded(image, kind))
    for number in range(200):
        yield Sample("random bytes", ("jpg", "png", "webp", "bmp")[number % 4], rng.randbytes(rng.randrange(1, 6000)))


def bombs() -> Iterator[Sample]:
    """Small files that would need a lot of memory or time."""
    whole = whole_files(10)
    for width, height in BOMBS:
        for what, extension, data in _claims(whole, width, height):
            yield Sample(f"{what} of {width} x {height}", extension, data)
    yield Sample("png of 12000 x 9000, all there", "png", png(12_000, 9_000, depth=1, colour=0))
    packed = zlib.compress(bytes(20 << 20), 9)
    texts = {b"iCCP": b"x\0\0", b"zTXt": b"x\0\0", b"iTXt": b"x\0\1\0\0\0"}
    for kind, start in texts.items():
        bomb = png_chunk(kind, start + packed)
        yield Sample(f"png with a bomb in {kind.decode()}", "png", png(9, 9, before=bomb))
        yield Sample(f"png with a bomb in {kind.decode()} at its end", "png", png(9, 9, after=bomb))
    nearly = zlib.compress(bytes((1 << 20) - 100), 9)
    many = b"".join(png_chunk(b"zTXt", b"k%d\0\0" % number + nearly) for number in range(80))
    yield Sample("png with 80 texts of a megabyte", "png", png(9, 9, before=many))
    yield Sample("tiff of 5,000 pages too large", "tif", tiff(60_000, 60_000, pages=5_000))
    yield Sample("tiff too large that follows itself", "tif", tiff(60_000, 60_000, loop=True))
    thin = encoded(Image.new("L", (7_000_000, 1)), "TIFF")
    yield Sample("thin image that would be resized to an enormous one", "tif", thin)


def _claims(whole: dict[str, bytes], width: int, height: int) -> Iterator[tuple[str, str, bytes]]:
    yield "png", "png", png(9, 9)[:16] + struct.pack(">II", width, height) + png(9, 9)[24:]
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    yield "png with a right CRC", "png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png(9, 9)[33:]
    for compression in (1, 5, 8, 32773):
        yield f"tiff {compression}", "tif", tiff(width, height, compression=compression)
    yield "bmp", "bmp", whole["bmp"][:18] + struct.pack("<ii", width, height) + whole["bmp"][26:]
    yield "bmp upside down", "bmp", whole["bmp"][:18] + struct.pack("<ii", width, -height) + whole["bmp"][26:]
    yield "gif screen", "gif", whole["gif"][:6] + struct.pack("<HH", width, height) + whole["gif"][10:]
    frame = whole["gif"].index(b"\x2c", 13 + 3 * 256) + 5
    yield "gif frame", "gif", whole["gif"][:frame] + struct.pack("<HH", width, height) + whole["gif"][frame + 4 :]
    start = whole["jpg"].index(b"\xff\xc0") + 5
    size = struct.pack(">HH", height, width)
    yield "jpg", "jpg", whole["jpg"][:start] + size + whole["jpg"][start + 4 :]
    for kind in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"):
        yield f"{kind.decode()} ppm", "ppm", kind + b" %d %d 255\n" % (width, height) + bytes(50)
    yield "webp", "webp", webp(vp8l(min(width, 16_384), min(16_384, height * 6)))
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    yield "webp canvas", "webp", webp((b"VP8X", canvas), vp8l(60, 60))


def unknown_range() -> Iterator[Sample]:
    """Pixels of 32 bits, for which nobody knows what is white."""
    rng = np.random.default_rng(4)
    for number in range(4):
        yield Sample(
            "32-bit integers", "tif", encoded(Image.fromarray(rng.integers(0, 9999, (8, 8), np.int32)), "TIFF")
        )
        yield Sample("32-bit floats", "tiff", encoded(Image.fromarray(rng.random((8, 8), np.float32)), "TIFF"))
        yield Sample(
            "portable float map", "ppm", b"Pf 2 2 -1.0\n" + rng.random(4, np.float32).tobytes() + bytes(number)
        )


def undecidable(count: int) -> list[Sample]:
    """Return JPEG files with a flipped bit and the like: decoders cannot know, and need only not fall over them."""
    rng = random.Random(5)
    samples = []
    for number in range(count):
        data = bytearray(whole_files(20 + number % 12)["jpg progressive" if number % 3 else "jpg"])
        for _ in range(1 + 7 * (number % 2)):
            data[rng.randrange(2, len(data))] ^= 1 << rng.randrange(8)
        samples.append(Sample("jpg with bits flipped", "jpg", bytes(data)))
    return samples
