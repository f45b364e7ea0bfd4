"""Image quality: closed forms, and PyTorch's MS-SSIM."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.errors import DataError
from vcmjax.evaluate.image_quality import ms_ssim, psnr


def images(side=64, count=2, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(size=(count, side // 8, side // 8, 3))
    return np.clip(
        np.kron(coarse, np.ones((1, 8, 8, 1))) + rng.normal(size=(count, side, side, 3)) / 20, 0, 1
    )


@given(st.floats(0.001, 0.5))
@settings(max_examples=20)
def test_psnr_of_a_constant_error_is_its_closed_form(error):
    plain = np.full((3, 16, 16, 3), 0.25)
    np.testing.assert_allclose(psnr(plain, plain + error), -20 * np.log10(error), rtol=1e-9)


def test_equal_images_are_alike_and_noise_makes_them_less_so():
    x = images()
    assert np.all(np.isinf(psnr(x, x))) and np.allclose(ms_ssim(x, x), 1)
    rng = np.random.default_rng(1)
    noise = [rng.normal(size=x.shape) * s for s in (0.01, 0.05, 0.2)]
    found = [ms_ssim(x, np.clip(x + n, 0, 1)).mean() for n in noise]
    assert 1 > found[0] > found[1] > found[2] > 0


@pytest.mark.parametrize("side", [64, 128, 192])
def test_ms_ssim_is_that_of_pytorch(side):
    torch = pytest.importorskip("torch", reason="needs the extra [torch]")
    peer = pytest.importorskip("pytorch_msssim", reason="needs pytorch-msssim")
    x = images(side)
    y = np.clip(x + np.random.default_rng(2).normal(size=x.shape) * 0.1, 0, 1)
    full = np.array((0.0448, 0.2856, 0.3001, 0.2363, 0.1333))
    weights = full[: {64: 3, 128: 4, 192: 5}[side]]
    first, second = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, y))
    if side > 160:
        expected = peer.ms_ssim(first, second, data_range=1, size_average=False)
    else:  # which it refuses for five scales only
        expected = _smaller(torch, peer, first, second, weights / weights.sum())
    np.testing.assert_allclose(ms_ssim(x, y), expected.numpy(), rtol=1e-4)


def _smaller(torch, peer, x, y, weights):
    """MS-SSIM of fewer scales, from pytorch_msssim's own parts."""
    window = peer.ssim.__globals__["_fspecial_gauss_1d"](11, 1.5).repeat(3, 1, 1, 1).double()
    parts = []
    for scale, _ in enumerate(weights):
        whole, structure = peer.ssim.__globals__["_ssim"](x, y, data_range=1, win=window)
        last = scale == len(weights) - 1
        parts.append(torch.relu(whole if last else structure))
        x, y = (torch.nn.functional.avg_pool2d(a, 2) for a in (x, y))
    powers = torch.from_numpy(weights)[:, None, None]
    return torch.prod(torch.stack(parts) ** powers, 0).mean(1)


@pytest.mark.parametrize("measure", [psnr, ms_ssim])
def test_images_of_8_or_16_bits_are_scaled_by_their_type(measure):
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    one[:, 4:20, 4:20] = 7  # dark and flat, where the constants of SSIM count
    other = np.clip(one.astype(int) + rng.integers(-9, 10, one.shape), 0, 255).astype(np.uint8)
    expected = measure(one / 255, other / 255)
    np.testing.assert_allclose(measure(one, other), expected, rtol=1e-12)
    wide = other.astype(np.uint16) * 257  # 65535 = 257 * 255
    np.testing.assert_allclose(measure(one, wide), expected, rtol=1e-12)
    np.testing.assert_allclose(measure((one / 255).astype(np.float32), wide), expected, rtol=1e-4)


def test_psnr_of_one_step_of_8_bits_is_48_13_db():
    zero = np.zeros((1, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(psnr(zero, zero + np.uint8(1)), 20 * np.log10(255), rtol=1e-12)


@pytest.mark.parametrize(
    ("found", "values"),
    [
        ("int64", np.zeros((1, 16, 16, 3), np.int64)),
        ("bool", np.zeros((1, 16, 16, 3), bool)),
        ("0 to 255", np.linspace(0, 255, 768).reshape(1, 16, 16, 3)),
        ("-1 to 1", np.linspace(-1, 1, 768, dtype=np.float32).reshape(1, 16, 16, 3)),
        ("nan", np.full((1, 16, 16, 3), np.nan)),
        ("inf", np.full((1, 16, 16, 3), np.inf)),
    ],
)
@pytest.mark.parametrize("measure", [psnr, ms_ssim])
def test_images_of_another_type_or_range_are_refused(measure, found, values):
    fine = np.zeros((1, 16, 16, 3), np.uint8)
    for pair in [(values, fine), (fine, values)]:
        with pytest.raises(DataError, match=rf"{found}.*expected"):
            measure(*pair)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="expected the same"):
        psnr(images(), images(count=3))
    with pytest.raises(DataError, match="expected 11 at least"):
        ms_ssim(np.zeros((1, 8, 30, 3)), np.zeros((1, 8, 30, 3)))
