"""What it costs to send a layer of a task network, or the image, by a conventional codec.

One point is one layer, codec and quality on the same images: every stream is written and read
back, and the rest of the network run on what was received.
"""

import argparse
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import harness, plateau, ready, shown
from experiments.task_data import Reader, stacked
from experiments.torchvision_network import Classifier
from vcmjax.data import loader
from vcmjax.errors import UsageError
from vcmjax.evaluate import drawing, metrics
from vcmjax.io import atomic
from vcmjax.nets import split
from vcmjax.nets.split import Layer
from vcmjax.tasks import Task
from vcmjax.train import losses

log = logging.getLogger("vcmjax")
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Config:
    """What both experiments have in common.

    Attributes:
      data: ``rooms`` or a folder.
      networks: As in `plateau.Config`.
      torchvision: Name of a torchvision classifier of ImageNet's classes, to be split instead of
        the tasks' own networks; the data set then gives the images alone.
      weights: The file of its weights.
      tasks: Those of a class per image or pixel; empty for `class_scene` and `segment_semantic`
        as far as the data set labels them.
      layers: Names; empty for every direct submodule of encoder and head but the output.
      images: Validation images, or as many as there are.
      size: Image side in pixels.
    """

    data: str = "rooms"
    networks: str = ""
    torchvision: str = ""
    weights: str = ""
    tasks: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    images: int = 64
    size: int = 128


class Coder(NamedTuple):
    """A codec at one quality.

    Attributes:
      encode: Features or images to a stream each.
      decode: Back.
      alone: A stream to the bytes of a file or elementary stream of its own.
    """

    encode: Callable[[np.ndarray], list[bytes]]
    decode: Callable[[list[bytes]], np.ndarray]
    alone: Callable[[bytes], int]


class Case(NamedTuple):
    """A task, and the images that every point of it is measured on.

    Attributes:
      task: Of a class per image or pixel.
      image: uint8 (N, H, W, 3).
      label: As in `vcmjax.tasks`.
      whole: Images to the network's output, (N, ..., classes).
      output: Of `image`, nothing coded.
      layers: Those to send, each an (h, w, c) of features per image.
    """

    task: Task
    image: np.ndarray
    label: np.ndarray
    whole: Callable[[np.ndarray], np.ndarray]
    output: np.ndarray
    layers: list[Layer]


def cases(config: Config, about: str = "layers") -> list[Case]:
    """A case per task.

    Args:
      config: What is to be measured.
      about: The same in words.

    Raises:
      UsageError: An unknown task or layer, a task of values instead of classes, or torchvision
        that is not installed.
      DataError: Data or networks that are missing or damaged.
    """
    counts = (1, config.images, 1) if config.data == "rooms" else ()
    study = plateau.Config(
        config.data, config.networks, config.tasks, counts=counts, size=config.size
    )
    data = plateau.open_data(study)
    names = config.tasks or [n for n in ("class_scene", "segment_semantic") if n in data.tasks]
    for name in names:
        if data.tasks[name].kind == "dense":
            raise UsageError(f"--task {name}: expected a task of a class per image or pixel.")
    if config.torchvision:
        log.info("%s: %s, of images of %s", about, config.torchvision, data.name)
        return [_torchvision(config, data.open("val", next(iter(data.tasks))))]
    reader = Reader(data, harness.cache_directory(), views=0)
    tasks = [data.tasks[name] for name in names]
    ready.check(about, reader, tasks, functools.partial(plateau.origin, study, data))
    found = []
    for name in names:
        given = plateau.network(study, data, data.tasks[name])
        image, label = stacked(data.open("val", name), ("image", name), config.images)
        network, params = given.network, given.params
        forward = jax.jit(lambda x, n=network, p=params: n.decode(p, n.encode(p, x)))
        whole = batched(forward)
        every = split.layers(network, params, image.shape[1:3])[:-1]
        wanted = [layer for layer in _chosen(every, config.layers) if len(layer.shape) == 3]
        found.append(Case(given.task, image, label, whole, whole(image), wanted))
    return found


def _torchvision(config: Config, source: loader.Source) -> Case:
    """The images come without labels of ImageNet's classes: the network's own answers serve."""
    network = Classifier(config.torchvision, Path(config.weights))
    (image,) = stacked(source, ("image",), config.images)
    whole = batched(network)
    output = whole(image)
    task = Task(config.torchvision, "class", output.shape[1])
    wanted = _chosen(network.layers(image.shape[1:3]), config.layers)
    return Case(task, image, output.argmax(1).astype(np.int32), whole, output, wanted)


