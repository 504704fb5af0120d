"""From the bytes of an image to RGB pixels, with Pillow alone, trusting nothing.

torchvision's own decoders were tried and rejected: they crash the process on damaged PNG files.
"""

import hashlib
import io
import os
import stat
import warnings
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.sources.facts import Facts, file_facts, member_facts

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that may be opened. Others, EPS above all, can run programs or read other files."""
MAX_FILE_BYTES = 256 << 20
READ_BYTES = 16 << 20
MAX_PIXELS = 89_478_485
"""Pillow's own limit of what is not yet suspicious, 256 MB of RGB."""
GREY_MODES = {"I;16", "I;16B", "I;16L", "I;16N"}


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason recorded in the ledger."""


class Encoded(NamedTuple):
    """A file's bytes, their SHA-256, and (inode, size, mtime, ctime) or None if it changed while being read."""

    data: bytes
    digest: bytes
    facts: Facts | None


def read_bytes(data: bytes) -> Encoded:
    """Take encoded bytes that are in memory.

    Raises:
        BadImageError: if there are more than MAX_FILE_BYTES.
    """
    _check_size(len(data))
    return Encoded(data, hashlib.sha256(data).digest(), None)


def read_file(path: str, span: tuple[int, int] | None = None) -> Encoded:
    """Read a regular file, or of an archive the member that `span` (offset, size) gives.

    Raises:
        BadImageError: if it cannot be opened, is no regular file, is empty, or is larger than MAX_FILE_BYTES.
    """
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadImageError(f"cannot be opened: {error.strerror}") from error
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        os.close(descriptor)
        raise BadImageError("is not a regular file")
    with open(descriptor, "rb", buffering=0) as file:
        _check_size(before.st_size if span is None else span[1])
        try:
            data = _read_all(file) if span is None else _read_span(descriptor, *span)
        except OSError as error:
            raise BadImageError(f"cannot be read: {error.strerror}") from error
        after = os.fstat(descriptor)
    facts = file_facts(before) if file_facts(before) == file_facts(after) else None
    if facts is not None and span is not None:
        facts = member_facts(facts, span[0])
    return Encoded(data, hashlib.sha256(data).digest(), facts)


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise BadImageError(f"has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}")


def _read_span(descriptor: int, offset: int, size: int) -> bytes:
    """Read a member of an archive, which may have become shorter since it was listed."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    if len(data) != size:
        raise BadImageError("lies beyond the end of its archive")
    return data


def _read_all(file: io.FileIO) -> bytes:
    """Read to the end, which a file that grows, or one of /proc that says it has 0 bytes, may not have."""
    parts: list[bytes] = []
    size = 0
    while part := file.read(READ_BYTES):  # None: a file of /proc with nothing to say just now
        parts.append(part)
        size += len(part)
        if size > MAX_FILE_BYTES:
            raise BadImageError(f"has more than the limit of {MAX_FILE_BYTES:,} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def decode(data: bytes) -> Image.Image:
    """Return the first frame of an encoded image in RGB, not turned by EXIF (as torchvision's loader).

    Raises:
        BadImageError: if it is empty, of no allowed format, too large, truncated or damaged.
    """
    if not data:
        raise BadImageError("is empty (0 bytes)")
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # any library in the process may have set it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow warns about harmless metadata too; what matters is checked below and by its errors.
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadImageError(f"has {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}")
                if image.format == "PNG":
                    _check_png(data)
                return _rgb(image)
    except UnidentifiedImageError:
        raise BadImageError(f"is not an image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise BadImageError(f"is too large: {error}") from None
    except (BadImageError, MemoryError):
        raise
    except Exception as error:
        raise BadImageError(f"cannot be decoded: {error or type(error).__name__}") from error


def _check_png(data: bytes) -> None:
    """Compare the CRC of every chunk: Pillow skips those of pixels, and ends before zlib comes to its own checksum."""
    view, at = memoryview(data), len(b"\x89PNG\r\n\x1a\n")
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if end + 4 > len(data):
            raise BadImageError("cannot be decoded: image file is truncated")
        kind = bytes(view[at + 4 : at + 8])
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise BadImageError(f"is damaged: a PNG chunk {kind.decode('latin-1')} does not have its CRC")
        if kind == b"IEND":
            return
        at = end + 4


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in GREY_MODES:
        # Pillow's own conversion would clip 16-bit grey at 255 and leave a white image.
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImageError(f"has 32-bit pixels (mode {image.mode}), whose range is not known")
    return image.convert("RGB")


def from_array(array: np.ndarray) -> Image.Image:
    """Return a uint8 array (h, w) or (h, w, 3) as an RGB image."""
    return Image.fromarray(array).convert("RGB")
