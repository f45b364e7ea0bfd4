"""Pixels as viewers show them: closed forms, and Pillow's own conversions."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from tests.data.test_reading import SPECIAL, Bytes, special
from vcmjax.data import images
from vcmjax.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 11, 3), np.uint8)
GREY = RGB[..., 0]
DEEP = RNG.integers(0, 65536, (9, 11), np.uint16)


def saved(picture, form: str, **options) -> Bytes:
    file = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(file, form, **options)
    return Bytes(file.getvalue())


def oriented(number) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


# Of each orientation, what a camera stores of an upright picture.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("number", STORED)
def test_a_picture_of_any_orientation_is_read_upright(number, form):
    stored = np.ascontiguousarray(STORED[number](RGB))
    options = {"lossless": True} if form == "WEBP" else {}
    file = saved(stored, form, exif=oriented(number), **options)
    np.testing.assert_array_equal(images.read(file), RGB)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(file.content))).convert("RGB")
    np.testing.assert_array_equal(images.read(file), expected)


def test_labels_turn_with_their_orientation_and_keep_their_format():
    file = saved(np.rot90(GREY), "PNG", exif=oriented(6))
    label = images.load(file, "label")
    np.testing.assert_array_equal(images.to_ids(label, file, "label"), GREY)
    jpeg = saved(np.rot90(GREY), "JPEG", exif=oriented(6))
    with pytest.raises(DataError, match="found JPEG data"):
        images.to_ids(images.load(jpeg, "label"), jpeg, "label")


BROKEN = [
    b"Exif\0\0",
    b"Exif\0\0MM\0*",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.filterwarnings("ignore:Truncated File")
@pytest.mark.parametrize("exif", [*BROKEN, *map(oriented, (0, 9, 60000))])
def test_broken_exif_leaves_the_picture_as_it_lies(exif):
    np.testing.assert_array_equal(images.read(saved(RGB, "PNG", exif=exif)), RGB)
    assert images.read(saved(RGB, "JPEG", exif=exif)).shape == RGB.shape


def tiff(pixels: np.ndarray, bits: int, photometric: int = 1, sample: int = 1, data=None) -> Bytes:
    """A grey TIFF of one strip, little-endian."""
    data = pixels.tobytes() if data is None else data
    height, width = pixels.shape
    tags = [
        (256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 134),
        (277, 1), (278, height), (279, len(data)), (339, sample),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag != 258 else 3, 1, v) for tag, v in tags)
    return Bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + data)


SIXTEEN = {
    "PNG": lambda: saved(DEEP, "PNG"),
    "TIFF": lambda: saved(DEEP, "TIFF"),
    "TIFF by libtiff": lambda: saved(DEEP, "TIFF", compression="tiff_lzw"),
    "TIFF, most significant byte first": lambda: saved(
        Image.frombytes("I;16B", (11, 9), DEEP.astype(">u2").tobytes()), "TIFF"
    ),
    "PGM": lambda: Bytes(b"P5 11 9 65535\n" + DEEP.astype(">u2").tobytes()),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_sixteen_bits_are_scaled_to_eight(kind):
    expected = np.repeat((DEEP // 256)[..., None], 3, -1)
    np.testing.assert_array_equal(images.read(SIXTEEN[kind]()), expected)


def test_a_smaller_white_is_honoured_where_the_format_states_it():
    twelve = DEEP // 16
    pairs = twelve.ravel()[:98].reshape(-1, 2).astype(np.uint32)
    packed = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    file = tiff(np.zeros((7, 14), np.uint16), 12, data=packed)
    expected = (twelve.ravel()[:98] // 16).reshape(7, 14)
    np.testing.assert_array_equal(images.read(file)[..., 0], expected)
    graymap = Bytes(b"P5 11 9 4095\n" + twelve.astype(">u2").tobytes())
    np.testing.assert_allclose(images.read(graymap)[..., 0], twelve / 4095 * 255, atol=1)


def test_white_is_zero_is_read_as_it_is_shown():
    eight = tiff(GREY, 8, photometric=0)
    np.testing.assert_array_equal(images.read(eight)[..., 0], 255 - GREY)
    sixteen = tiff(DEEP, 16, photometric=0)
    np.testing.assert_array_equal(images.read(sixteen)[..., 0], 255 - DEEP // 256)


def png16(colours: np.ndarray) -> Bytes:
    """RGB of 16 bits, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    height, width, _ = colours.shape
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return Bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    ))  # fmt: skip


