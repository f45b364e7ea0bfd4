"""Speed and termination of the range coder, against tensorflow-compression and constriction.

Run:    python -m benchmarks.coder [--symbols 4096] [--streams 64] [--repeats 21]
Needs:  the extra [tfc], and ``pip install constriction``, for the comparisons; it does without
Prints: a Markdown table of million symbols per second, one thread (tensorflow-compression chooses
        its own threads), 64 Gaussian tables of 33 symbols at 16 bits; then the bits of termination
"""

import argparse
import importlib.metadata
import time
from collections.abc import Callable

import numpy as np

from vcmjax.coding import range_coder, tables
from vcmjax.errors import VcmError


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


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def rate(work: Callable[[], object], symbols: int, repeats: int) -> tuple[float, float]:
    """Median and best million symbols per second."""
    seconds = timed(work, repeats)
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


def tfc_jobs(rows: list[np.ndarray], values: np.ndarray, indexes: np.ndarray) -> dict:
    """The same symbols with the operations of tensorflow-compression, called as they are."""
    from vcmjax.coding import tfc

    t = tables.CdfTables.from_rows(rows)
    tf, ops = tfc._tensorflow()
    lookup, shape = tfc._lookup(t), tf.constant(values.shape[:1], tf.int32)

    def encode() -> np.ndarray:
        handle = ops.entropy_encode_index(ops.create_range_encoder(shape, lookup), indexes, values)
        return ops.entropy_encode_finalize(handle).numpy()

    streams = tf.constant(encode())

    def decode() -> np.ndarray:
        handle = ops.create_range_decoder(streams, lookup)
        return ops.entropy_decode_index(handle, indexes, indexes.shape[1:], tf.int32)[1].numpy()

    np.testing.assert_array_equal(decode(), values)
    return {"tensorflow-compression encode": encode, "tensorflow-compression decode": decode}


def termination(rows: list[np.ndarray], lengths: tuple[int, ...], streams: int = 2000) -> None:
    """Prints the mean bits by which streams exceed their tables' ideal length."""
    t = tables.CdfTables.from_rows(rows)
    print("\n| symbols per stream | bits over the ideal length, mean of streams |\n| ---: | ---: |")
    for length in lengths:
        values, indexes = draw(rows, (streams, length))
        real = 8 * np.array([len(s) for s in range_coder.encode_batch(values, indexes, t)])
        ideal = tables.ideal_bits(values, indexes, t).sum(1)
        print(f"| {length} | {np.mean(real - ideal):.2f} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=4096, help="per stream")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    rows = gaussian_tables()
    values, indexes = draw(rows, (args.streams, args.symbols))
    jobs = vcmjax_jobs(rows, values, indexes)
    for peer in (constriction_jobs, tfc_jobs):
        try:
            jobs |= peer(rows, values, indexes)
        except (ImportError, VcmError) as error:
            print(f"left out: {error}")
    names = ("vcmjax", "numba", "numpy", "constriction", "tensorflow-compression-ops")
    print(", ".join(f"{n} {v}" for n in names if (v := version(n))), end="\n\n")
    found = {name: rate(work, values.size, args.repeats) for name, work in jobs.items()}
    print("| million symbols per second | median | best | median, relative |")
    print("| --- | ---: | ---: | ---: |")
    for name, (median, best) in found.items():
        ours = found["vcmjax encode_batch" if "encode" in name else "vcmjax decode_batch"][0]
        print(f"| {name} | {median:.1f} | {best:.1f} | {median / ours:.2f} |")
    termination(rows, (64, 256, 1024))


def version(name: str) -> str | None:
    """That installed, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
