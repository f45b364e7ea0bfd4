"""Scores and bytes of one model at one rate level, from streams that were written and read back."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.codecs import refine
from vcmjax.codecs.feature import FeatureCodec, Symbols, Tables
from vcmjax.codecs.idfc import Idfc
from vcmjax.codecs.image import ImageCodec
from vcmjax.coding import container, range_coder
from vcmjax.data.features import Split
from vcmjax.evaluate import metrics
from vcmjax.nets import transfer
from vcmjax.nets.transfer import Features
from vcmjax.tasks import Task
from vcmjax.train import losses

_BATCH = 32


class Measurement(NamedTuple):
    """Per-image results; leading axis images.

    Attributes:
      bytes: Length of each image's stream; zeros for a method that sends none.
      container: What a file adds to it: an image codec's header, or each image's share of what one
        `.vcm` file of the split adds.
      estimated_bits: The model's own estimate for it; zeros where there is no model.
      side_bits: The part of that estimate spent on side information.
      statistics: From `metrics.statistics`.
      elementary: Length of each image's stream by itself with HEVC's parameter sets, which
        `bytes` counts as known; empty for other methods.
    """

    bytes: np.ndarray
    container: np.ndarray
    estimated_bits: np.ndarray
    side_bits: np.ndarray
    statistics: metrics.Statistics
    elementary: np.ndarray = np.zeros(0)

    @property
    def total(self) -> np.ndarray:
        """Bytes of each image, its share of the container included."""
        return self.bytes + self.container


class Refinement(NamedTuple):
    """How symbols are refined before they are written, see `refine.refine`."""

    rounds: int
    target: refine.Target


def head_statistics(
    task: Task, head: Callable[[jax.Array], jax.Array], feature: np.ndarray, label: np.ndarray
) -> metrics.Statistics:
    """Statistics of the task's output on `feature`, at the label's resolution."""
    output = _finished(task, head, label.shape[1:3])
    parts = []
    for start in range(0, len(feature), _BATCH):
        chosen = slice(start, start + _BATCH)
        parts.append(metrics.statistics(task, output(feature[chosen]), label[chosen]))
    return metrics.concatenate(parts)


@functools.lru_cache(maxsize=8)
def _finished(task: Task, head: Callable, size: tuple[int, ...]) -> Callable:
    """Feature to the task's output at `size`, compiled once per head."""
    return jax.jit(lambda x: _full_size(task, head(x), size))


