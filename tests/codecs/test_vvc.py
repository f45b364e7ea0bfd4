"""VVC without a container: what comes back, and what is refused."""

import numpy as np
import pytest

from vcmjax.codecs import vvc
from vcmjax.codecs.hevc import Format
from vcmjax.codecs.idfc import Idfc
from vcmjax.errors import CorruptStream, UsageError, VcmError

pytest.importorskip("imageio_ffmpeg", reason="needs the extra [vvc]")
pytest.importorskip("av", reason="needs the extra [codecs]")
FORM = Format(32, 64)


def frames_of(count=2, seed=0):
    rng = np.random.default_rng(seed)
    slope = np.linspace(20, 220, 64)[None] + 20 * np.sin(np.arange(32))[:, None]
    return [np.clip(slope + rng.normal(size=(32, 64)) * 8, 0, 255).astype(np.uint8)
            for _ in range(count)]  # fmt: skip


def test_fewer_bits_err_more_and_a_low_qp_hardly_errs():
    frames, sizes, errors = frames_of(), [], []
    for qp in (4, 30, 50):
        slices = vvc.encode(frames, FORM, qp)
        back = vvc.decode(slices, FORM)
        assert all(frame.shape == (32, 64) and frame.dtype == np.uint8 for frame in back)
        sizes.append(sum(map(len, slices)))
        errors.append(np.abs(np.stack(back).astype(int) - np.stack(frames)).mean())
    assert sizes[0] > sizes[1] > sizes[2]
    assert errors[0] < 0.6 < errors[1] < errors[2]


def test_a_frames_bytes_are_its_own_and_parameter_sets_are_counted_beside_them():
    frames = frames_of(3)
    slices = vvc.encode(frames, FORM, 30)
    assert vvc.encode(frames[::-1], FORM, 30) == slices[::-1]
    assert len(set(slices)) == 3
    around = sum(4 + len(unit) for unit in vvc.parameter_sets(FORM))
    assert vvc.stream_bytes(slices, FORM) == around + sum(4 + len(unit) for unit in slices)


def test_filters_adapted_to_a_frame_travel_with_it():
    rng = np.random.default_rng(3)
    smooth = np.kron(rng.normal(size=(16, 16)), np.ones((8, 8))) * 40 + 128
    frame = np.clip(smooth + rng.normal(size=smooth.shape) * 12, 0, 255).astype(np.uint8)
    form = Format(128, 128)
    kinds = set()
    for qp in range(20, 44, 4):
        slices = vvc.encode([frame], form, qp)
        kinds |= {vvc._kind(unit) for unit in slices[0].split(b"\0\0\1")}
        (back,) = vvc.decode(slices, form)
        assert np.abs(back.astype(int) - frame).mean() < 2 + qp / 2
    assert kinds >= {8, 17}  # a slice, and an adaptation parameter set


def test_a_feature_comes_back_nearer_the_more_is_sent():
    feature = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype(np.float32)
    codec = Idfc((16, 16, 8), codec="vvc")
    errors = []
    for qp in (10, 40):
        streams = codec.encode(feature, qp)
        assert codec.stream_bytes(streams[0]) > len(streams[0])
        errors.append(np.abs(codec.decode(streams) - feature).mean())
    assert errors[0] < 0.05 < errors[1]
    with pytest.raises(UsageError, match="expected tiling"):
        Idfc((16, 16, 8), "concatenation", codec="vvc")


def test_damage_ends_in_an_error_or_in_other_samples():
    (whole,) = vvc.encode(frames_of(1), FORM, 30)
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(whole[: rng.integers(1, len(whole))])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            (frame,) = vvc.decode([bytes(damaged)], FORM)
        except VcmError:
            continue
        assert frame.shape == FORM.shape
    with pytest.raises(CorruptStream):
        vvc.decode([b"not a slice"], FORM)


@pytest.mark.parametrize(
    ("form", "qp", "message"),
    [
        (FORM, 64, "QP 64; expected 0 to 63"),
        (Format(31, 64), 30, "31×64; expected even sides"),
        (Format(32, 64, "gray10le"), 30, "expected grey frames"),
        (Format(64, 64), 30, r"\(32, 64\); expected uint8 \(64, 64\)"),
    ],
)
def test_what_does_not_fit_is_refused(form, qp, message):
    with pytest.raises(UsageError, match=message):
        vvc.encode(frames_of(1), form, qp)
