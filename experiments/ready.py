"""What must hold before the first step: data that can be read, networks that fit, codecs that run.

Whatever can be known to fail is refused here, so that no training ends in it; and one line says
what will be run, on what data, with which networks.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.errors
import jax
import jax.numpy as jnp

from experiments.task_data import Reader
from experiments.task_networks import Origin
from vcmjax.data import SPLITS
from vcmjax.data.dataset import Dataset
from vcmjax.errors import UsageError
from vcmjax.evaluate import bd_rate
from vcmjax.nets import small_hourglass
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.tasks import Task
from vcmjax.train import parallel

log = logging.getLogger("vcmjax")


class Ready(NamedTuple):
    """A task whose examples can be read, and whose network fits them.

    Attributes:
      task: The task.
      counts: Examples in train, val and test.
      size: (height, width) of its images.
      feature: Shape of its network's feature, (h, w, C).
      network: What is known of the network, in words.
    """

    task: Task
    counts: tuple[int, ...]
    size: tuple[int, int]
    feature: tuple[int, ...]
    network: str


def check(
    about: str, reader: Reader, tasks: Sequence[Task], origin: Callable[[Task], Origin]
) -> list[Ready]:
    """Reads an example of every split of every task, finds the networks, and says what is there.

    Args:
      about: What will be run, in words.
      reader: Of the data set.
      tasks: Those that will be run.
      origin: Where the network of each comes from.

    Raises:
      UsageError: A network does not fit its task or the images; a package is missing.
      DataError: Data or networks that are missing or damaged.
    """
    bd_rate.delta(([1, 2], [1, 2]), ([1, 2], [1, 2]), True)  # its packages come with many others
    found = []
    for task in tasks:
        sources = [reader.source(task, split) for split in SPLITS]
        size, *_ = [source[0]["image"].shape[:2] for source in sources]
        network = origin(task)
        mark = f", {network.network.fingerprint}" if network.network else ""
        found.append(
            Ready(
                task,
                tuple(map(len, sources)),
                size,
                feature(task, network.network, size),
                network.about + mark,
            )
        )
    if not parallel.devices().process:
        log.info("%s; %s", about, described(reader.data, found))
    return found


def described(data: Dataset, found: Sequence[Ready]) -> str:
    """The data, their tasks and the tasks' networks, in a line."""
    kind = "procedural rooms" if data.procedural else f"folder {data.name}"
    images = {
        f"{'/'.join(map(str, each.counts))} images of {each.size[0]}×{each.size[1]}"
        for each in found
    }
    tasks = [
        f"{each.task.name}: {each.task.channels} {'classes' if each.task.classes else 'channels'}, "
        f"network {each.network}"
        for each in found
    ]
    return f"{kind}, {' or '.join(sorted(images))} in train/val/test; {'; '.join(tasks)}"


def feature(task: Task, network: TaskNetwork | None, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of a network's feature of images of `size`; nothing is computed.

    Args:
      task: Whose labels its output must have the form of.
      network: None for one that is still to be trained.
      size: (height, width) of the images.

    Raises:
      UsageError: It does not take such images, or its output is none of the task's.
    """
    halves = network.network if network else small_hourglass.hourglass(task)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    form = f"{size[0]}×{size[1]}"
    try:
        fresh = lambda: halves.init(jax.random.key(0), size[0])  # noqa: E731
        params = network.params if network else jax.eval_shape(fresh)
        sent = jax.eval_shape(halves.encode, params, image)
        output = jax.eval_shape(halves.decode, params, sent)
    except (flax.errors.FlaxError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UsageError(
            f"--size {size[0]}: the network of {task.name} takes no images of {form} ({reason}); "
            "expected those of a size that it was made for."
        ) from error
    positions = [] if task.kind == "class" else [side / halves.output_stride for side in size]
    if [*output.shape[1:]] != [*positions, task.channels]:
        raise UsageError(
            f"{task.name}: of an image of {form} its network makes {_form(output.shape[1:])}, the "
            f"labels are of {task.channels} {task.kind}; expected a network for this task, and "
            f"images whose sides are multiples of {halves.stride} (--size)."
        )
    return sent.shape[1:]


def _form(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
