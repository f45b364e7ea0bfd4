"""Transfer and inverse transfer: between the features of one task, or several, and one latent.

    feature of task 1 ─ Φ₁ ─┐               ┌─ Ψ₁ ─ feature of task 1
    feature of task 2 ─ Φ₂ ─┼─ one latent ──┼─ Ψ₂ ─ feature of task 2
                            └ concatenated  └─ Ψ₃ ─ of a task whose feature was never sent

Every branch of Ψ sees the whole latent. With one task this is a transform coder's analysis and
synthesis.

Source: CVR (Yang et al. 2021) §3.3. A vector's branch ends in values laid out over the latent's
positions, which the paper, whose features all have positions, does not need.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax import tasks
from vcmjax.errors import VcmError
from vcmjax.nets import layers
from vcmjax.nets.transforms import (
    Analysis,
    Synthesis,
    VectorAnalysis,
    VectorSynthesis,
    pad_to_multiple,
)

Shape = tuple[int, ...]
Shapes = tuple[tuple[str, Shape], ...]
"""The shape of each task's feature, by name."""
Features = Any
"""An array (B, *shape), or a dict of them by task."""
Size = tuple[int, ...]
"""(H, W) of the features, of the first that has positions where there are several; () if none."""
MOST_POSITIONS = 1 << 22
"""H·W up to which a feature is taken or restored, so that no header of a few bytes and no file of
hyper-parameters asks for all memory; raise it for larger ones."""
MOST_TASKS = 100
"""Tasks up to which a codec takes or restores features."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Hyper-parameters of Φ and Ψ; holds no arrays. Every method is a pure function.

    Attributes:
      shape: Of the feature, (H, W, C) or (C,); or of those of several tasks.
      outputs: Of those that come back, several by name; empty for what was sent.
      latent_channels: Channels of the latent, shared evenly by the tasks sent.
      stride: Positions of the feature per position of the latent along a side, a power of two; of
        the first feature that has positions. Other features are strided to the same latent.
      hidden: Channels of the hidden layers of every branch.
      prioritised: Whether Φ is told how much each task matters. Ψ is not, and need not be.
    """

    shape: Shape | Shapes
    outputs: Shapes
    latent_channels: int
    stride: int
    hidden: int
    prioritised: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, before any array exists."""
        if self.outputs and not self.joint:
            raise VcmError("outputs are by name; expected shapes by name as well")
        named = self._named(self.shape) | dict(self.outputs)
        if self.joint:
            tasks.check_names(named)
        if len(named) > MOST_TASKS:
            raise VcmError(f"shapes of {len(named)} tasks; expected {MOST_TASKS} at most")
        if not 1 <= self.stride <= MOST_POSITIONS or self.stride & (self.stride - 1):
            raise VcmError(
                f"stride is {self.stride}; expected a power of two, {MOST_POSITIONS} at most"
            )
        for shape in named.values():
            if len(shape) not in (1, 3) or min(shape) < 1:
                raise VcmError(f"shape is {shape}; expected (H, W, C) or (C,), each at least 1")
            check_positions(shape[:-1], 1)
        if self.latent_channels % len(self._named(self.shape)):
            raise VcmError(
                f"latent_channels is {self.latent_channels}; expected a multiple of the number "
                f"of tasks, {len(self._named(self.shape))}"
            )
        for name, shape in named.items():
            if len(shape) == 3:
                check_positions(shape[:2], self._stride(name, shape))

    @property
    def joint(self) -> bool:
        """Whether features go by name."""
        return not isinstance(self.shape[0], int)

    @property
    def sent(self) -> dict[str, Shape]:
        """Shapes of the features sent, by task; "" names the only one of a codec of one task."""
        return self._named(self.shape)

    @property
    def received(self) -> dict[str, Shape]:
        """Shapes of the features that come back, likewise."""
        return dict(self.outputs) or self.sent

    def by_name(self, features: Features) -> dict[str, Any]:
        """Features, or what else there is one of for each, by task as `sent` and `received` are."""
        return features if self.joint else {"": features}

    def given(self, features: Features) -> Mapping[str, Any]:
        """Features that a user gives, by task.

        Raises:
          VcmError: They are by name and the codec is of one task, or the other way round.
        """
        if isinstance(features, Mapping) == self.joint:
            return self.by_name(features)
        found = "a dict by task" if isinstance(features, Mapping) else type(features).__name__
        names = ", ".join(self.sent | self.received)
        raise VcmError(
            f"features are {found}; expected a dict by task, of {names}"
            if self.joint
            else f"features are {found}; expected an array, as this codec is of one task"
        )

    def bare(self, by_name: dict[str, Any]) -> Any:
        """Inverse of `by_name`."""
        return by_name if self.joint else by_name[""]

    @property
    def spatial(self) -> bool:
        """Whether the latent has positions."""
        return bool(self.size)

    @property
    def size(self) -> Size:
        """(H, W) of the first feature that has positions, as `shape` has it."""
        shapes = self._named(self.shape).values()
        return next((shape[:2] for shape in shapes if len(shape) == 3), ())

    def latent_size(self, size: Size | None = None) -> Size:
        """(h, w) of the latent, of features of `size`; () without positions."""
        return tuple(-(-n // self.stride) for n in (self.size if size is None else size))

    def check_size(self, size: Size | None) -> Size:
        """`size` that a user gives, None being that of `shape`, as integers.

        Raises:
          VcmError: It is none that features can have, or they have no positions.
        """
        try:
            chosen = self.size if size is None else _integers(size)
        except TypeError:
            chosen = None
        if chosen is None or len(chosen) != len(self.size):
            expected = "(H, W), two integers" if self.spatial else "None, as they have no positions"
            raise VcmError(f"size of the features is {size!r}; expected {expected}")
        for name, shape in (self.sent | self.received).items():
            if len(shape) == 3:
                check_positions(self._size(shape, chosen), self._stride(name, shape))
        return chosen

    def check_only(self, only: Any) -> tuple[str, ...]:
        """Names of tasks that a user gives.

        Raises:
          VcmError: A plain string, which is no list of names; a task that does not come back.
        """
        if isinstance(only, str) or not isinstance(only, Iterable):
            raise VcmError(f"only is {only!r}; expected a tuple of names, such as ({only!r},)")
        names = tuple(only)
        if unknown := [name for name in names if name not in self.received]:
            raise VcmError(f"only holds {unknown[0]!r}; expected of {', '.join(self.received)}")
        return names

    def size_of(self, features: Features) -> Size:
        """`size` of given features.

        Raises:
          VcmError: Their shapes are not those of `shape`, or do not go together.
        """
        given = self.given(features)
        expected = self._named(self.shape)
        if missing := expected.keys() - given.keys():
            raise VcmError(f"features lack {', '.join(sorted(missing))}")
        found: Size = ()
        for name, shape in expected.items():
            actual = check_shape(name, shape, given[name])
            if len(shape) == 3:
                found = found or actual[1:3]
                check_positions(actual[1:3], self._stride(name, shape))
                wanted = self._size(shape, found)
                if actual[1:3] != wanted:
                    raise VcmError(
                        f"features of {name} have size {actual[1:3]}; expected {wanted}, beside "
                        f"{found} of the first"
                    )
        return found

    # Parameters

    def init(self, analysis: jax.Array, synthesis: jax.Array) -> dict[str, Any]:
        """Parameters ``{"analysis", "synthesis"}`` of the keys; by task where there are several."""
        level = jnp.zeros((1,), jnp.float32)
        told = self._told(level, None)
        sent = {}
        for (name, shape), key in zip(
            self.sent.items(), self._keys(analysis, self.sent), strict=True
        ):
            sample = self._pad(name, shape, jnp.zeros((1, *shape), jnp.float32))
            sent[name] = layers.init(self._analysis(name, shape), key, sample, told)
        latent = jnp.zeros((1, *self.latent_size(), self.latent_channels), jnp.float32)
        back = {}
        for (name, shape), key in zip(
            self.received.items(), self._keys(synthesis, self.received), strict=True
        ):
            seen = self._for(shape, latent)
            back[name] = layers.init(self._synthesis(name, shape), key, seen, level)
        return {"analysis": self.bare(sent), "synthesis": self.bare(back)}

    def statistics(self, features: Features) -> Any:
        """Mean and deviation per channel of features (N, ...); by task where there are several.

        Of several, those that are given are measured: a branch that is added has its own alone.

        Raises:
          VcmError: They are of another shape.
        """
        given = self.given(features)
        named = self.sent | self.received
        measured = [name for name in named if name in given]
        for name in measured:
            check_shape(name, named[name], given[name])
        return self.bare({name: _statistics(given[name]) for name in measured})

    def identity(self) -> Any:
        """Statistics that change nothing."""
        named = self.sent | self.received
        none = {
            name: {
                "mean": jnp.zeros(shape[-1], jnp.float32),
                "scale": jnp.ones(shape[-1], jnp.float32),
            }
            for name, shape in named.items()
        }
        return self.bare(none)

    # Both maps

    def analyse(
        self,
        params: dict,
        features: Features,
        position: jax.Array,
        priority: jax.Array | None = None,
    ) -> jax.Array:
        """Φ: features to the latent (B, h, w, latent_channels), or (B, latent_channels).

        Args:
          params: With ``analysis`` and ``statistics``.
          features: As `shape` has it.
          position: (B,) rate level in [-1, 1].
          priority: (B, tasks that come back), the logarithm of each one's weight; None for zeros.
        """
        told = self._told(position, priority)
        size = self.latent_size(self.size_of(features))
        latents = []
        for name, shape in self.sent.items():
            of = functools.partial(self._part, name)
            fixed = jax.lax.stop_gradient(of(params["statistics"]))
            x = self._pad(name, shape, _normalised(of(features), fixed))
            latent: Any = self._analysis(name, shape).apply(of(params["analysis"]), x, told)
            if self.spatial and len(shape) == 1:
                latent = latent.reshape(len(latent), *self.latent_size(), -1)
                latent = _resized(latent, size)
            latents.append(latent)
        return jnp.concatenate(latents, axis=-1)

    def synthesise(
        self,
        params: dict,
        latent: jax.Array,
        position: jax.Array,
        size: Size,
        only: tuple[str, ...] = (),
    ) -> Features:
        """Ψ: the latent to features.

        Args:
          params: With ``synthesis`` and ``statistics``.
          latent: From `analyse`.
          position: (B,) rate level in [-1, 1].
          size: As `size_of` says of the features sent.
          only: Names of tasks; empty for all.
        """
        features = {}
        for name, shape in self.received.items():
            if only and name not in only:
                continue
            of = functools.partial(self._part, name)
            fixed = jax.lax.stop_gradient(of(params["statistics"]))
            seen = self._for(shape, latent)
            x: Any = self._synthesis(name, shape).apply(of(params["synthesis"]), seen, position)
            if len(shape) == 3:
                height, width = self._size(shape, size)
                x = x[:, :height, :width]
            scale, mean = (jnp.broadcast_to(fixed[of], x.shape) for of in ("scale", "mean"))
            features[name] = x * scale + mean
        return self.bare(features)

    def none(self, size: Size, only: tuple[str, ...] = ()) -> Features:
        """What `synthesise` gives for no image at all, on the host."""
        found = {
            name: np.zeros((0, *self._size(shape[:-1], size), shape[-1]), np.float32)
            for name, shape in self.received.items()
            if not only or name in only
        }
        return self.bare(found)

    # Parts

    def _named(self, shape: Any) -> dict[str, Shape]:
        return dict(shape) if self.joint else {"": shape}

    def _part(self, name: str, tree: Any) -> Any:
        return tree[name] if self.joint else tree

    def _keys(self, key: jax.Array, shapes: dict) -> list[jax.Array] | jax.Array:
        """One for each of several tasks; a single feature takes the key as it is."""
        return jax.random.split(key, len(shapes)) if self.joint else [key]

    def _told(self, position: jax.Array, priority: jax.Array | None) -> jax.Array:
        """What Φ is conditioned on: (B,), or (B, 1 + tasks that come back)."""
        if not self.prioritised:
            return position
        if priority is None:
            priority = jnp.zeros((len(position), len(self.received)), jnp.float32)
        return jnp.concatenate([position[:, None], jnp.asarray(priority, jnp.float32)], axis=1)

    def _stride(self, name: str, shape: Shape) -> int:
        """Positions of a feature per position of the latent."""
        if not self.spatial:
            raise VcmError(f"{name} has positions; expected a feature sent that has them too")
        strides = {self.stride * n / m for n, m in zip(shape[:2], self.size, strict=True)}
        stride = strides.pop()
        if strides or stride < 1 or not math.log2(stride).is_integer():
            raise VcmError(
                f"{name} has size {shape[:2]}; expected {self.size} times the same power of two, "
                f"and at least one position per position of the latent"
            )
        return int(stride)

    def _size(self, shape: Shape, size: Size) -> Size:
        """(H, W) of a feature of `shape`, the first with positions being of `size`; () for ()."""
        if len(shape) < 2:
            return ()
        of = zip(size, shape[:2], self.size, strict=True)
        return tuple(-(-n * own // first) for n, own, first in of)

    def _analysis(self, name: str, shape: Shape) -> Analysis | VectorAnalysis:
        channels = self.latent_channels // len(self.sent)
        if len(shape) == 3:
            return Analysis(channels, self._stride(name, shape), self.hidden)
        return VectorAnalysis(channels * math.prod(self.latent_size()), 2 * self.hidden)

    def _synthesis(self, name: str, shape: Shape) -> Synthesis | VectorSynthesis:
        if len(shape) == 3:
            return Synthesis(shape[-1], self._stride(name, shape), self.hidden)
        return VectorSynthesis(shape[-1], 2 * self.hidden)

    def _for(self, shape: Shape, latent: jax.Array) -> jax.Array:
        """What a branch of Ψ takes of the latent: for a vector all values of all positions."""
        if self.spatial and len(shape) == 1:
            return _resized(latent, self.latent_size()).reshape(len(latent), -1)
        return latent

    def _pad(self, name: str, shape: Shape, x: jax.Array) -> jax.Array:
        return pad_to_multiple(x, self._stride(name, shape)) if len(shape) == 3 else x


def named(shapes: Mapping[str, Shape] | Shape | Shapes) -> Shape | Shapes:
    """Shapes as `Transfer` holds them: hashable, in the order given.

    Raises:
      VcmError: They are neither a shape nor shapes by name, or hold something else than integers.
    """
    try:
        items: list[Any] = list(shapes.items() if isinstance(shapes, Mapping) else shapes)
        if isinstance(shapes, Mapping) or (items and not hasattr(items[0], "__index__")):
            return tuple((name, _integers(shape)) for name, shape in items)
        return _integers(items)
    except VcmError:
        raise
    except (TypeError, ValueError):
        raise VcmError(
            f"shape is {shapes!r}; expected (H, W, C) or (C,), or a dict of them by task"
        ) from None


def _integers(shape: Iterable[Any]) -> Shape:
    found = tuple(operator.index(n) for n in shape)
    if any(abs(n) >> 31 for n in found):  # which need not even be printable
        raise VcmError(
            f"shape or size holds a number beyond 2**31; expected {MOST_POSITIONS} at most "
            "(vcmjax.nets.transfer.MOST_POSITIONS)"
        )
    return found


def check_shape(name: str, shape: Shape, feature: Any) -> Shape:
    """The shape of a given feature, which must be (N, *`shape`), H and W being free.

    Raises:
      VcmError: It is another.
    """
    actual = tuple(np.shape(feature))
    if len(actual) == len(shape) + 1 and actual[-1] == shape[-1]:
        return actual
    of = f" of {name}" if name else ""
    raise VcmError(
        f"features{of} have shape {actual}; expected (N, {', '.join(map(str, shape))})"
        + (" with any H and W" if len(shape) == 3 else "")
        + ". PyTorch features are channels-first: transpose them."
    )


def check_positions(size: Size, stride: int) -> None:
    """Refuse features without positions, and those of more than `MOST_POSITIONS`.

    Raises:
      VcmError: Says what was found.
    """
    if min(size, default=1) < 1:
        raise VcmError(f"features have size {size}; expected at least 1 position each way")
    padded = math.prod(-(-n // stride) * stride for n in size)
    if padded > MOST_POSITIONS:
        raise VcmError(
            f"features have size {size}, which is {padded} positions in steps of the stride, "
            f"{stride}; expected {MOST_POSITIONS} at most (vcmjax.nets.transfer.MOST_POSITIONS)"
        )


def count(features: Features) -> int:
    """Number of images."""
    return len(jax.tree.leaves(features)[0])


def _statistics(features: Any) -> dict[str, jax.Array]:
    x = jnp.asarray(features, jnp.float32)
    axes = tuple(range(x.ndim - 1))
    deviation = jnp.std(x, axes)
    return {"mean": jnp.mean(x, axes), "scale": jnp.where(deviation > 1e-6, deviation, 1.0)}


def _normalised(features: Any, fixed: dict[str, jax.Array]) -> jax.Array:
    x = jnp.asarray(features, jnp.float32)
    return (x - jnp.broadcast_to(fixed["mean"], x.shape)) / jnp.broadcast_to(
        fixed["scale"], x.shape
    )


def _resized(latent: jax.Array, size: Size) -> jax.Array:
    if latent.shape[1:3] == tuple(size):
        return latent
    return jax.image.resize(latent, (len(latent), *size, latent.shape[-1]), "linear")
