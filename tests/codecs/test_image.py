"""One table of image formats, one set of laws."""

import io

import numpy as np
import pytest
from PIL import Image

from vcmjax.codecs import image
from vcmjax.codecs.image import FORMATS, ImageCodec
from vcmjax.errors import CorruptStream, DataError, UsageError

each_format = pytest.mark.parametrize("name", FORMATS)
NEEDS = {"hevc": "av", "jxl": "imagecodecs"}


@pytest.fixture(autouse=True)
def _codecs(request):
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="needs the extra [codecs]")


def images_of(size, count=3):
    """Smooth colours with an edge, and some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    phase = rng.uniform(0, 6, (count, 1, 1, 3))
    wave = np.sin(phase + 5 * x[..., None] + 3 * y[..., None] * np.array([1, -1, 2]))
    edge = (x > y)[..., None] * np.array([40, -30, 20])
    noise = rng.normal(0, 3, (count, *size, 3))
    return np.clip(128 + 60 * wave + edge + noise, 0, 255).astype(np.uint8)


@each_format
def test_quality_costs_bytes_and_buys_fidelity(name):
    images = images_of((64, 48))
    codec = ImageCodec(name, (64, 48))
    levels = FORMATS[name].levels
    sizes, errors = [], []
    for quality in (levels[0], levels[len(levels) // 2], levels[-1]):
        streams = codec.encode(images, quality)
        sizes.append(sum(map(len, streams)))
        errors.append(((codec.decode(streams) - images.astype(float)) ** 2).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)
    assert errors[-1] < 30  # 33 dB at the top, chroma of half resolution included


@each_format
@pytest.mark.parametrize("size", [(64, 48), (17, 33)])
def test_bytes_do_not_depend_on_the_batch(name, size):
    images = images_of(size)
    codec = ImageCodec(name, size)
    quality = FORMATS[name].levels[3]
    streams = codec.encode(images, quality)
    assert codec.encode(images[::-1], quality)[::-1] == streams
    np.testing.assert_array_equal(codec.decode(streams)[2], codec.decode(streams[2:])[0])


@each_format
def test_damage_is_an_error_or_an_image_of_the_size(name):
    codec = ImageCodec(name, (32, 48))
    (stream,) = codec.encode(images_of((32, 48), 1), FORMATS[name].levels[5])
    with pytest.raises(CorruptStream, match="stream 0"):
        codec.decode([b""])
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(stream[: rng.integers(1, len(stream) + 1)])
        damaged[rng.integers(len(damaged))] ^= 0xFF
        try:
            decoded = codec.decode([bytes(damaged)])
        except CorruptStream:
            continue
        assert decoded.shape == (1, 32, 48, 3)


@each_format
def test_images_of_another_size_are_refused_on_both_sides(name):
    codec = ImageCodec(name, (32, 48))
    with pytest.raises(DataError, match=r"expected uint8 \(N, 32, 48, 3\)"):
        codec.encode(images_of((48, 32)), FORMATS[name].levels[0])
    other = ImageCodec(name, (48, 64)).encode(images_of((48, 64), 1), FORMATS[name].levels[0])
    if name != "hevc":  # whose size is in parameter sets, which are not sent
        with pytest.raises(CorruptStream, match="stream 0"):
            codec.decode(other)


def test_a_failure_names_the_image(monkeypatch):
    def fails(pixels, quality):
        if pixels[0, 0, 0] == 7:
            raise RuntimeError("no")
        return b""

    monkeypatch.setitem(FORMATS, "jpeg", FORMATS["jpeg"]._replace(write=fails))
    images = images_of((16, 16))
    images[1, 0, 0, 0] = 7
    images[0, 0, 0, 0] = 8
    with pytest.raises(DataError, match="image 1: JPEG at quality 5 failed"):
        ImageCodec("jpeg", (16, 16)).encode(images, 5)


def test_colours_survive_ycc_as_pillow_has_it():
    flat = np.broadcast_to(np.array([200, 30, 90], np.uint8), (16, 18, 3))
    assert np.abs(image.rgb(image.ycc(flat)).astype(int) - flat).max() <= 2
    grey = np.asarray(Image.fromarray(images_of((16, 18), 1)[0]).convert("YCbCr"))[..., 0]
    np.testing.assert_array_equal(image.ycc(images_of((16, 18), 1)[0])[:16], grey)


def test_a_jpeg_of_many_pixels_is_refused_before_it_is_decoded():
    out = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(out, "JPEG")
    with pytest.raises(CorruptStream, match="5000×5000"):
        ImageCodec("jpeg", (16, 16)).decode([out.getvalue()])


def test_bpg_counts_its_header():
    assert ImageCodec("hevc", (32, 64)).stream_bytes(b"12345") == 5 + 22
    assert ImageCodec("hevc", (256, 256)).stream_bytes(b"12345") == 5 + 24


@pytest.mark.parametrize(("name", "module"), NEEDS.items())
def test_without_its_library_the_extra_is_named(name, module, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError, match=r"vcmjax\[codecs\]"):
        ImageCodec(name, (16, 16)).encode(images_of((16, 16)), FORMATS[name].levels[0])


def test_an_unknown_format_is_refused_with_the_list():
    with pytest.raises(UsageError, match="jpeg2000"):
        ImageCodec("gif", (8, 8))
