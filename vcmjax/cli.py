"""Images to coded files and back: ``vcmjax encode``, ``decode``, ``info``; ``vcmjax convert``."""

import argparse
import csv
import itertools
import logging
import operator
import os
import signal
import stat
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

from vcmjax import terminal
from vcmjax.coding import container, container_format, salvage
from vcmjax.data import images, listing
from vcmjax.errors import DataError, UsageError, VcmError
from vcmjax.io import atomic, paths

if TYPE_CHECKING:  # imports JAX, which `info` and `--help` do without
    from vcmjax.codecs.frozen import FrozenCodec
    from vcmjax.tasks import Task

Limits = dict[str, int | None]
"""Keyword arguments of `container.Reader` that bound its work."""

log = logging.getLogger("vcmjax")
CONSOLE = rich.console.Console(stderr=True)
_INTERRUPTED, _TERMINATED = threading.Event(), threading.Event()
_BATCH = 32
_EXAMPLES = """examples:
  vcmjax encode street -o street.vcm --model runs/camvid/codecs/segment_semantic-ours
  vcmjax decode street.vcm -o labels --model runs/camvid/codecs/segment_semantic-ours
  vcmjax info street.vcm
  vcmjax convert taskonomy_weights --out networks
"""


def guarded(run: Callable[[], None], interrupted: str) -> None:
    """Call `run`; bad input ends in one line and status 2, Ctrl-C in `interrupted` and 130.

    SIGTERM, by which schedulers end a job, is a Ctrl-C of status 143.
    """
    terminal.plain()
    handler = rich.logging.RichHandler(console=CONSOLE, show_path=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("vcmjax").setLevel(logging.INFO)
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other can handle signals
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
        rich.progress.TextColumn(
            "{task.description:<42}", markup=False
        ),  # a path may have brackets
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


def encode(
    files: Sequence[Path],
    out: Path,
    model: Path,
    lam: float | None,
    *,
    names: bool = True,
    force: bool = False,
    skip_bad: bool = False,
    max_pixels: int | None = None,
) -> None:
    """Write the images in `files` to the coded file `out`, in their order.

    Images are resized to the size that the model was trained at. While the network runs on a
    batch, the one before is being coded.

    Args:
      files: Image files.
      out: Coded file. One that is there is replaced; anything else that is there is not.
      model: Directory of a frozen codec.
      lam: λ; None for the model's own.
      names: Keep each image's path below the folder that all share.
      force: Replace `out` though it is no coded file.
      skip_bad: Leave out images that cannot be read, with a count, instead of stopping.
      max_pixels: As of `images.load`.

    Raises:
      DataError: An image or the model cannot be read, or `out` not be written.
      UsageError: λ outside the model's range; `out` is one of the images, or exists and is no
        coded file; a name is too long to be kept.
    """
    _check_output(out, files, force)
    called: Sequence[str | None] = paths.names(files) if names else [None] * len(files)
    for name in called:
        if name and len(os.fsencode(name)) > container_format.MAX_NAME:
            longest = container_format.MAX_NAME
            raise UsageError(f"{name}: longer than the {longest} bytes of a name; use --no-names.")
    codec = _load(model)
    chosen = codec.lam if lam is None else lam
    level = int(codec.codec.level_of(chosen))
    side = _image_side(codec)
    bad: list[DataError] = []

    def read(file: Path) -> np.ndarray | None:
        try:
            return _image(file, side, max_pixels)
        except DataError as error:
            if not skip_bad:
                raise
            bad.append(error)
            return None

    with (
        steps("encoding", len(files)) as progress,
        ThreadPoolExecutor(1) as coder,
        container.Writer(out, codec.fingerprint, level, named=names) as writer,
    ):

        def append(waiting: tuple[Sequence[str | None], Future[list[bytes]]]) -> None:
            for name, stream in zip(waiting[0], waiting[1].result(), strict=True):
                writer.append(stream, name=name)

        waiting = None
        for start in range(0, len(files), _BATCH):
            chunk = slice(start, start + _BATCH)
            found = [(n, read(f)) for n, f in zip(called[chunk], files[chunk], strict=True)]
            kept = [(name, image) for name, image in found if image is not None]
            if kept:
                whole = codec.features(_filled(np.stack([image for _, image in kept])))
                features = _each(operator.itemgetter(slice(len(kept))), whole)
                if waiting:
                    append(waiting)
                streams = coder.submit(codec.compress, features, float(codec.codec.lam_of(level)))
                waiting = [name for name, _ in kept], streams
            progress(start)
        if not waiting:
            raise DataError(f"no image could be read; of the first: {bad[0]}")
        append(waiting)
        progress(len(files))
    for error in bad:
        log.warning("left out: %s", error)
    count = len(files) - len(bad)
    with container.Reader(out, max_images=count) as written:
        of_names = written.parts().names
        size = written.info.length - of_names
    kept_names = f", and {of_names} bytes of names" if names else ""
    print(f"{out}: {count} images, {size} bytes, {size / count:.1f} bytes each{kept_names}")
    if bad:
        print(f"{out}: {len(bad)} of {len(files)} images left out, which could not be read")


def _check_output(out: Path, files: Iterable[Path], force: bool) -> None:
    """Refuses to replace what is no coded file; a symbolic link is what it points to."""
    if not out.exists():
        return
    there = out.stat()
    if not stat.S_ISREG(there.st_mode):
        raise DataError(f"-o {out}: cannot be written: it is no regular file; name another.")
    if any(file.exists() and os.path.samestat(there, file.stat()) for file in files):
        raise UsageError(f"-o {out}: is one of the images to encode; name another file.")
    if force:
        return
    with atomic.naming(out, "read"), out.open("rb") as file:
        if file.read(len(container_format.MAGIC)) != container_format.MAGIC:
            raise UsageError(
                f"-o {out}: exists and is no .vcm file; name another, or replace it by --force."
            )


def decode(
    path: Path,
    out: Path,
    model: Path,
    damaged: bool = False,
    only: Sequence[str] = (),
    *,
    force: bool = False,
    limits: Limits | None = None,
) -> None:
    """Finish the model's tasks on the images in the coded file `path`, into the folder `out`.

    A segmentation becomes a PNG of class indices per image; values become an 8-bit PNG (normals:
    (n + 1)/2) of one or three channels; classes become ``classes.csv``; of a model of several
    tasks in a folder by name of the task. Results are named after the images, in folders as they
    were, if the file has their names; else they are numbered. `out` is there whole at the end, or
    as it was before.

    Args:
      path: Coded file.
      out: Folder, new or empty.
      model: Directory of the frozen codec that wrote `path`.
      damaged: Decode images of intact blocks, and count the others in a warning.
      only: Names of the tasks to finish, of several.
      force: Write into `out` though it holds something; of equal names the new replaces the old.
      limits: As of `container.Reader`.

    Raises:
      VcmError: The file is damaged (with `damaged`: beyond use), or another model wrote it.
      UsageError: A task that the model does not finish; `out` holds something.
    """
    if not force and out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"-o {out}: holds something already; expected a new or empty folder. Name another, or "
            "write into it by --force."
        )
    codec = _load(model)
    side, of = _image_side(codec), codec.codec.transfer
    known = {codec.networks[name].task.name: name for name in of.received}
    if unknown := [task for task in only if task not in known]:
        raise UsageError(f"--task {unknown[0]}: this model finishes {', '.join(known)}.")
    opened = salvage.Salvage if damaged else container.Reader
    source = opened(path, codec.fingerprint, **(limits or {}))
    done = 0
    with steps("decoding", source.info.images) as progress, atomic.directory(out, True) as aside:
        results = {
            known[task]: _Results(
                codec.networks[known[task]].task,
                side,
                aside / known[task],
                out / known[task],
                source.info.named,
            )
            for task in only or known
        }
        for entries in _batches(source):
            lam = codec.codec.lam_of(np.array([entry.image.level for entry in entries]))
            payloads = [entry.image.payload for entry in entries]
            features = codec.decompress(payloads, lam, source.info.size, tuple(results))
            output = of.by_name(codec.predict(_each(_filled, features)))
            for name, result in results.items():
                for entry, one in zip(entries, output[name], strict=False):  # rest is filling
                    result.add(entry, one)
            done += len(entries)
            progress(done)
        for result in results.values():
            result.close()
    print(f"{out}: {', '.join(result.task.name for result in results.values())} of {done} images")
    for lost in getattr(source, "lost", []):
        last = "the end" if lost.stop is None else lost.stop - 1
        log.warning("%s: lost: images %d to %s", path, lost.first, last)