def test_colours_of_sixteen_bits_are_scaled_to_eight():
    np.testing.assert_array_equal(images.read(png16(RGB.astype(np.uint16) * 257)), RGB)


UNSCALED = {
    "12 bits as 16": (lambda: saved(DEEP // 16, "PNG"), "16-bit pixels up to 65535, found 40"),
    "8 bits as 16": (lambda: saved(DEEP // 256, "PNG"), "found 25"),
    "12-bit colours as 16": (lambda: png16(RGB.astype(np.uint16) * 16), "found 40.* nearly black"),
    "8-bit colours as 16": (lambda: png16(RGB.astype(np.uint16)), "found 255 at most"),
    "32 bits": (lambda: saved(DEEP.astype(np.int32), "TIFF"), "16-bit pixels, found mode I"),
    "32 bits up to 255": (lambda: saved(GREY.astype(np.int32), "TIFF"), "found mode I"),
    "32 bits, unsigned": (lambda: tiff(DEEP.astype(np.uint32), 32), "found mode I"),
    "16 bits, signed": (lambda: tiff(DEEP.astype(np.int16), 16, sample=2), "found mode I"),
    "floats": (lambda: saved(GREY / np.float32(255), "TIFF"), "found mode F"),
}


@pytest.mark.parametrize("kind", UNSCALED)
def test_pixels_whose_white_is_not_known_are_refused_with_a_word(kind):
    make, message = UNSCALED[kind]
    with pytest.raises(DataError, match=message):
        images.read(make())


def test_a_black_picture_of_sixteen_bits_is_black():
    assert not images.read(saved(np.zeros((4, 4), np.uint16), "PNG")).any()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "LAB"])
def test_other_modes_are_read_as_pillow_converts_them(mode):
    picture = Image.fromarray(RGB).convert(mode)
    form = "PNG" if mode in ("1", "L", "LA", "P", "RGBA") else "TIFF"
    file = saved(picture, form)
    np.testing.assert_array_equal(images.read(file), picture.convert("RGB"))


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_transparent_colours_of_a_palette_are_read_as_colours(transparency):
    picture = Image.fromarray(GREY % 4)
    colours = RNG.integers(0, 256, (4, 3), np.uint8)
    picture.putpalette(colours.tobytes())
    file = saved(picture, "PNG", transparency=transparency)
    np.testing.assert_array_equal(images.read(file), colours[GREY % 4])


def test_alpha_that_is_multiplied_in_is_taken_out():
    picture = Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])).convert("RGBa")
    file = Bytes(b"")
    np.testing.assert_array_equal(images.to_rgb(picture, file, "image"), RGB)
    grey = Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]), "LA").convert("La")
    np.testing.assert_array_equal(np.asarray(images.to_rgb(grey, file, "image"))[..., 0], GREY)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_pictures_the_first_is_read(form):
    few = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (40, 200)]
    options = {"lossless": True} if form == "WEBP" else {}
    file = saved(few[0], form, save_all=True, append_images=few[1:], **options)
    np.testing.assert_array_equal(images.read(file), np.asarray(few[0]))


def test_other_formats_than_those_of_photographs_are_not_tried():
    # One of those that Pillow knows runs Ghostscript.
    for form in ("EPS", "TGA", "PCX", "ICO"):
        with pytest.raises(DataError, match=r"bytes that do not decode\. Replace it\."):
            images.read(saved(RGB, form))


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_no_image(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"a.png: image: expected an image, found {kind}"):
        images.read(special(tmp_path, kind))


