"""Views per second of `vcmjax.data.taskonomy`, all six tasks, from folders and from tars.

Run:    python -m benchmarks.taskonomy [--views 48] [--size 512] [--repeats 7]
Prints: medians, one process; beside Pillow decoding the same files, and nothing more
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import rounds
from vcmjax.data.rooms import Rooms, write_taskonomy
from vcmjax.data.taskonomy import Taskonomy
from vcmjax.tasks import ROOMS


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--views", type=int, default=48)
    parser.add_argument("--size", type=int, default=512, help="side of the files; read at 256")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        works: dict[str, Callable[[], object]] = {}
        for kind in ("folders", "tars"):
            root = Path(folder, kind)
            rooms = {"val": Rooms("val", options.views, options.size)}
            write_taskonomy(root, rooms, tar=kind == "tars", quirks=True)
            source = Taskonomy(root, "val", list(ROOMS))
            works[kind] = lambda source=source: [source[i] for i in range(len(source))]
        files = sorted(Path(folder, "folders").rglob("point_*.*"))
        works["Pillow and NumPy alone"] = lambda: [_decoded(file) for file in files]
        seconds = rounds.medians(works, options.repeats)
    print(f"| {options.views} views of {options.size}×{options.size} | views per second | ratio |")
    print("| --- | ---: | ---: |")
    peer = seconds["Pillow and NumPy alone"]
    for kind, time in seconds.items():
        print(f"| {kind} | {options.views / time:.1f} | {peer / time:.2f} |")


def _decoded(file: Path) -> object:
    content = io.BytesIO(file.read_bytes())
    return np.load(content) if file.suffix == ".npy" else np.asarray(Image.open(content))


if __name__ == "__main__":
    main()
