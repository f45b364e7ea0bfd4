"""Images to coded files and back: ``vcmjax encode``, ``decode``, ``info``; ``vcmjax convert``."""

import argparse
import csv
import itertools
import logging
import operator
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.console
import rich.logging
import rich.progress
from PIL import Image

from vcmjax.coding import container, salvage
from vcmjax.data import images as image_files
from vcmjax.errors import DataError, UsageError, VcmError

if TYPE_CHECKING:  # imports JAX, which `info` and `--help` do without
    from vcmjax.codecs.frozen import FrozenCodec
    from vcmjax.tasks import Task

log = logging.getLogger("vcmjax")
CONSOLE = rich.console.Console(stderr=True)
_INTERRUPTED, _TERMINATED = threading.Event(), threading.Event()
_BATCH = 32
_EXAMPLES = """examples:
  vcmjax encode street/*.png -o street.vcm --model runs/camvid/codecs/segment_semantic-ours
  vcmjax decode street.vcm -o labels --model runs/camvid/codecs/segment_semantic-ours
  vcmjax info street.vcm
  vcmjax convert taskonomy_weights --out networks
"""


def guarded(run: Callable[[], None], interrupted: str) -> None:
    """Call `run`; bad input ends in one line and status 2, Ctrl-C in `interrupted` and 130.

    SIGTERM, by which schedulers end a job, is a Ctrl-C of status 143.
    """
    handler = rich.logging.RichHandler(console=CONSOLE, show_path=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("vcmjax").setLevel(logging.INFO)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, old in before.items():
        if old is not signal.SIG_IGN:  # as in the background of a shell script
            signal.signal(number, _interrupt)
    try:
        run()
    except (VcmError, OSError) as error:
        CONSOLE.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        CONSOLE.print(interrupted)
        # Threads of data loaders and checkpoint writers must not hold the exit up.
        os._exit(143 if _TERMINATED.is_set() else 130)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        _INTERRUPTED.clear()
        _TERMINATED.clear()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and leave word of it for `steps`.

    Where the interpreter happens to run a callback of JAX's garbage collector, it would be lost.
    """
    _INTERRUPTED.set()
    if number == signal.SIGTERM:
        _TERMINATED.set()
    raise KeyboardInterrupt


@contextmanager
def steps(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar with ETA over `total` steps (None: unknown); yields what is told them."""
    columns = (
        rich.progress.TextColumn("{task.description:<42}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("ETA"),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=CONSOLE) as bar:
        task = bar.add_task(description, total=total)

        def progress(done: int) -> None:
            bar.update(task, completed=done)
            if _INTERRUPTED.is_set():
                raise KeyboardInterrupt

        yield progress


def encode(paths: Sequence[Path], out: Path, model: Path, lam: float | None) -> None:
    """Write `paths` to the coded file `out`, in their order.

    Images are resized to the size that the model was trained at. While the network runs on a
    batch, the one before is being coded.

    Raises:
      DataError: An image or the model cannot be read, or `out` not be written.
      UsageError: λ outside the model's range.
    """
    codec = _load(model)
    chosen = codec.lam if lam is None else lam
    level = int(codec.codec.level_of(chosen))
    side = _image_side(codec)
    with (
        steps("encoding", len(paths)) as progress,
        ThreadPoolExecutor(1) as coder,
        container.Writer(out, codec.fingerprint, level) as writer,
    ):
        waiting: Future[list[bytes]] | None = None
        for start in range(0, len(paths), _BATCH):
            batch = np.stack([_image(path, side) for path in paths[start : start + _BATCH]])
            whole = codec.features(_filled(batch))
            features = _each(operator.itemgetter(slice(len(batch))), whole)
            if waiting:
                _append(writer, waiting.result())
            waiting = coder.submit(codec.compress, features, float(codec.codec.lam_of(level)))
            progress(start)
        if waiting:
            _append(writer, waiting.result())
        progress(len(paths))
    size = out.stat().st_size
    print(f"{out}: {len(paths)} images, {size} bytes, {size / len(paths):.1f} bytes each")


def decode(
    path: Path, out: Path, model: Path, damaged: bool = False, only: Sequence[str] = ()
) -> None:
    """Finish the model's tasks on the images in the coded file `path`, into the folder `out`.

    A segmentation becomes a PNG of class indices per image; values become an 8-bit PNG (normals:
    (n + 1)/2) of one or three channels; classes become ``classes.csv``; of a model of several
    tasks in a folder by name of the task. With `damaged`, images of intact blocks are decoded, and
    the others are counted in a warning. `only` names the tasks to finish, of several.

    Raises:
      VcmError: The file is damaged (with `damaged`: beyond use), or another model wrote it.
      UsageError: A task that the model does not finish.
    """
    codec = _load(model)
    side, of = _image_side(codec), codec.codec.transfer
    known = {codec.networks[name].task.name: name for name in of.received}
    if unknown := [task for task in only if task not in known]:
        raise UsageError(f"--task {unknown[0]}: this model finishes {', '.join(known)}.")
    source: container.Reader | salvage.Salvage
    source = (salvage.Salvage if damaged else container.Reader)(path, codec.fingerprint)
    results = {
        known[task]: _Results(codec.networks[known[task]].task, out / known[task], side)
        for task in only or known
    }
    done = 0
    with steps("decoding", source.info.images) as progress:
        for numbered in _batches(source):
            lam = codec.codec.lam_of(np.array([image.level for _, image in numbered]))
            payloads = [image.payload for _, image in numbered]
            features = codec.decompress(payloads, lam, source.info.size, tuple(results))
            output = of.by_name(codec.predict(_each(_filled, features)))
            for name, result in results.items():
                for (k, _), one in zip(numbered, output[name], strict=False):  # rest is filling
                    result.add(k, one)
            done += len(numbered)
            progress(done)
    for result in results.values():
        result.close()
    print(f"{out}: {', '.join(result.task.name for result in results.values())} of {done} images")
    for lost in getattr(source, "lost", []):
        last = "the end" if lost.stop is None else lost.stop - 1
        log.warning("%s: lost: images %d to %s", path, lost.first, last)


def info(path: Path, model: Path | None) -> None:
    """Print what the coded file `path` holds, and where its bytes go; with `model`, all of them."""
    codec = None if model is None else _load(model)
    reader = container.Reader(path, None if codec is None else codec.fingerprint)
    about, parts = reader.info, reader.parts()
    count = len(reader)
    print(f"{path}: {count} images, {about.length} bytes, model {about.fingerprint.hex()}")
    print(f"feature size: {about.size or 'as the model was trained'}; rate level: {about.level}")
    bits = {name: 8.0 * size for name, size in parts._asdict().items()}
    if codec is not None and count:
        side = latent = 0.0
        for numbered in _batches(reader):
            lam = codec.codec.lam_of(np.array([image.level for _, image in numbered]))
            spent = codec.spent([image.payload for _, image in numbered], lam, about.size)
            side, latent = side + spent[0].sum(), latent + spent[1].sum()
        termination = bits["payload"] - side - latent
        bits |= {"  v": side, "  z": latent, "  termination": termination}
    for name, total in bits.items():
        print(f"{name:<14} {total / 8:12.1f} bytes {total / max(count, 1):10.2f} bits per image")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="vcmjax",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("encode", help="images to one coded file")
    one.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    one.add_argument("-o", "--out", type=Path, required=True, help="coded file to write")
    one.add_argument("--model", type=Path, required=True, help="directory of a frozen codec")
    one.add_argument("--lam", type=float, help="λ: greater is better and longer (default: model's)")
    one = commands.add_parser("decode", help="a coded file to the task's results")
    one.add_argument("file", type=Path)
    one.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    one.add_argument("--model", type=Path, required=True, help="directory of a frozen codec")
    one.add_argument("--task", nargs="+", default=(), help="those to finish, of several")
    one.add_argument("--salvage", action="store_true", help="decode what damage has left")
    one = commands.add_parser("info", help="what a coded file holds, and where its bytes go")
    one.add_argument("file", type=Path)
    one.add_argument("--model", type=Path, help="frozen codec, to tell v, z and termination apart")
    one = commands.add_parser("convert", help="the Taskonomy release's .pth files to networks")
    one.add_argument("weights", type=Path, help="folder of TASK_encoder-SHA256.pth and decoders")
    one.add_argument("-o", "--out", type=Path, required=True, help="folder to write networks to")
    one.add_argument("--task", nargs="+", default=[], help="domains (default: all of CVR's there)")
    options = parser.parse_args(arguments)

    def run() -> None:
        if options.command == "encode":
            encode(list(_listed(options.images)), options.out, options.model, options.lam)
        elif options.command == "decode":
            decode(options.file, options.out, options.model, options.salvage, options.task)
        elif options.command == "convert":
            from vcmjax import torch_weights

            for path in torch_weights.convert(options.weights, options.out, options.task):
                print(path)
        else:
            info(options.file, options.model)

    guarded(run, "interrupted; nothing was written under the final name")


def _load(model: Path) -> "FrozenCodec":
    from vcmjax.codecs import frozen

    return frozen.load(model)


def _listed(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as given, folders as their images in order of name."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in image_files.SUFFIXES)
        if not inside:
            raise DataError(f"{path}: no images in this folder; expected .png, .jpg or others.")
        yield from inside


def _image(path: Path, side: int) -> np.ndarray:
    image = image_files.to_rgb(image_files.load(path, "image"), path, "image")
    return image_files.shrink(image, side)


def _image_side(codec: "FrozenCodec") -> int:
    if codec.network is None:
        raise UsageError("--model: this codec has no task network; code its features by the API.")
    return codec.codec.transfer.size[0] * codec.stride


def _append(writer: container.Writer, streams: Sequence[bytes]) -> None:
    for stream in streams:
        writer.append(stream)


def _batches(
    source: container.Reader | salvage.Salvage,
) -> Iterator[list[tuple[int, container.Coded]]]:
    """Numbered images, a batch at a time."""
    numbered = iter(source) if isinstance(source, salvage.Salvage) else enumerate(source)
    while batch := list(itertools.islice(numbered, _BATCH)):
        yield batch


def _each(function: Callable[[np.ndarray], np.ndarray], features: Any) -> Any:
    """`function` of features, or of those of each of several tasks."""
    import jax  # which `info` and `--help` do without

    return jax.tree.map(function, features)


def _filled(batch: np.ndarray) -> np.ndarray:
    """The batch at full length, so that networks are compiled once."""
    short = _BATCH - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], short, axis=0)])