def test_a_file_of_a_terabyte_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved(RGB, "PNG").content)
    os.truncate(path, 2**40)
    with pytest.raises(DataError, match=r"an image of at most .* bytes, found 1099511627776"):
        images.read(path)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width: int, height: int, data: bytes, before: bytes = b"") -> bytes:
    """One of a bit a pixel."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiled(side: int, tile: int) -> bytes:
    """A TIFF of one compressed tile that is larger than the picture."""
    packer = zlib.compressobj()
    data = b"".join(packer.compress(bytes(tile)) for _ in range(tile)) + packer.flush()
    tags = [
        (256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile),
        (324, 134), (325, len(data)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag != 258 else 3, 1, v) for tag, v in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + data


ZEROS = zlib.compress(bytes(2**27), 9)
BOMBS = {
    "13000 x 13000": lambda: png_of(13000, 13000, zlib.compress(bytes(13000 * 1626), 9)),
    "2 billion x 2 billion": lambda: png_of(2**31 - 1, 2**31 - 1, b""),
    "zTXt": lambda: png_of(8, 1, ZEROS[:9], chunk(b"zTXt", b"a\0\0" + ZEROS)),
    "iTXt": lambda: png_of(8, 1, ZEROS[:9], chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROS)),
    "iCCP": lambda: png_of(8, 1, ZEROS[:9], chunk(b"iCCP", b"a\0\0" + ZEROS)),
    "tEXt": lambda: png_of(8, 1, ZEROS[:9], chunk(b"tEXt", b"a\0" + b"x" * 900_000) * 99),
    "a large tile": lambda: tiled(8, 12000),
    "GIF": lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,"
    + struct.pack("<HHHHBB", 0, 0, 1, 1, 0, 2) + b"\2\x44\1\0;",
    "a GIF's frame": lambda: b"GIF89a" + struct.pack("<HH", 1, 1) + b"\0\0\0,"
    + struct.pack("<HHHHBB", 0, 0, 65535, 65535, 0, 2) + b"\2\x44\1\0;",
    "BMP": lambda: b"BM" + struct.pack("<IHHI", 100, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    "PPM": lambda: b"P6 99999999 99999999 255\n",
    "JPEG": lambda: b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65535, 65535)
    + b"\3\1\x11\0\2\x11\0\3\x11\0\xff\xd9",
}  # fmt: skip


def test_images_that_announce_more_than_they_are_worth_take_no_memory(tmp_path):
    for number, make in enumerate(BOMBS.values()):
        (tmp_path / f"{number}.png").write_bytes(make())
    program = (
        "import pathlib, resource, sys\n"
        "from vcmjax.data import images\n"
        "from vcmjax.errors import DataError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        images.read(path, 8)\n"
        "    except DataError as error:\n"
        "        print(path.name, '' if '\\n' in str(error) else 'refused')\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *refused, growth = done.stdout.split("\n")[:-1]
    assert sorted(refused) == sorted(f"{number}.png refused" for number in range(len(BOMBS)))
    assert int(growth) < 32 * 1024  # KiB


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_of_pixels_is_raised_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    path = tmp_path / "a.png"
    path.write_bytes(BOMBS["13000 x 13000"]())
    message = (
        r"at most 120000000 pixels, found 169000000. .*raise max_pixels \(vcmjax.data.images.M"
    )
    with pytest.raises(DataError, match=message):
        images.read(path, 8)
    assert not images.read(path, 8, max_pixels=169_000_000).any()
    with pytest.raises(DataError, match="at most 99 pixels"):
        images.load(path, "image", 99)
    with pytest.raises(DataError, match="at most 120000000 pixels, found more"):
        images.read(Bytes(png_of(2**31 - 1, 2**31 - 1, b"")))


def test_photographs_of_a_hundred_million_pixels_are_within_the_limit():
    assert 11648 * 8736 < images.MAX_PIXELS < 13000**2


def test_labels_that_a_tiff_compresses_lossily_are_refused():
    file = saved(RGB, "TIFF", compression="jpeg")
    with pytest.raises(DataError, match="lossless, found TIFF data"):
        images.to_ids(images.load(file, "label"), file, "label")


INFO = PngImagePlugin.PngInfo()
INFO.add_text("a", "b" * 99, zip=True)
INFO.add_itxt("c", "d" * 50, zip=True)


def seeds() -> list[bytes]:
    """Valid files of each format, in the forms that their decoders tell apart."""
    palette = Image.fromarray(GREY % 7)
    palette.putpalette(RNG.integers(0, 256, 21, np.uint8).tobytes())
    one = Image.fromarray(GREY > 99)
    made = [
        *(saved(a, "PNG") for a in (RGB, GREY, DEEP, palette, one)),
        saved(RGB, "PNG", exif=oriented(6), pnginfo=INFO),
        saved(palette, "PNG", transparency=bytes([0, 128, 255])),
        saved(RGB, "JPEG", exif=oriented(3)),
        saved(GREY, "JPEG", progressive=True),
        saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
        *(saved(RGB, "TIFF", compression=c) for c in (None, "tiff_lzw", "packbits", "jpeg")),
        *(saved(a, "TIFF") for a in (DEEP, GREY / np.float32(255), DEEP.astype(int), palette)
          if getattr(a, "dtype", None) != np.int64),
        saved(one, "TIFF", compression="group4"),
        Bytes(tiled(8, 16)),
        saved(palette, "GIF"),
        saved(RGB, "GIF", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        saved(RGB, "WEBP", lossless=True),
        saved(RGB, "WEBP", exif=oriented(6)),
        *(saved(a, "BMP") for a in (RGB, palette, one)),
        *(saved(a, "PPM") for a in (RGB, GREY, one)),
        Bytes(b"P3 4 2 15 " + b" ".join(b"%d" % (i % 16) for i in range(24))),
        Bytes(b"P2 3 3 4095 " + b" ".join(b"%d" % (i * 300) for i in range(9))),
    ]  # fmt: skip
    return [file.content for file in made]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few changes, half of them near the start; of most PNGs the checksums are made to fit."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = len(content)
        if size < 4:
            break
        place = int(rng.integers(0, size if rng.random() < 0.5 else min(size, 64)))
        order = "<>"[rng.integers(2)]
        match rng.integers(7):
            case 0:
                content[place] = rng.integers(256)
            case 1:
                content[place] ^= 1 << int(rng.integers(8))
            case 2:
                del content[place : place + int(rng.integers(1, 20))]
            case 3:
                other = int(rng.integers(size))
                content[place:place] = content[other : other + int(rng.integers(1, 40))]
            case 4:
                number = (0, 1, 255, 65535, 2**31 - 1, 2**32 - 1, 10**6)[rng.integers(7)]
                content[place : place + 4] = struct.pack(f"{order}I", number)
            case 5:
                number = (0, 1, 8, 16, 255, 32768, 65535)[rng.integers(7)]
                content[place : place + 2] = struct.pack(f"{order}H", number)
            case 6:
                del content[place:]
    if content[:4] == b"\x89PNG" and rng.random() < 0.7:
        place = 8
        while place + 12 <= len(content):
            length = int.from_bytes(content[place : place + 4], "big")
            end = place + 8 + length
            if end + 4 > len(content):
                break
            content[end : end + 4] = zlib.crc32(content[place + 4 : end]).to_bytes(4, "big")
            place = end + 4
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [300, pytest.param(40_000, marks=pytest.mark.slow)])
def test_mutated_images_are_arrays_or_data_errors_of_one_line(count):
    rng = np.random.default_rng(count)
    valid = seeds()
    read, told = 0, []
    for _ in range(count):
        file = Bytes(mutated(valid[rng.integers(len(valid))], rng))
        try:
            pixels = images.read(file, 16, 2**20)
        except DataError as error:
            told.append(str(error))
            continue
        finally:
            with contextlib.suppress(DataError):
                label = images.load(file, "label", 2**20)
                assert images.to_ids(label, file, "label").dtype == np.uint8
        assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
        read += 1
    assert read > count / 20 and not any("\n" in message for message in told)
