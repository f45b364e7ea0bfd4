"""HEVC by x265: exact where it is lossless, the QP asked for, bytes that do not vary."""

import numpy as np
import pytest

from vcmjax.codecs import hevc
from vcmjax.errors import CorruptStream, UsageError, VcmError

pytest.importorskip("av", reason="needs the extra [codecs]")

FORMATS = {
    "gray": hevc.Format(16, 16),
    "gray, odd sides": hevc.Format(17, 33),
    "gray of 10 bits": hevc.Format(32, 24, "gray10le"),
    "colour": hevc.Format(16, 48, "yuv444p"),
    "colour of half resolution": hevc.Format(32, 32, "yuv420p"),
    "predicted, one block wide": hevc.Format(16, 24, intra=False),
    "predicted, 10 bits": hevc.Format(32, 32, "gray10le", intra=False),
    "predicted, several blocks wide": hevc.Format(80, 72, intra=False),
}
each_format = pytest.mark.parametrize("name", FORMATS)


def noise(form, count=8, seed=0):
    rng = np.random.default_rng(seed)
    top = 1023 if form.dtype == np.uint16 else 255
    values = np.maximum(rng.normal(0, top / 4, (count, *form.shape)), 0)
    return list(np.minimum(values, top).astype(form.dtype))


@each_format
def test_lossless_frames_come_back_exactly(name):
    form = FORMATS[name]._replace(lossless=True)
    frames = noise(form)
    decoded = hevc.decode(hevc.encode(frames, form, 0), form)
    np.testing.assert_array_equal(decoded, frames)


@each_format
def test_the_same_frames_give_the_same_bytes(name):
    form, frames = FORMATS[name], noise(FORMATS[name])
    first = hevc.encode(frames, form, 30)
    assert all(hevc.encode(frames, form, 30) == first for _ in range(3))


@each_format
def test_a_greater_qp_takes_fewer_bytes_and_errs_more(name):
    form, frames = FORMATS[name], noise(FORMATS[name])
    sizes, errors = [], []
    for qp in (12, 27, 42, 51):
        slices = hevc.encode(frames, form, qp)
        sizes.append(sum(map(len, slices)))
        decoded = np.array(hevc.decode(slices, form), np.float64)
        errors.append(np.mean((decoded - np.array(frames)) ** 2))
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)


@each_format
def test_slices_and_parameter_sets_are_the_elementary_stream(name):
    form, frames = FORMATS[name], noise(FORMATS[name], 3)
    whole = hevc._elementary(frames, form, 33)
    slices = hevc.encode(frames, form, 33)
    assert all(unit in whole for unit in (*hevc.parameter_sets(form), *slices))
    # With intra frames x265 repeats parameter sets before each, and its start codes are of 3 or 4
    # bytes: a connection needs no more than `stream_bytes`, and a start code is one byte of doubt.
    sets = sum(map(len, hevc.parameter_sets(form)))
    repeats = (len(frames) - 1) * (sets + 12) if form.intra else 0
    count = len(slices) + 3
    assert 0 <= hevc.stream_bytes(slices, form) - (len(whole) - repeats) <= count


def slice_qp(unit):
    """init_qp + slice_qp_delta of the only slice of an IDR frame of one CTU, parsed by hand.

    Syntax: ITU-T H.265, 7.3.6.1; x265 signals init_qp 26, and sao flags as enabled here.
    """
    bits = "".join(f"{byte:08b}" for byte in unit[2:].replace(b"\0\0\3", b"\0\0"))
    at = 0

    def golomb():
        nonlocal at
        zeros = 0
        while bits[at] == "0":
            zeros, at = zeros + 1, at + 1
        value = int(bits[at : at + zeros + 1], 2) - 1
        at += zeros + 1
        return value

    at += 2  # first_slice_segment_in_pic_flag, no_output_of_prior_pics_flag
    golomb()  # slice_pic_parameter_set_id
    assert golomb() == 2  # slice_type I
    at += 1  # slice_sao_luma_flag, of a picture without chroma
    code = golomb()
    return 26 + (code + 1) // 2 * (1 if code % 2 else -1)


@pytest.mark.parametrize("qp", [12, 22, 32, 43, 51])
def test_the_qp_in_the_stream_is_the_one_asked_for(qp):
    form = hevc.Format(16, 16)
    (unit,) = hevc.encode(noise(form, 1), form, qp)
    assert slice_qp(unit) == qp


@pytest.mark.parametrize("cut", [0, 3, 10, -1])
def test_damaged_slices_are_an_error_or_frames_never_a_crash(cut):
    form = hevc.Format(32, 32)
    (unit,) = hevc.encode(noise(form, 1), form, 20)
    rng = np.random.default_rng(0)
    for flip in rng.integers(0, len(unit), 50):
        damaged = bytearray(unit[:cut] if cut >= 0 else unit)
        if cut < 0:
            damaged[flip] ^= 0x55
        try:
            (frame,) = hevc.decode([bytes(damaged)], form)
        except VcmError:
            continue
        assert frame.shape == form.shape


def test_a_slice_of_another_size_is_refused():
    big = hevc.Format(64, 64)
    with pytest.raises(CorruptStream):
        hevc.decode([b""], big)
    with pytest.raises(CorruptStream):
        hevc.decode([b"not a slice at all"], big)


@pytest.mark.parametrize(
    ("form", "frame", "qp", "message"),
    [
        (hevc.Format(8, 16), np.zeros((8, 16), np.uint8), 30, "at least 16×16"),
        (hevc.Format(16, 16, intra=False), np.zeros((16, 16), np.uint8), 30, "at least 16×24"),
        (hevc.Format(16, 16), np.zeros((16, 17), np.uint8), 30, r"expected uint8 \(16, 16\)"),
        (hevc.Format(16, 16), np.zeros((16, 16)), 30, "frame of float64"),
        (hevc.Format(16, 16), np.zeros((16, 16), np.uint8), 52, "QP 52; expected 0 to 51"),
    ],
)
def test_what_x265_would_bend_or_refuse_is_refused(form, frame, qp, message):
    with pytest.raises(UsageError, match=message):
        hevc.encode([frame], form, qp)


def test_without_pyav_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UsageError, match=r"vcmjax\[codecs\]"):
        hevc.encode([np.zeros((16, 16), np.uint8)], hevc.Format(16, 16), 30)