class _Results:
    """One task's results in a folder, as `decode` says."""

    def __init__(self, task: "Task", folder: Path, side: int):
        self.task, self.folder, self.side = task, folder, side
        self.classes: list[tuple[int, int, str]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, k: int, output: np.ndarray) -> None:
        """Takes the output on image `k`."""
        if self.task.kind != "class":
            _picture(output, self.task.kind, self.side).save(self.folder / f"{k:06d}.png")
            return
        index = int(output.argmax())
        self.classes.append((k, index, self.task.classes[index] if self.task.classes else ""))

    def close(self) -> None:
        """Writes what is not a picture."""
        if self.task.kind == "class":
            with open(self.folder / "classes.csv", "w", newline="") as file:
                csv.writer(file).writerows([("image", "index", "class"), *self.classes])


def _picture(output: np.ndarray, kind: str, side: int) -> Image.Image:
    """One output (h, w, channels) as a picture of the image's size."""
    layers = [
        np.asarray(Image.fromarray(layer).resize((side, side), Image.Resampling.BILINEAR))
        for layer in np.moveaxis(output.astype(np.float32), -1, 0)
    ]
    full = np.stack(layers, axis=-1)
    if kind == "segment":
        return Image.fromarray(full.argmax(-1).astype(np.uint8))
    if full.shape[-1] == 3:  # normals, each component in [-1, 1]
        full = (full + 1) / 2
    values = np.rint(255 * np.clip(full, 0, 1)).astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values[..., :3])


if __name__ == "__main__":
    main()
