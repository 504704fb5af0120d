"""From bytes to pixels: what is decoded, and all that is refused, with a reason and without harm."""

import hashlib
import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
from conftest import make_image
from PIL import Image, ImageFile

from pipeline.digest import array_digest
from pipeline.loading.decode import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    BadImageError,
    decode,
    from_array,
    read_file,
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size and has next to nothing in it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_every_allowed_format_is_decoded_like_pillow(kind):
    data = encoded(make_image(1), kind)
    image = decode(data)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
def test_other_colour_modes_become_rgb(mode):
    image = make_image(2).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(np.asarray(decode(data)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("kind", "kept"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bit_grey_is_scaled_and_not_clipped(kind, kept):
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    big = Image.frombytes("I;16B", (32, 32), values.astype(">u2").tobytes())
    data = encoded(big if kept == ">u2" else Image.fromarray(values), kind)
    pixels = np.asarray(decode(data))
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels.astype(int) - (values / 257)[..., None]).max() <= 1
    assert len(np.unique(pixels)) == 256


def test_pixels_whose_range_is_unknown_are_refused():
    for mode in ("I", "F"):
        with pytest.raises(BadImageError, match="32-bit pixels"):
            decode(encoded(Image.new(mode, (4, 4), 7), "TIFF"))


def test_first_frame_of_an_animation_is_taken_and_exif_turns_nothing():
    frames = [make_image(seed) for seed in (3, 4)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(frames[0]))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(frames[0], "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(turned)), np.asarray(frames[0]))


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"this is a text called .jpg\n" * 20, "is not an image of a known format"),
        (b"\0" * 1000, "is not an image of a known format"),
        (EPS, "is not an image of a known format"),
        (SVG, "is not an image of a known format"),
        (encoded(make_image(5), "ICO"), "is not an image of a known format"),
        (encoded(make_image(5), "PDF"), "is not an image of a known format"),
        (encoded(make_image(5, (160, 120)), "JPEG")[:-2000], "cannot be decoded: .*[Tt]runcated"),
        (encoded(make_image(5), "PNG")[:-200], "cannot be decoded"),
        (encoded(make_image(5), "JPEG")[:20], "."),
    ],
    ids=["empty", "text", "zeros", "eps", "svg", "ico", "pdf", "short jpeg", "short png", "jpeg start"],
)
def test_what_is_no_whole_image_is_refused_with_a_reason(data, reason):
    with pytest.raises(BadImageError, match=reason):
        decode(data)


def test_truncated_images_are_refused_whatever_another_library_has_set(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadImageError, match=r"[Tt]runcated"):
        decode(encoded(make_image(5, (160, 120)), "JPEG")[:-2000])


@pytest.mark.parametrize("size", [(MAX_PIXELS + 1, 1), (10_000, 9_000), (30_000, 30_000), (100_000, 100_000)])
def test_too_many_pixels_are_refused_from_the_header(size):
    with pytest.raises(BadImageError, match=r"more than the limit of 89,478,485|is too large"):
        decode(png_header(*size))


def test_damaged_files_end_as_a_reason_or_an_image():
    rng = np.random.default_rng(0)
    reasons = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        whole = np.frombuffer(encoded(make_image(6), kind), np.uint8)
        for _ in range(40):
            data = whole.copy()
            places = rng.integers(0, min(len(data), 400), 8)
            data[places] = rng.integers(0, 256, 8)
            try:
                assert decode(data.tobytes()).mode == "RGB"
            except BadImageError as error:
                reasons.append(str(error))
    assert len(reasons) > 40
    assert all(reasons)


def test_a_file_is_read_with_its_digest_and_facts(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"bytes of an image")
    data, digest, facts = read_file(str(path))
    found = path.stat()
    assert data == b"bytes of an image"
    assert digest == hashlib.sha256(data).digest()
    assert facts == (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def test_a_missing_file_and_a_link_to_itself_cannot_be_opened(tmp_path):
    with pytest.raises(BadImageError, match="cannot be opened: No such file"):
        read_file(str(tmp_path / "gone.jpg"))
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with pytest.raises(BadImageError, match="cannot be opened"):
        read_file(str(tmp_path / "loop.jpg"))


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    said = []

    def read():
        try:
            read_file(str(tmp_path / "pipe.jpg"))
        except BadImageError as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert said == ["is not a regular file"]


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(BadImageError, match="is not a regular file"):
        read_file(str(tmp_path / "folder.jpg"))


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "huge.bmp"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(BadImageError, match="has 268,435,457 bytes, more than the limit of 268,435,456"):
        read_file(str(path))


def test_arrays_become_rgb_and_their_digest_knows_shape_and_type():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(np.asarray(from_array(grey)), np.repeat(grey[..., None], 3, 2))
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert np.array_equal(np.asarray(from_array(colour)), colour)
    digests = {array_digest(array) for array in (grey, grey.T, grey.reshape(2, 6), grey.view(np.int8), grey + 1)}
    assert len(digests) == 5
    assert array_digest(grey.T) == array_digest(np.ascontiguousarray(grey.T))