def prediction(
    task: Task, head: Callable[[jax.Array], jax.Array], feature: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Class index (N,), class map (N, H, W) or values (N, H, W, C), at the label's resolution."""
    output = np.asarray(_full_size(task, head(jnp.asarray(feature)), label.shape[1:3]))
    return output if task.kind == "dense" else output.argmax(-1)


def reconstruction(
    codec: FeatureCodec,
    params: dict,
    frozen: Tables | None,
    feature: Features,
    pixels: int,
    level: int,
    refined: Refinement | None = None,
    coder: ModuleType = range_coder,
    priority: np.ndarray | None = None,
) -> tuple[Features, Measurement]:
    """What the decoder gets, and what it cost; scores are left empty.

    A codec without prior (the Control Group) sends nothing and passes its latent on as it is.

    Args:
      codec: What to code by.
      params: Trained.
      frozen: From ``codec.tables(params)``, or None without a prior.
      feature: (N, *shape), by task where there are several.
      pixels: Of the image.
      level: Rate level.
      refined: Whether and how symbols are refined.
      coder: What writes and reads the bytes.
      priority: (tasks that come back,) for every image, of a codec that takes priorities; symbols
        are not refined then.

    Raises:
      AssertionError: A decoded feature differs from the evaluation-mode reconstruction: a defect
        of the codec, never of the data.
    """
    count = transfer.count(feature)
    lam = float(codec.lam_of(level))
    if frozen is None:
        run = jax.jit(lambda x: codec.apply(params, jax.random.key(0), x, jnp.asarray(lam)).feature)
        parts = [run(_rows(feature, start)) for start in range(0, count, _BATCH)]
        none = np.zeros(count)
        return _concatenated(parts), Measurement(none.astype(int), none, none, none, {})
    levels = np.full(count, level, np.int32)
    if refined is None:
        every = None if priority is None else np.tile(priority, (count, 1)).astype(np.float32)
        symbols = _quantised(codec, params, feature, levels, every)
    else:
        symbols = refine.refine(
            codec, params, feature, levels, refined.target, pixels, refined.rounds
        )
    streams = codec.write(frozen, symbols.side, symbols.latent, levels, coder)
    size = codec.transfer.size_of(feature)
    decoded = codec.decode(params, frozen, streams, lam, size, coder)
    alike = jax.tree.map(functools.partial(np.allclose, atol=1e-3), decoded, symbols.output.feature)
    if not all(jax.tree.leaves(alike)):
        raise AssertionError("decoded features differ from the evaluation-mode reconstruction")
    output = symbols.output
    length = np.array([len(stream) for stream in streams])
    share = _share(streams)
    bits, side_bits = np.asarray(output.bits), np.asarray(output.side_bits)
    return decoded, Measurement(length, share, bits, side_bits, {})


def measure(
    codec: FeatureCodec,
    params: dict,
    frozen: Tables | None,
    task: Task,
    head: Callable[[jax.Array], jax.Array],
    split: Split,
    level: int,
    refined: Refinement | None = None,
    coder: ModuleType = range_coder,
) -> Measurement:
    """Code every image of `split`, decode it, finish the task, and score it."""
    pixels = split.image_shape[0] * split.image_shape[1]
    feature, measured = reconstruction(
        codec, params, frozen, split.feature, pixels, level, refined, coder
    )
    return measured._replace(statistics=head_statistics(task, head, feature, split.label))


def conventional_reconstruction(
    codec: Idfc | ImageCodec, items: np.ndarray, quality: int, shared: bool = False
) -> tuple[np.ndarray, Measurement]:
    """What the decoder of a codec that is not trained gets, and what it cost; no scores yet.

    Args:
      codec: What to code by.
      items: Features (N, h, w, C), or images uint8 (N, H, W, 3).
      quality: QP, or the image codec's own setting.
      shared: Whether the streams are sent in one `.vcm` file, and parameter sets once; else each
        is a file of its own.
    """
    streams = codec.encode(items, quality)
    length = np.array([len(stream) for stream in streams])
    alone = np.array([codec.stream_bytes(stream) for stream in streams])
    none = np.zeros(len(streams))
    share = _share(streams) if shared else alone - length
    elementary = alone if shared else none[:0]
    return codec.decode(streams), Measurement(length, share, none, none, {}, elementary)


def conventional(
    codec: Idfc | ImageCodec,
    items: np.ndarray,
    quality: int,
    task: Task,
    head: Callable[[jax.Array], jax.Array],
    label: np.ndarray,
    shared: bool = False,
) -> Measurement:
    """Code every feature or image by a codec that is not trained, decode it, and score it.

    Args:
      codec: As of `conventional_reconstruction`.
      items: Likewise.
      quality: Likewise.
      task: What `head` predicts.
      head: Decoded items to the task's output.
      label: As in `vcmjax.tasks`.
      shared: As of `conventional_reconstruction`.
    """
    received, measured = conventional_reconstruction(codec, items, quality, shared)
    return measured._replace(statistics=head_statistics(task, head, received, label))


def _share(streams: list[bytes]) -> np.ndarray:
    """Each stream's share of what one file of all adds to them, in bytes."""
    around = len(container.pack(streams, bytes(8), 0)) - sum(map(len, streams))
    return np.full(len(streams), around / len(streams))


def _quantised(codec, params, feature, levels, priority) -> Symbols:
    parts = [
        codec.quantise(params, *_rows((feature, levels, priority), start))
        for start in range(0, len(levels), _BATCH)
    ]
    return _concatenated(parts)


def _rows(tree, start: int):
    return jax.tree.map(lambda leaf: leaf[start : start + _BATCH], tree)


def _concatenated(parts: list):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _full_size(task: Task, output: jax.Array, size: tuple[int, ...]) -> jax.Array:
    return output if task.kind == "class" else losses.resized(output, *size)
