"""What integer hyper-synthesis costs: bits with its tables against those of the float network.

Run:    python -m benchmarks.integer_synthesis CODEC_DIR IMAGE_DIR
Cost:   under a minute for a hundred images
Expect: the extra rate at three λ, with 95 % bootstrap intervals over images
"""

import argparse
from pathlib import Path

import numpy as np
import scipy.stats

import vcmjax
from vcmjax import cli
from vcmjax.coding import tables
from vcmjax.entropy import checkerboard, gaussian


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("codec", type=Path, help="directory of a frozen codec with its network")
    parser.add_argument("images", type=Path, help="folder of images")
    options = parser.parse_args()
    frozen = vcmjax.load(options.codec)
    codec = frozen.codec
    side = cli._image_side(frozen)
    images = np.stack([cli._image(path, side) for path in cli._listed([options.images])])
    features = frozen.features(images)
    for level in (0, 128, 255):
        levels = np.full(len(features), level, np.int32)
        symbols = codec.quantise(frozen.params, features, levels)
        latent = np.asarray(symbols.latent)
        size = latent.shape[1:-1]
        _, scale = codec.predict(frozen.params, symbols.side, symbols.latent, levels)
        scales = frozen.tables.scales
        log_scales = scales.log_scales(symbols.side, levels, size)
        if scales.context:
            anchor = checkerboard.anchors(*size)
            log_scales = scales.in_context(log_scales, latent, anchor, levels)
        indexes = {
            "float": np.searchsorted(gaussian.LOG_THRESHOLDS, np.log(np.asarray(scale))),
            "integer": scales.indexes(log_scales),
        }
        bits = {
            name: tables.ideal_bits(latent - frozen.tables.offsets[k], k, frozen.tables.cdf)
            .reshape(len(latent), -1)
            .sum(1)
            for name, k in indexes.items()
        }
        more = lambda a, b: 100 * (a.sum() / b.sum() - 1)  # noqa: E731
        pair = (bits["integer"], bits["float"])
        low, high = scipy.stats.bootstrap(
            pair, more, paired=True, vectorized=False, n_resamples=2000, rng=0
        ).confidence_interval
        differ = np.mean(indexes["float"] != indexes["integer"])
        print(
            f"λ {float(codec.lam_of(level)):6.3g}: {bits['float'].mean():8.2f} bits per image, "
            f"{more(*pair):+.4f} % [{low:+.4f}, {high:+.4f}] by integers; "
            f"{100 * differ:.3f} % of the table indexes differ; {len(latent)} images"
        )


if __name__ == "__main__":
    main()
