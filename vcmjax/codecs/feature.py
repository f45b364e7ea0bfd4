"""The feature codec: transforms, entropy model and coder as pure functions of explicit parameters.

    feature ─ analysis ─ z ─── q = round(z - mean) ─── bytes ─── ẑ = q + mean ─ synthesis ─ feature
                         └─ hyperprior ─ v ─ round ─ v̂ ─ mean, scale ┘

One stream per image holds v̂ and then q, so that termination is paid once. The feature may be those
of several tasks, which then share the latent: see `nets.transfer`.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax import arrays
from vcmjax.codecs import arguments
from vcmjax.coding import range_coder, tables
from vcmjax.entropy import checkerboard, gaussian, integer
from vcmjax.entropy.codebook_hyperprior import CodebookHyperprior
from vcmjax.entropy.scale_hyperprior import ScaleHyperprior
from vcmjax.errors import CorruptStream, VcmError
from vcmjax.nets import layers, transfer
from vcmjax.nets.transfer import Features, Shape, Shapes, Size, Transfer
from vcmjax.rounding import add_noise, straight_through

Array = jax.Array | np.ndarray
LEVELS = 256
"""Rate levels of a conditioned model: λ travels as one byte."""
LARGEST = 1 << 30
"""Quantisation steps that a symbol may be from 0. The coder's escape codes hold any int32, from
which the offset of a table is still to be taken: half of their range, whatever the table."""
_BEYOND = -(1 << 31)
"""Stands for a symbol that is farther, or no number."""
_CHUNK, _POSITIONS = 32, 1 << 14
"""Images coded at once: 32, or as many as have this many feature positions, which bounds memory."""
_SIDE_RANGE = 64
_SIDE_GAIN_BITS = 3


class Output(NamedTuple):
    """What `FeatureCodec.apply` returns: a reconstruction and what it cost, in bits per image."""

    feature: Features
    latent_bits: jax.Array
    side_bits: jax.Array

    @property
    def bits(self) -> jax.Array:
        """Bits of each image, side information included: (B,)."""
        return self.latent_bits + self.side_bits


class Symbols(NamedTuple):
    """The integers of a batch, and what the decoder will make of them."""

    side: jax.Array
    latent: jax.Array
    output: Output


class Tables(NamedTuple):
    """All that decides which bytes mean which symbols: integers, frozen from trained parameters.

    Attributes:
      cdf: The tables of the range coder.
      offsets: (k,) the integer that symbol 0 of each table stands for.
      side_index: (levels, side) table of each channel of the side symbols.
      scales: From side symbols to the table of each latent symbol.
    """

    cdf: tables.CdfTables
    offsets: np.ndarray
    side_index: np.ndarray
    scales: integer.ScaleNetwork


@dataclasses.dataclass(frozen=True)
class FeatureCodec:
    """Hyper-parameters of a codec; holds no arrays. Every method is a pure function.

    Attributes:
      shape: Feature shape (H, W, C), or (C,) for a vector. H and W may differ when coding. A dict
        of them by task codes the features of all those tasks as one stream.
      prior: ``codebook`` (CVR), ``spatial`` (Ballé/Minnen 2018), or None for the Control Group,
        which has the same transforms, no quantisation and no rate.
      lams: Least and greatest λ of the conditioned model; equal for a model of one λ.
      latent_channels: Channels of the latent, shared evenly by the tasks of `shape`.
      stride: Feature positions per latent position along a side, a power of two; see `Transfer`.
      hidden: Channels of the transforms' hidden layers.
      side: Length of v, or channels of the spatial hyper-latent.
      outputs: Shapes by task of the features that come back; empty for those of `shape`. Others
        among them are restored from what is sent for `shape`.
      prioritised: Whether one model serves any priorities among its tasks: see `encode`.
      context: Whether half of the latent is predicted from the other half as well, see
        `vcmjax.entropy.checkerboard`.
    """

    shape: Shape | Shapes | Mapping[str, Shape]
    prior: Literal["codebook", "spatial"] | None = "codebook"
    lams: tuple[float, float] = (0.01, 1.0)
    latent_channels: int = 64
    stride: int = 4
    hidden: int = 64
    side: int = 16
    outputs: Shapes | Mapping[str, Shape] = ()
    prioritised: bool = False
    context: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, before any array exists."""
        object.__setattr__(self, "shape", transfer.named(self.shape))
        object.__setattr__(self, "outputs", transfer.named(self.outputs))
        for name in ("latent_channels", "stride", "hidden", "side"):
            object.__setattr__(self, name, arguments.count(name, getattr(self, name)))
        for name in ("prioritised", "context"):
            if not isinstance(getattr(self, name), bool):
                raise VcmError(f"{name} is {getattr(self, name)!r}; expected True or False")
        object.__setattr__(self, "lams", arguments.range_of(self.lams))
        self.transfer  # noqa: B018 - which refuses shapes, strides and channels
        if self.prior not in ("codebook", "spatial", None):
            raise VcmError(f"prior is {self.prior!r}; expected 'codebook', 'spatial' or None")
        if self.prior == "spatial" and not self.spatial:
            raise VcmError("a vector has no positions for prior='spatial'; use prior='codebook'")
        if self.context and not (self.prior and self.spatial):
            raise VcmError("context needs a prior, and a latent that has positions")

    @functools.cached_property
    def transfer(self) -> Transfer:
        """Both transforms."""
        return Transfer(
            self.shape,  # type: ignore[arg-type]
            self.outputs,  # type: ignore[arg-type]
            self.latent_channels,
            self.stride,
            self.hidden,
            self.prioritised,
        )

    @property
    def spatial(self) -> bool:
        """Whether the latent has positions."""
        return self.transfer.spatial

    # Parameters

    def init(self, key: jax.Array, features: Features | None = None) -> dict:
        """Parameters ``{"statistics", "analysis", "synthesis", "prior"}``, and ``"context"``.

        With several tasks each of the first three is a dict by task.

        Args:
          key: PRNG key.
          features: (N, *shape) examples, of `outputs` as well, whose mean and deviation per channel
            normalise every input; without them inputs are taken as they come.

        Raises:
          VcmError: Features of another shape; a fork of a process that has used JAX.
        """
        arrays.check_process()
        keys = jax.random.split(key, 3)
        of = self.transfer
        statistics = of.identity() if features is None else self.statistics(features)
        params: dict[str, Any] = {"statistics": statistics, **of.init(keys[0], keys[1])}
        if self.prior:
            latent = jnp.zeros((1, *of.latent_size(), self.latent_channels), jnp.float32)
            level = jnp.zeros((1,), jnp.float32)
            params["prior"] = layers.init(self._prior, keys[2], latent, level)
            if self.context:
                key = jax.random.fold_in(keys[2], 0)
                params["context"] = layers.init(
                    self._checkerboard, key, latent, latent, latent, level
                )
        return params

    def statistics(self, features: Features) -> Any:
        """Mean and deviation per channel of features (N, *shape), as `init` keeps them.

        Raises:
          VcmError: Those of a task, sent or received, are missing, or of another shape.
        """
        self.transfer.size_of(features)
        named = self.transfer.sent | self.transfer.received
        if missing := named.keys() - self.transfer.given(features).keys():
            raise VcmError(f"features lack {', '.join(sorted(missing))}")
        return self.transfer.statistics(features)

    @property
    def levels(self) -> int:
        """Number of rate levels: 256, or 1 for a model of one λ."""
        return 1 if self.lams[0] == self.lams[1] else LEVELS

    def level_of(self, lam: float | np.ndarray) -> np.ndarray:
        """Nearest rate level 0..255 of λ, which must lie in `lams`; int array.

        Raises:
          VcmError: A λ is outside, or no number.
        """
        low, high = self.lams
        given = arguments.numbers("lam", lam)
        if given.dtype == bool:
            raise VcmError(f"lam is {lam}; expected numbers of {low:g} to {high:g}")
        value = given.astype(np.float64)
        outside = ~((value >= low * (1 - 1e-6)) & (value <= high * (1 + 1e-6)))
        if outside.any():
            raise VcmError(f"lam is {value[outside][0]}; this model covers {low:g} to {high:g}")
        if self.levels == 1:
            return np.zeros(value.shape, np.int32)
        return np.rint((LEVELS - 1) * np.log(value / low) / np.log(high / low)).astype(np.int32)

    def lam_of(self, level: int | np.ndarray) -> np.ndarray:
        """λ of a rate level; inverse of `level_of`."""
        low, high = self.lams
        return low * (high / low) ** (np.asarray(level) / (LEVELS - 1))

    # Training and estimates

    def apply(
        self,
        params: dict,
        key: jax.Array,
        features: Features,
        lam: Array | float,
        priority: jax.Array | None = None,
    ) -> Output:
        """The differentiable model: noise for the rate, straight-through for the reconstruction.

        Args:
          params: From `init`.
          key: PRNG key for the noise, or (B,) keys, one per image, whose noise then does not
            depend on the rest of the batch.
          features: (B, *shape); H and W may differ from `shape`.
          lam: λ, a scalar or (B,), within `lams`.
          priority: (B, tasks that come back) of a codec that is `prioritised`, see `encode`.
        """
        size, count = self.transfer.size_of(features), transfer.count(features)
        level = self._position(jnp.broadcast_to(jnp.asarray(lam, jnp.float32), (count,)))
        latent = self.transfer.analyse(params, features, level, priority)
        if not self.prior:
            none = jnp.zeros(count, jnp.float32)
            return Output(self.transfer.synthesise(params, latent, level, size), none, none)
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # of jax.random.PRNGKey
            key = jax.random.wrap_key_data(key)
        keys = key if key.ndim else jax.random.split(key, count)
        side_key, latent_key = jax.vmap(jax.random.split, out_axes=1)(keys)
        noisy = jax.vmap(add_noise)
        v = self._call(params, "analyse", latent, level)
        side_bits = self._call(params, "side_bits", noisy(side_key, v), level)
        rounded_v, of = straight_through(v), latent.shape[1:-1]
        mean, log_scale = self._call(params, "predict", rounded_v, level, of)
        mean, scale = self._in_context(
            params, straight_through(latent - mean), mean, log_scale, level
        )
        latent_bits = gaussian.bits(noisy(latent_key, latent - mean), scale)
        rounded = straight_through(latent - mean) + mean
        feature = self.transfer.synthesise(params, rounded, level, size)
        return Output(feature, _per_image(latent_bits), _per_image(side_bits))

    @functools.partial(jax.jit, static_argnums=0)
    def quantise(
        self,
        params: dict,
        features: Features,
        level: jax.Array,
        priority: jax.Array | None = None,
    ) -> Symbols:
        """The evaluation-mode model: integers, their estimated bits, and the reconstruction.

        What is no number, or beyond ±`LARGEST`, becomes the least int32, which `write` refuses.

        Args:
          params: From `init`, of a codec that has a prior.
          features: (B, *shape).
          level: int (B,), rate levels.
          priority: (B, tasks that come back) of a codec that is `prioritised`, see `encode`.
        """
        position = self._from_level(level)
        latent = self.transfer.analyse(params, features, position, priority)
        side = jnp.round(self._call(params, "analyse", latent, position))
        mean, log_scale = self._call(params, "predict", side, position, latent.shape[1:-1])
        mean, _ = self._in_context(params, jnp.round(latent - mean), mean, log_scale, position)
        q = jnp.round(latent - mean)
        output = self.restore(params, side, q, level, self.transfer.size_of(features))
        return Symbols(_int32(side), _int32(q), output)

    @functools.partial(jax.jit, static_argnums=(0, 5))
    def restore(
        self, params: dict, side: jax.Array, q: jax.Array, level: jax.Array, size: Size
    ) -> Output:
        """What symbols mean and cost; differentiable in `q` given as floats.

        Args:
          params: From `init`.
          side: Integers as in `Symbols`.
          q: Integers as in `Symbols.latent`.
          level: int (B,), rate levels.
          size: (H, W) of the features, see `Transfer.size_of`.
        """
        position, q = self._from_level(level), jnp.asarray(q, jnp.float32)
        mean, scale = self.predict(params, side, q, level)
        return Output(
            self.transfer.synthesise(params, q + mean, position, size),
            _per_image(gaussian.bits(q, scale)),
            _per_image(self._call(params, "side_bits", jnp.asarray(side, jnp.float32), position)),
        )

    def predict(
        self, params: dict, side: jax.Array, q: jax.Array, level: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and scale of each latent, shape of `q`; arguments as in `restore`."""
        position, size = self._from_level(level), q.shape[1:-1]
        side, q = jnp.asarray(side, jnp.float32), jnp.asarray(q, jnp.float32)
        mean, log_scale = self._call(params, "predict", side, position, size)
        return self._in_context(params, q, mean, log_scale, position)

    # Bytes

    def tables(self, params: dict) -> Tables:
        """Integer tables frozen from `params`: once, on the host; see `Tables`.

        The sixty-four Gaussians come first; for the spatial prior the densities of each rate
        level and channel follow.

        Raises:
          VcmError: Parameters that have diverged; a codec without prior; a fork of a process that
            has used JAX.
        """
        arrays.check_process()
        rows, offsets = tables.gaussian(gaussian.SCALES)
        levels = np.arange(self.levels)
        positions = self._from_level(jnp.asarray(levels))
        if self.prior == "codebook":
            log_scale = np.log(self._call(params, "side_scale", positions))
            side_index = np.searchsorted(gaussian.LOG_THRESHOLDS, log_scale)
        else:
            grid = np.arange(-_SIDE_RANGE, _SIDE_RANGE + 1)
            w = jnp.tile(jnp.asarray(grid, jnp.float32), len(levels))[:, None]
            w = jnp.broadcast_to(w, (w.shape[0], self.side))
            bits = self._call(params, "side_bits", w, jnp.repeat(positions, len(grid)))
            mass = np.exp2(-np.asarray(bits, np.float64))
            mass = mass.reshape(len(levels), len(grid), self.side).transpose(0, 2, 1)
            ranges = [_likely(pmf) for pmf in mass.reshape(-1, len(grid))]
            inside = [pmf[r] for pmf, r in zip(mass.reshape(-1, len(grid)), ranges, strict=True)]
            tails = [max(1.0 - pmf.sum(), 0.0) for pmf in inside]
            rows = [*rows, *tables.from_pmf_rows(inside, tails)]
            offsets = np.concatenate([offsets, [grid[r.start] for r in ranges]])
            side_index = len(gaussian.SCALES) + np.arange(len(ranges)).reshape(-1, self.side)
        exact = np.asarray(positions, np.float64)
        steps = self._prior.integer_steps(params["prior"], exact)
        context: tuple[integer.Step, ...] = ()
        if self.context:
            context = self._checkerboard.integer_steps(params["context"], exact)
        integer.check(steps + context)
        thresholds = integer.rounded(gaussian.LOG_THRESHOLDS, integer.FRACTION)
        return Tables(
            tables.CdfTables.from_rows(rows),
            offsets.astype(np.int32),
            np.asarray(side_index, np.int32),
            integer.ScaleNetwork(_SIDE_GAIN_BITS, steps, thresholds, context),
        )

    def encode(
        self,
        params: dict,
        frozen: Tables,
        features: Features,
        lam: float | np.ndarray,
        priority: np.ndarray | None = None,
    ) -> list[bytes]:
        """One byte string per image.

        Args:
          params: From `init`, trained.
          frozen: From `tables(params)`.
          features: (N, *shape), finite in float32, and not so great that a symbol is beyond
            ±`LARGEST` or the reconstruction beyond float32.
          lam: λ, a scalar or (N,), within `lams`; the decoder must be told it.
          priority: (N, tasks that come back) of a codec that is `prioritised`: the logarithm of
            each task's weight, 0 where it matters as much as others. The decoder need not know.

        Raises:
          VcmError: Features of another shape or type, not finite, or too great; λ out of range;
            priorities of another shape, or of a codec that takes none; a fork of a process that
            has used JAX.
        """
        arrays.check_process()
        features = self._features(features)
        size, count = self.transfer.size_of(features), transfer.count(features)
        levels, priority = self.levels_of(lam, count), self._priority(priority, count)
        streams: list[bytes] = []
        leaves, form = jax.tree.flatten((features, priority))
        for level, *chunk in _chunks(_images_at_once(size), levels, *leaves):
            part, told = jax.tree.unflatten(form, chunk)
            symbols = self.quantise(params, part, level, told)
            _refuse_beyond(symbols, part, len(streams))
            streams += self.write(frozen, symbols.side, symbols.latent, level)
        return streams[:count]

    def write(
        self,
        frozen: Tables,
        side: Array,
        latent: Array,
        level: Array,
        coder: ModuleType = range_coder,
    ) -> list[bytes]:
        """The bytes of symbols as `quantise` or `refine.refine` gives them: integers alone.

        `coder` is `coding.range_coder` or `coding.tfc`, which write the same.

        Raises:
          VcmError: A symbol is beyond ±`LARGEST`; a level that the codec does not have.
        """
        side, latent = np.asarray(side), np.asarray(latent)
        level = self._checked_level(level, len(side))
        for symbols in (side, latent):
            if bad := _first_beyond(symbols):
                raise VcmError(
                    f"a symbol of image {bad[0]} is {bad[1]}; the coder holds ±{LARGEST} at most"
                )
        streams: list[bytes] = []
        of = _images_at_once(tuple(self.stride * n for n in latent.shape[1:-1]))
        for s, q, at in _chunks(of, side, latent, level):
            streams += coder.encode_batch(*_coded(frozen, s, q, at), frozen.cdf)
        return streams[: len(side)]

    def read(
        self,
        frozen: Tables,
        streams: Sequence[bytes],
        level: np.ndarray,
        size: Size | None = None,
        coder: ModuleType = range_coder,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The symbols (side, latent) that `write` was given: integers alone, no parameters.

        No float of any device takes part, so the symbols are the same wherever they are read.

        Args:
          frozen: As given to `write`.
          streams: From `write`.
          level: int (N,), rate levels.
          size: (H, W) of the features, where they are not those of `shape`.
          coder: As of `write`.

        Raises:
          CorruptStream: A stream no encoder can have written.
          VcmError: Anything but a list of byte strings; a size or level that the codec does not
            have.
        """
        streams = arguments.byte_strings(streams)
        level = self._checked_level(level, len(streams))
        latent_size = self.transfer.latent_size(self.transfer.check_size(size))
        side_shape = self.side_shape(latent_size)
        decoder = coder.BatchDecoder(streams, frozen.cdf)

        def symbols(index: np.ndarray) -> np.ndarray:
            flat = _flat(index)
            found = decoder.read(flat).astype(np.int64) + frozen.offsets[flat]
            if bad := _first_beyond(found):
                raise CorruptStream(
                    f"stream {bad[0]}: a symbol is {bad[1]}; no encoder writes beyond ±{LARGEST}"
                )
            return found.astype(np.int32).reshape(index.shape)

        side = symbols(_side_index(frozen, level, (len(streams), *side_shape)))
        scales = frozen.scales
        log_scales = scales.log_scales(side, level, latent_size)
        if not scales.context:
            return side, symbols(scales.indexes(log_scales))
        latent = np.zeros(log_scales.shape, np.int32)
        flat = latent.reshape(len(latent), -1)
        first, then = checkerboard.order(latent.shape[1:])
        flat[:, first] = symbols(_flat(scales.indexes(log_scales))[:, first])
        anchor = checkerboard.anchors(*latent_size)
        log_scales = scales.in_context(log_scales, latent, anchor, level)
        flat[:, then] = symbols(_flat(scales.indexes(log_scales))[:, then])
        return side, latent

    def side_shape(self, latent_size: Size) -> Shape:
        """Shape of one image's side symbols, beside a latent of (h, w), or () without positions."""
        return self._prior.side_shape(latent_size)

    def ideal_bits(
        self,
        frozen: Tables,
        streams: Sequence[bytes],
        level: np.ndarray,
        size: Size | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bits that the tables ask for, of side and of latent symbols: (N,) each.

        Arguments and errors as of `read`. A stream's length exceeds their sum by its termination.
        """
        side, latent = self.read(frozen, streams, level, size)
        level = self._checked_level(level, len(side))
        bits = tables.ideal_bits(*_coded(frozen, side, latent, level), frozen.cdf)
        of_side, of_latent = np.split(bits, [_flat(side).shape[1]], axis=1)
        return of_side.sum(1), of_latent.sum(1)

    def decode(
        self,
        params: dict,
        frozen: Tables,
        streams: Sequence[bytes],
        lam: float | np.ndarray,
        size: Size | None = None,
        coder: ModuleType = range_coder,
        only: tuple[str, ...] = (),
    ) -> Features:
        """The features (N, *shape) that `encode` meant; its evaluation-mode reconstruction.

        Args:
          params: As given to `encode`.
          frozen: As given to `encode`.
          streams: From `encode`.
          lam: As given to `encode`.
          size: (H, W) of the features, where they are not those of `shape`; of the first that has
            them, where there are several.
          coder: As of `write`.
          only: Of several tasks, those whose features are wanted; empty for all.

        Raises:
          CorruptStream: A stream no encoder can have written.
          VcmError: Anything but a list of byte strings; λ out of range; a size that the features
            cannot have; a task in `only` that does not come back; a fork of a process that has
            used JAX.
        """
        arrays.check_process()
        streams, of = arguments.byte_strings(streams), self.transfer.check_size(size)
        count, only = len(streams), self.transfer.check_only(only)
        levels = self.levels_of(lam, count)
        parts = [self.transfer.none(of, only)]
        for rows, level in _chunks(_images_at_once(of), np.arange(count), levels):
            side, q = self.read(frozen, [streams[i] for i in rows], level, of, coder)
            parts.append(self._reconstruct(params, side, q, level, of, only))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)

    # The parts

    def _features(self, features: Features) -> Features:
        """What is sent of the given features, float32."""
        given = self.transfer.given(features)
        found = {
            name: arguments.as_float(f"features of {name}" if name else "features", given[name])
            for name in self.transfer.sent
            if name in given
        }
        self.transfer.size_of(self.transfer.bare(found))
        counts = [len(each) for each in found.values()]
        if len(set(counts)) > 1:
            raise VcmError(f"features of {counts} images; expected as many")
        for name, each in found.items():
            arguments.refuse_infinite(each, given[name])
        return self.transfer.bare(found)

    def _priority(self, priority: Any, count: int) -> np.ndarray | None:
        if priority is None:
            return None
        found, shape = (
            arguments.as_float("priority", priority),
            (count, len(self.transfer.received)),
        )
        if not self.prioritised or found.shape != shape:
            expected = shape if self.prioritised else "none: this codec was trained without"
            raise VcmError(f"priority has shape {found.shape}; expected {expected}")
        if not np.isfinite(found).all():
            raise VcmError("priority holds NaN or infinity; expected logarithms of weights")
        return found

    @property
    def _prior(self) -> CodebookHyperprior | ScaleHyperprior:
        if self.prior is None:
            raise VcmError("prior is None: the Control Group has no bytes; expected another codec")
        if self.prior == "spatial":
            return ScaleHyperprior(self.latent_channels, self.side)
        size = self.transfer.latent_size() or (1, 1)
        return CodebookHyperprior(
            self.latent_channels, self.spatial, self.side, codebook_size=(size[0], size[1])
        )

    @property
    def _checkerboard(self) -> checkerboard.Checkerboard:
        return checkerboard.Checkerboard(self.latent_channels)

    def _call(self, params: dict, method: str, *args):
        return self._prior.apply(params["prior"], *args, method=method)

    def _in_context(self, params, q, mean, log_scale, position):
        """Mean and scale of the latent by its anchors in `q` as well, where the codec has those."""
        scale = gaussian.bounded_scale(log_scale)
        if not self.context:
            return mean, scale
        # Within the grid: left alone, a log-scale may lie far below it, and is hard to correct.
        mean, log_scale = self._checkerboard.apply(
            params["context"], q, mean, jnp.log(scale), position
        )
        return mean, gaussian.bounded_scale(log_scale)

    def _position(self, lam: jax.Array) -> jax.Array:
        """λ to the networks' input in [-1, 1]; 0 for a model of one λ."""
        low, high = self.lams
        if low == high:
            return jnp.zeros_like(lam)
        return 2.0 * jnp.log(lam / low) / math.log(high / low) - 1.0

    def _from_level(self, level: jax.Array) -> jax.Array:
        if self.lams[0] == self.lams[1]:
            return jnp.zeros(level.shape, jnp.float32)
        return 2.0 * level.astype(jnp.float32) / (LEVELS - 1) - 1.0

    @functools.partial(jax.jit, static_argnums=(0, 5, 6))
    def _reconstruct(self, params, side, q, level, size, only):
        position, q = self._from_level(level), jnp.asarray(q, jnp.float32)
        mean, _ = self.predict(params, side, q, level)
        return self.transfer.synthesise(params, q + mean, position, size, only)

    def levels_of(self, lam: float | np.ndarray, count: int) -> np.ndarray:
        """Rate level of each of `count` images, int32; raises as `level_of` does."""
        level = self.level_of(lam)
        if level.shape not in ((), (1,), (count,)):
            raise VcmError(f"lam has shape {level.shape}; expected a number, or ({count},)")
        return np.broadcast_to(level, (count,)).astype(np.int32)

    def _checked_level(self, level: Any, count: int) -> np.ndarray:
        found = np.asarray(level)
        if found.shape != (count,) or found.dtype.kind not in "iu":
            raise VcmError(f"level is {found.dtype} {found.shape}; expected integers ({count},)")
        if found.size and not 0 <= found.min() <= found.max() < self.levels:
            raise VcmError(f"level is {found}; this codec has those of 0 to {self.levels - 1}")
        return found.astype(np.int32)


def _int32(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(x) <= LARGEST, x, float(_BEYOND)).astype(jnp.int32)


@jax.jit
def _codable(symbols: Symbols) -> jax.Array:
    """(B,): whether the coder holds all symbols, and float32 what they stand for."""
    good = [x != _BEYOND for x in (symbols.side, symbols.latent)]
    good += [jnp.isfinite(x) for x in jax.tree.leaves(symbols.output.feature)]
    return jnp.stack([x.reshape(len(x), -1).all(1) for x in good]).all(0)


def _refuse_beyond(symbols: Symbols, features: Features, first: int) -> None:
    """Refuse symbols of features the first of which has number `first`."""
    good = np.asarray(_codable(symbols))
    if not good.all():
        bad = int(np.flatnonzero(~good)[0])
        reach = max(float(np.abs(leaf[bad]).max()) for leaf in jax.tree.leaves(features))
        raise VcmError(
            f"features[{first + bad}] reach {reach:.4g}, far from what the codec was trained on; "
            f"expected a latent within ±{LARGEST} quantisation steps, the coder's range, and a "
            "reconstruction within that of float32"
        )


def _first_beyond(symbols: np.ndarray) -> tuple[int, int] | None:
    """Image and value of the first symbol that the coder does not hold."""
    if not symbols.size or (symbols.min() >= -LARGEST and symbols.max() <= LARGEST):
        return None
    at = np.argwhere((symbols < -LARGEST) | (symbols > LARGEST))[0]
    return int(at[0]), int(symbols[tuple(at)])


def _images_at_once(size: tuple[int, ...]) -> int:
    return max(1, min(_CHUNK, _POSITIONS // math.prod(size)))


def _chunks(of: int, *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Chunks `of` rows, the last filled up with copies: the same program for any batch."""
    for start in range(0, len(arrays[0]), of):
        part = [a[start : start + of] for a in arrays]
        short = of - len(part[0])
        yield [np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) for a in part]


def _per_image(bits: jax.Array) -> jax.Array:
    return bits.reshape(bits.shape[0], -1).sum(1)


def _coded(
    frozen: Tables, side: np.ndarray, latent: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Symbols as the coder takes them, side first, and the table of each: (N, n) both."""
    scales, shape = frozen.scales, latent.shape[1:]
    log_scales = scales.log_scales(side, level, shape[:-1])
    if scales.context:
        anchor = checkerboard.anchors(*shape[:2])
        log_scales = scales.in_context(log_scales, latent, anchor, level)
    of_latent, index = _flat(latent), _flat(scales.indexes(log_scales))
    if scales.context:
        order = np.concatenate(checkerboard.order(shape))
        of_latent, index = of_latent[:, order], index[:, order]
    used = np.concatenate([_flat(_side_index(frozen, level, side.shape)), index], axis=1)
    symbols = np.concatenate([_flat(side), of_latent], axis=1).astype(np.int64)
    return symbols - frozen.offsets[used], used  # of no int32: refused there, not wrapped here


def _side_index(frozen: Tables, level: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Table of each side symbol; `shape` is theirs."""
    index = frozen.side_index[level]
    return np.broadcast_to(index.reshape(len(index), *(1,) * (len(shape) - 2), -1), shape)


def _likely(pmf: np.ndarray) -> slice:
    """The range outside which masses are below what a 16-bit table can tell from an escape."""
    kept = np.flatnonzero(pmf > 2.0**-17)
    return slice(kept[0], kept[-1] + 1) if len(kept) else slice(_SIDE_RANGE, _SIDE_RANGE + 1)


def _flat(x) -> np.ndarray:
    return np.asarray(x, np.int32).reshape(len(x), -1)