def info(
    path: Path, model: Path | None = None, names: bool = False, limits: Limits | None = None
) -> None:
    """Print what the coded file `path` holds, and where its bytes go.

    Args:
      path: Coded file.
      model: Directory of the frozen codec that wrote it, to tell apart the bytes of payloads.
      names: List the images' names too.
      limits: As of `container.Reader`.
    """
    codec = None if model is None else _load(model)
    expected = None if codec is None else codec.fingerprint
    reader = container.Reader(path, expected, **(limits or {}))
    about, parts = reader.info, reader.parts()
    count = len(reader)
    print(f"{path}: {count} images, {about.length} bytes, model {about.fingerprint.hex()}")
    size = about.size or "as the model was trained"
    print(f"version: {about.version}; feature size: {size}; rate level: {about.level}")
    bits = {name: 8.0 * size for name, size in parts._asdict().items()}
    if codec is not None and count:
        side = latent = 0.0
        for entries in _batches(reader):
            lam = codec.codec.lam_of(np.array([entry.image.level for entry in entries]))
            spent = codec.spent([entry.image.payload for entry in entries], lam, about.size)
            side, latent = side + spent[0].sum(), latent + spent[1].sum()
        termination = bits["payload"] - side - latent
        bits |= {"  v": side, "  z": latent, "  termination": termination}
    for name, total in bits.items():
        print(f"{name:<14} {total / 8:12.1f} bytes {total / max(count, 1):10.2f} bits per image")
    if names and not about.named:
        print("names: none were kept")
    elif names:
        for entry in reader.entries():
            print(f"{entry.number:06d} {_shown(entry.name or '')}")


