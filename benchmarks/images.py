"""Images per second of ``vcmjax encode`` and ``decode``, and the share of the coder.

Run:    python -m benchmarks.images CODEC_DIR IMAGE_DIR [--count 1000] [--repeats 3]
Prints: medians, and the time that coding takes when it does not overlap with the network
"""

import argparse
import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import vcmjax
from benchmarks.coder import timed
from vcmjax import cli


def median(work: Callable[[], object], repeats: int) -> float:
    """Seconds."""
    return float(np.median(timed(work, repeats)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("codec", type=Path, help="directory of a frozen codec with its network")
    parser.add_argument("images", type=Path, help="folder of images, used again until enough")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    paths = list(itertools.islice(itertools.cycle(cli._listed([options.images])), options.count))
    frozen = vcmjax.load(options.codec)
    codec, level = frozen.codec, int(frozen.codec.level_of(frozen.lam))
    side = cli._image_side(frozen)
    one = np.stack([cli._image(path, side) for path in paths[:32]])
    levels = np.full(len(one), level, np.int32)
    symbols = codec.quantise(frozen.params, frozen.features(one), levels)
    side_symbols, latent = np.asarray(symbols.side), np.asarray(symbols.latent)
    streams = codec.write(frozen.tables, side_symbols, latent, levels)
    batches = options.count / len(one)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cli.CONSOLE.quiet = True
        coded = Path(folder) / "a.vcm"
        seconds = {
            "vcmjax encode": median(
                lambda: cli.encode(paths, coded, options.codec, None), options.repeats
            ),
            "vcmjax decode": median(
                lambda: cli.decode(coded, Path(folder) / "out", options.codec), options.repeats
            ),
            "reading images alone": batches
            * median(lambda: [cli._image(path, side) for path in paths[:32]], options.repeats),
            "network and quantisation alone": batches
            * median(
                lambda: np.asarray(
                    codec.quantise(frozen.params, frozen.features(one), levels).latent
                ),
                options.repeats,
            ),
            "integer hyper-synthesis and coder alone, writing": batches
            * median(
                lambda: codec.write(frozen.tables, side_symbols, latent, levels), options.repeats
            ),
            "integer hyper-synthesis and coder alone, reading": batches
            * median(lambda: codec.read(frozen.tables, streams, levels), options.repeats),
        }
    print(f"| {options.count} images of {side}×{side} | seconds | images per second |")
    print("| --- | ---: | ---: |")
    for name, time_ in seconds.items():
        print(f"| {name} | {time_:.2f} | {options.count / time_:.0f} |")


if __name__ == "__main__":
    main()
