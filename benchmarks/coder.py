"""Speed of the range coder, one thread, against `constriction` where that is installed.

Run:    python benchmarks/coder.py [--symbols 4096] [--streams 64] [--repeats 21]
Prints: median and best million symbols per second; 64 Gaussian tables of 33 symbols at 16 bits.
"""

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np

from vcmjax.coding import range_coder, tables


def gaussian_tables(count: int = 64, radius: int = 16) -> list[np.ndarray]:
    """Rows over -radius..radius without escape, scales 0.11 to 8 in equal ratios."""
    grid = np.arange(-radius, radius + 1)
    rows = []
    for scale in np.geomspace(0.11, 8, count):
        pmf = np.exp(-0.5 * (grid / scale) ** 2)
        rows.append(np.append([16], tables.pmf_to_quantized_cdf(pmf / pmf.sum(), 16)))
    return rows


def draw(rows: list[np.ndarray], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Table indexes, uniform, and symbols drawn from those tables; both int32 of that shape."""
    rng = np.random.default_rng(0)
    indexes = rng.integers(len(rows), size=shape, dtype=np.int32)
    point = rng.integers(2**16, size=shape)
    values = np.zeros(shape, np.int32)
    for k, row in enumerate(rows):
        here = indexes == k
        values[here] = np.searchsorted(row[1:], point[here], "right") - 1
    return values, indexes


def rate(work: Callable[[], object], symbols: int, repeats: int) -> tuple[float, float]:
    """Median and best million symbols per second over `repeats` runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return symbols / float(np.median(seconds)) / 1e6, symbols / min(seconds) / 1e6


def vcmjax_jobs(rows: list[np.ndarray], values: np.ndarray, indexes: np.ndarray) -> dict:
    """Batches on one thread, and one call per stream."""
    t = tables.CdfTables.from_rows(rows)
    streams = range_coder.encode_batch(values, indexes, t)
    np.testing.assert_array_equal(range_coder.decode_batch(streams, indexes, t), values)
    return {
        "vcmjax encode_batch": lambda: range_coder.encode_batch(values, indexes, t, threads=1),
        "vcmjax decode_batch": lambda: range_coder.decode_batch(streams, indexes, t, threads=1),
        "vcmjax encode, one by one": lambda: [
            range_coder.encode(v, k, t) for v, k in zip(values, indexes, strict=True)
        ],
        "vcmjax decode, one by one": lambda: [
            range_coder.decode(s, k, t) for s, k in zip(streams, indexes, strict=True)
        ],
    }


def constriction_jobs(rows: list[np.ndarray], values: np.ndarray, indexes: np.ndarray) -> dict:
    """The same symbols with constriction's range coder.

    Its Python interface has no lookup of many tables by index: it evaluates a quantised Gaussian
    for each symbol, which is most of the time. So this compares interfaces, not bare coders.
    """
    import constriction

    model = constriction.stream.model.QuantizedGaussian(-16, 16)
    scales = np.geomspace(0.11, 8, len(rows))[indexes]
    centred = values - np.int32(16)

    def encode_one(row: int) -> np.ndarray:
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(centred[row], model, np.zeros(scales.shape[1]), scales[row])
        return coder.get_compressed()

    def decode_one(row: int, words: np.ndarray) -> np.ndarray:
        coder = constriction.stream.queue.RangeDecoder(words)
        return coder.decode(model, np.zeros(scales.shape[1]), scales[row])

    streams = [encode_one(row) for row in range(len(values))]
    return {
        "constriction encode": lambda: [encode_one(row) for row in range(len(values))],
        "constriction decode": lambda: [decode_one(row, s) for row, s in enumerate(streams)],
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=4096, help="per stream")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    rows = gaussian_tables()
    values, indexes = draw(rows, (args.streams, args.symbols))
    jobs = vcmjax_jobs(rows, values, indexes)
    try:
        jobs |= constriction_jobs(rows, values, indexes)
    except ImportError:
        print("constriction is not installed: no comparison")
    print(f"{'million symbols per second':<28}{'median':>8}{'best':>8}")
    for name, work in jobs.items():
        median, best = rate(functools.partial(work), values.size, args.repeats)
        print(f"{name:<28}{median:8.1f}{best:8.1f}")


if __name__ == "__main__":
    main()