def _shown(name: str) -> str:
    """A name as a terminal can show it: what would command the terminal is spelt out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    terminal.plain()  # for --help, too
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
    one.add_argument("--no-names", action="store_true", help="do not keep the images' names")
    one.add_argument("--skip-bad", action="store_true", help="count unreadable images, go on")
    one.add_argument("--force", action="store_true", help="replace OUT though it is no coded file")
    text = f"of the largest image that is read (default: {images.MAX_PIXELS})"
    one.add_argument("--max-pixels", type=int, metavar="N", help=text)
    one = commands.add_parser("decode", help="a coded file to the task's results")
    one.add_argument("file", type=Path)
    one.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    one.add_argument("--model", type=Path, required=True, help="directory of a frozen codec")
    one.add_argument("--task", nargs="+", default=(), help="those to finish, of several")
    one.add_argument("--salvage", action="store_true", help="decode what damage has left")
    one.add_argument("--force", action="store_true", help="write into a folder that is in use")
    _add_limits(one)
    one = commands.add_parser("info", help="what a coded file holds, and where its bytes go")
    one.add_argument("file", type=Path)
    one.add_argument("--model", type=Path, help="frozen codec, to tell v, z and termination apart")
    one.add_argument("--names", action="store_true", help="list the images' names")
    _add_limits(one)
    one = commands.add_parser("convert", help="the Taskonomy release's .pth files to networks")
    one.add_argument("weights", type=Path, help="folder of TASK_encoder-SHA256.pth and decoders")
    one.add_argument("-o", "--out", type=Path, required=True, help="folder to write networks to")
    one.add_argument("--task", nargs="+", default=[], help="domains (default: all of CVR's there)")
    options = parser.parse_args(arguments)

    def run() -> None:
        if options.command == "encode":
            encode(
                _listed(options.images),
                options.out,
                options.model,
                options.lam,
                names=not options.no_names,
                force=options.force,
                skip_bad=options.skip_bad,
                max_pixels=options.max_pixels,
            )
        elif options.command == "decode":
            decode(
                options.file,
                options.out,
                options.model,
                options.salvage,
                options.task,
                force=options.force,
                limits=_limits(options),
            )
        elif options.command == "convert":
            from vcmjax import torch_weights

            for path in torch_weights.convert(options.weights, options.out, options.task):
                print(path)
        else:
            info(options.file, options.model, options.names, _limits(options))

    guarded(run, "interrupted; nothing was written under the final name")


def _add_limits(command: argparse.ArgumentParser) -> None:
    for what in ("images", "positions"):
        text = f"{what} that the file may announce (default: what its bytes can pay for)"
        command.add_argument(f"--max-{what}", type=int, metavar="N", help=text)


def _limits(options: argparse.Namespace) -> Limits:
    return {"max_images": options.max_images, "max_positions": options.max_positions}


def _load(model: Path) -> "FrozenCodec":
    from vcmjax.codecs import frozen

    return frozen.load(model)


def _listed(given: Iterable[Path]) -> list[Path]:
    """Files as given, folders as the images in and below them, in natural order of name."""
    files: list[Path] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        inside = listing.tree(path)
        if not inside.files:
            raise DataError(f"{path}: no images in this folder; expected .png, .jpg or others.")
        listing.say_skipped(path, inside.skipped)
        files += inside.files
    return files


def _image(path: Path, side: int, max_pixels: int | None = None) -> np.ndarray:
    return images.read(path, side, max_pixels)


def _image_side(codec: "FrozenCodec") -> int:
    if codec.network is None:
        raise UsageError("--model: this codec has no task network; code its features by the API.")
    return codec.codec.transfer.size[0] * codec.stride


def _batches(source: container.Reader | salvage.Salvage) -> Iterator[list[container.Entry]]:
    """Images with their numbers and names, a batch at a time."""
    entries = source.entries()
    while batch := list(itertools.islice(entries, _BATCH)):
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

    def __init__(self, task: "Task", side: int, folder: Path, final: Path, named: bool):
        self.task, self.side, self.folder, self.final = task, side, folder, final
        self.named = named
        self.places = paths.Places(".png")
        self.classes: list[tuple] = []
        with atomic.naming(final, "written"):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, entry: container.Entry, output: np.ndarray) -> None:
        """Takes the output on an image."""
        if self.task.kind != "class":
            place = self.places.place(entry.number, entry.name)
            with atomic.naming(self.final / place, "written"):
                path = self.folder / place
                path.parent.mkdir(parents=True, exist_ok=True)
                _picture(output, self.task.kind, self.side).save(path)
            return
        index = int(output.argmax())
        name = self.task.classes[index] if self.task.classes else ""
        row = entry.number, index, name
        self.classes.append((*row, entry.name) if self.named else row)

    def close(self) -> None:
        """Writes what is not a picture."""
        if self.task.kind != "class":
            return
        header = ("image", "index", "class", "name")[: 4 if self.named else 3]
        with atomic.naming(self.final / "classes.csv", "written"):
            table = (self.folder / "classes.csv").open(
                "w", newline="", encoding="utf-8", errors="surrogateescape"
            )
            with table as file:
                csv.writer(file).writerows([header, *self.classes])


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
