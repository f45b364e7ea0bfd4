"""Images per second of `vcmjax.data.rooms`, all labels included.

Run: python benchmarks/rooms.py [size]
"""

import multiprocessing
import statistics
import sys
import time

from vcmjax.data.rooms import Rooms

IMAGES = 60
RUNS = 5


def render(job: tuple[int, int]) -> None:
    """Render `IMAGES` rooms of a size from an index on."""
    size, first = job
    rooms = Rooms("train", first + IMAGES, size)
    for index in range(first, first + IMAGES):
        rooms[index]


def main() -> None:
    """Print the median of `RUNS` runs, with one process and with two."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    started = time.perf_counter()
    Rooms("train", 1, size)[0]
    print(f"first image (compiles unless cached): {time.perf_counter() - started:.2f} s")
    for processes in (1, 2):
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.map(render, [(size, 0)] * processes, chunksize=1)  # load, compile
            rates = []
            for run in range(RUNS):
                jobs = [(size, (run * processes + i) * IMAGES) for i in range(processes)]
                started = time.perf_counter()
                pool.map(render, jobs, chunksize=1)
                rates.append(processes * IMAGES / (time.perf_counter() - started))
        print(f"{processes} process(es), {size}x{size}: {statistics.median(rates):.0f} images/s")


if __name__ == "__main__":
    main()