def batched(
    function: Callable[[jax.Array], jax.Array | np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """`function` of items (N, ...), a few at a time."""

    def apply(items: np.ndarray) -> np.ndarray:
        starts = range(0, len(items), _BATCH)
        return np.concatenate([function(jnp.asarray(items[s : s + _BATCH])) for s in starts])

    return apply


def point(
    case: Case, items: np.ndarray, finish: Callable[[np.ndarray], np.ndarray], coder: Coder
) -> dict[str, Any]:
    """One point, with 95 % bootstrap intervals over images.

    Args:
      case: Where.
      items: What is coded, (N, ...).
      finish: Decoded items to the network's output.
      coder: By what.

    Returns:
      ``bytes`` and ``bytes_alone`` per image; ``fidelity``, the share of images, or of pixels,
      on which the output's class is that without coding (VCM 2020, section VII-A); ``score``,
      the task's own; ``ci`` of each; ``per_image`` numbers.
    """
    streams = coder.encode(items)
    received = finish(coder.decode(streams))
    size = np.array([len(stream) for stream in streams])
    same = (received.argmax(-1) == case.output.argmax(-1)).reshape(len(items), -1).mean(1)
    statistics = _statistics(case, received)

    def resampled(weights: np.ndarray) -> dict[str, np.ndarray]:
        count = weights.sum(1)
        score = metrics.resampled_scores(case.task, statistics, weights)[case.task.metric]
        means = {"bytes": weights @ size / count, "fidelity": weights @ same / count}
        return means | {"score": score}

    return {
        **harness.summary(resampled, len(items)),
        "bytes_alone": float(np.mean([coder.alone(stream) for stream in streams])),
        "per_image": {"bytes": size.tolist(), "fidelity": same.round(4).tolist()},
    }


def pristine(case: Case) -> float:
    """The task's score with nothing coded."""
    return metrics.headline(case.task, _statistics(case, case.output))


def _statistics(case: Case, output: np.ndarray) -> metrics.Statistics:
    if case.task.kind == "segment":
        output = np.asarray(losses.resized(jnp.asarray(output), *case.label.shape[1:3]))
    return metrics.statistics(case.task, output, case.label)


def kept(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The point in `path`, or the one computed now and left there."""
    if not path.exists():
        with atomic.naming(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
        harness.write_json(path, compute())
    return harness.read_json(path)


def tasks(results: dict[str, Any]) -> list[str]:
    """Names of the tasks in results, in the order they ran."""
    return list(dict.fromkeys(row["task"] for row in results["rows"]))


def colour(place: int, count: int) -> Any:
    """Of a line for layer `place` of `count`, dark to light from the image on."""
    return drawing.matplotlib().colormaps["viridis"](0.92 * place / max(1, count - 1))


def parse(
    doc: str, kind: Callable[..., Any], arguments: Sequence[str] | None
) -> tuple[Any, argparse.Namespace]:
    """The command line of either experiment: its config, of class `kind`, and its options."""
    defaults = kind()
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--data", default="rooms", help="'rooms' (default) or a folder")
    parser.add_argument("--networks", default="", help="folder that vcmjax convert wrote")
    parser.add_argument("--torchvision", default="", help="a classifier to split, e.g. resnet50")
    parser.add_argument("--weights", default="", help="its state_dict, a .pth file")
    parser.add_argument("--task", nargs="+", default=(), help="tasks of a class per image or pixel")
    parser.add_argument("--layers", nargs="+", default=(), help="such as encoder/Conv_2")
    parser.add_argument("--images", type=int, default=defaults.images, help="validation images")
    parser.add_argument("--size", type=int, help="image side in pixels (default 128)")
    name = kind.__module__.rpartition(".")[2]
    parser.add_argument("--out", type=Path, default=Path("runs", name))
    shown.option(parser)
    given = parser.parse_args(arguments)
    if given.images < 1:
        raise UsageError(f"--images {given.images}: expected 1 or more.")
    if bool(given.torchvision) != bool(given.weights):
        raise UsageError("--torchvision and --weights: expected both, or neither.")
    if given.torchvision and (given.networks or given.task):
        raise UsageError("--torchvision: expected neither --networks nor --task beside it.")
    size = given.size or (256 if given.networks or given.torchvision else defaults.size)
    config = dataclasses.replace(
        defaults,
        data=given.data,
        networks=given.networks,
        torchvision=given.torchvision,
        weights=given.weights,
        tasks=tuple(given.task),
        layers=tuple(given.layers),
        images=given.images,
        size=size,
    )
    return config, given


def _chosen(layers: Sequence[Layer], names: Sequence[str]) -> list[Layer]:
    """Those of `names`, or all if there are none."""
    known = {layer.name: layer for layer in layers}
    missing = [name for name in names if name not in known]
    if missing:
        raise UsageError(f"--layers {missing[0]}: expected some of {', '.join(known)}.")
    return [known[name] for name in names] if names else list(layers)
