"""How near images are to others for the eye: PSNR and multi-scale structural similarity.

Images are uint8, uint16, or floats in [0, 1]; each is scaled by what it is.
"""

import numpy as np
from scipy import ndimage

from vcmjax.errors import DataError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales of MS-SSIM, from full size to a sixteenth (Wang et al. 2003)."""
_SIDE, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_ROUNDING = 1e-3
"""By which floats may lie outside of [0, 1]: a quarter of a step of 8 bits."""


def psnr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each pair in dB, (N,); infinite for equal ones.

    Args:
      images: (N, H, W, C), see the module docstring.
      others: Likewise.

    Raises:
      DataError: Other shapes, types or values.
    """
    images, others = _checked(images, others)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.square(images - others).mean((1, 2, 3)))


def ms_ssim(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Multi-scale structural similarity of each pair, (N,), at most 1, mean over channels.

    As many of the five scales are used as leave the window of 11 pixels room, 128 pixels four of
    them; their weights then add up to one.

    Args:
      images: (N, H, W, C), see the module docstring; H and W at least 11.
      others: Likewise.

    Raises:
      DataError: Other shapes, types or values.

    Source: Wang, Simoncelli and Bovik 2003, *Multi-scale structural similarity for image quality
    assessment*.
    """
    images, others = _checked(images, others)
    side = min(images.shape[1:3])
    if side < _SIDE:
        raise DataError(f"images are {images.shape[1:3]} pixels; expected {_SIDE} at least")
    weights = np.array(WEIGHTS[: 1 + min(len(WEIGHTS) - 1, int(np.log2(side / _SIDE)))])
    weights /= weights.sum()
    product = np.ones((len(images), images.shape[3]))
    for scale, weight in enumerate(weights):
        luminance, structure = _similarity(images, others)
        last = scale == len(weights) - 1
        value = (luminance * structure if last else structure).mean((1, 2))
        product *= np.maximum(value, 0) ** weight
        if not last:
            images, others = _halved(images), _halved(others)
    return product.mean(1)


def _similarity(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps of luminance, and of contrast times structure, where the whole window fits."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (variance + _C2)


def _blurred(x: np.ndarray) -> np.ndarray:
    half = _SIDE // 2
    window = np.exp(-np.square(np.arange(-half, half + 1)) / (2 * _SIGMA**2))
    for axis in (1, 2):
        x = ndimage.correlate1d(x, window / window.sum(), axis)
    return x[:, half:-half, half:-half]


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels; an odd last row or column is left out."""
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _checked(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, others = _scaled(images), _scaled(others)
    if images.ndim != 4 or images.shape != others.shape:
        raise DataError(f"images of shapes {images.shape} and {others.shape}; expected the same")
    return images, others


def _scaled(images: np.ndarray) -> np.ndarray:
    """As float64 in [0, 1]."""
    images = np.asarray(images)
    if images.dtype in (np.uint8, np.uint16):
        return images / float(np.iinfo(images.dtype).max)
    if images.dtype.kind != "f":
        raise DataError(f"images are {images.dtype}; expected uint8, uint16, or floats in [0, 1]")
    images = images.astype(np.float64)
    if not np.all((images >= -_ROUNDING) & (images <= 1 + _ROUNDING)):  # so for NaN
        found = f"{images.min():g} to {images.max():g}"
        raise DataError(f"images hold {found}; expected floats in [0, 1], or uint8 or uint16")
    return images
