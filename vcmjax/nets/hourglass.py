"""The released Taskonomy networks: a ResNet-50-like encoder, and a decoder per task.

    image (B, H, W, 3) ── encoder ── feature (B, H/16, W/16, 8) ── head ── output

At 256×256 the feature is 16×16×8. Weights are those of the PyTorch release after its batch
norms have been folded into the convolutions before them, which changes nothing in evaluation
mode (`vcmjax.torch_weights`). What differs from a usual ResNet is the release's own: the stride
sits in the last block of a stage, its shortcut drops every other pixel, and the first pooling
counts a partial window at the right and lower edge.

Source: Zamir et al. 2018, *Taskonomy*, arXiv:1804.08328; Sax et al. 2018 (PyTorch port, package
``visualpriors``).
"""

import math
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vcmjax.errors import UsageError
from vcmjax.nets import layers
from vcmjax.nets.layers import upsample
from vcmjax.tasks import Task

CHANNELS = 8
"""Channels of the bottleneck feature."""
STRIDE = 16
"""Image pixels per feature position, along each side."""
SIZE = 256
"""Image side at which the networks were trained; heads with a dense layer accept no other."""


class Hourglass(NamedTuple):
    """The two halves of a task network, as Flax modules that hold no parameters.

    Attributes:
      name: The release's, such as ``normal``; ``small`` for those of `nets.small_hourglass`.
      encoder: Image (B, H, W, 3) in [0, 1] to feature (B, H/stride, W/stride, 8).
      head: Feature to logits (B, classes) or output (B, h, w, channels).
      stride: Image pixels per feature position, along each side.
      output_stride: Image pixels per position of a pixel head's output.
      scale: With `shift`, from the head's own range to that of the labels, per output channel.
      shift: See `scale`.
    """

    name: str
    encoder: nn.Module
    head: nn.Module
    stride: int
    output_stride: int
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    def init(self, key: jax.Array, size: int = 128) -> dict:
        """Random parameters ``{"encoder": ..., "head": ...}`` for images of `size` pixels."""
        encoder_key, head_key = jax.random.split(key)
        encoder = layers.init(self.encoder, encoder_key, jnp.zeros((1, size, size, 3), jnp.float32))
        side = size // self.stride
        feature = jnp.zeros((1, side, side, CHANNELS), jnp.float32)
        return {"encoder": encoder, "head": layers.init(self.head, head_key, feature)}

    def encode(self, params: dict, image: jax.Array | np.ndarray, dtype: Any = None) -> jax.Array:
        """uint8 image (B, H, W, 3) to float32 feature (B, H/stride, W/stride, 8).

        Args:
          params: From `init`, or trained.
          image: H and W multiples of `stride`.
          dtype: To compute in, e.g. ``jnp.bfloat16``; None for float32.
        """
        inputs = jnp.asarray(image, jnp.float32) / 255.0
        return _applied(self.encoder, params["encoder"], inputs, dtype)

    def decode(self, params: dict, feature: jax.Array, dtype: Any = None) -> jax.Array:
        """Feature to float32 logits (B, classes), or output (B, h, w, channels) as labels are."""
        output = _applied(self.head, params["head"], feature, dtype)
        if self.scale == (1.0,) and self.shift == (0.0,):
            return output
        scale, shift = (
            jnp.broadcast_to(jnp.asarray(each, jnp.float32), output.shape)
            for each in (self.scale, self.shift)
        )
        return output * scale + shift


def _applied(module: nn.Module, params: Any, inputs: jax.Array, dtype: Any) -> jax.Array:
    if dtype is not None:
        params, inputs = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, inputs))
    return jnp.asarray(module.apply(params, inputs)).astype(jnp.float32)


class Head(NamedTuple):
    """The decoder that was released for a task, by what tells one from another.

    Attributes:
      kind: ``pixels`` (convolutional) or ``mlp``; None where only the encoder was released.
      channels: Of the output.
      tanh: Whether the output ends in tanh.
      scale: See `Hourglass.scale`.
      shift: See `Hourglass.scale`.
    """

    kind: Literal["pixels", "mlp"] | None
    channels: int = 0
    tanh: bool = True
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)


def _half(channels: int) -> Head:
    """Labels in [0, 1], on which the release trains as [-1, 1]."""
    return Head("pixels", channels, scale=(0.5,), shift=(0.5,))


RELEASED = {
    "autoencoding": _half(3),
    "class_object": Head("mlp", 1000, tanh=False),
    "class_scene": Head("mlp", 63, tanh=False),
    "colorization": Head(None),
    # Trained on codes less (123.572, 120.1) over (31.922, 21.658); a label is (code − 127)/127.
    "curvature": Head(
        "pixels",
        2,
        scale=(31.922 / 127, 21.658 / 127),
        shift=((123.572 - 127) / 127, (120.1 - 127) / 127),
    ),
    "denoising": _half(3),
    "depth_euclidean": Head("pixels", 1),
    "depth_zbuffer": Head("pixels", 1),
    "edge_occlusion": _half(1),
    "edge_texture": _half(1),
    "egomotion": Head(None),
    "fixated_pose": Head(None),
    "inpainting": _half(3),
    "jigsaw": Head(None),
    "keypoints2d": _half(1),
    "keypoints3d": _half(1),
    "nonfixated_pose": Head(None),
    "normal": Head("pixels", 3),
    "point_matching": Head(None),
    "reshading": _half(1),
    "room_layout": Head(None),
    "segment_semantic": Head("pixels", 17, tanh=False),
    "segment_unsup25d": Head("pixels", 64),
    "segment_unsup2d": Head("pixels", 64),
    "vanishing_point": Head(None),
}
"""Every network of the PyTorch release by its name there; ours differs only in curvature's."""

_NAMES = {"principal_curvature": "curvature"}
_LOG_DEPTH = ("depth_euclidean", "depth_zbuffer")


def release_name(task: str) -> str:
    """The release's name of a Taskonomy domain."""
    return _NAMES.get(task, task)


def released(name: str) -> Hourglass:
    """The network of the release called `name`.

    Raises:
      UsageError: No such network, or one of which only the encoder was released.
    """
    head = RELEASED.get(name)
    if head is None or head.kind is None:
        known = ", ".join(sorted(n for n, h in RELEASED.items() if h.kind))
        raise UsageError(f"no released Taskonomy decoder for {name!r}; expected one of {known}.")
    decoder = MLPHead(head.channels) if head.kind == "mlp" else PixelHead(head.channels, head.tanh)
    return Hourglass(name, Encoder(), decoder, STRIDE, 1, head.scale, head.shift)


def hourglass(task: Task) -> Hourglass:
    """The released network that predicts the labels of `task`.

    Raises:
      UsageError: None was released; it has another number of outputs than the task's labels; or
        it predicts depth, whose logarithmic scale the labels here do not have.
    """
    name = release_name(task.name)
    if name in _LOG_DEPTH:
        raise UsageError(f"{task.name}: the released network predicts a logarithm of depth; "
                         "labels here are metres. Choose another task.")  # fmt: skip
    network = released(name)
    if RELEASED[name].channels != task.channels:
        raise UsageError(
            f"{task.name}: the released network has {RELEASED[name].channels} outputs; expected "
            f"the {task.channels} of the data's labels. Check the data's class lists."
        )
    return network


class Encoder(nn.Module):
    """Image (B, H, W, 3) in [0, 1] to feature (B, H/16, W/16, 8), non-negative."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Encode; other sides than multiples of 16 are cut or filled as in the release."""
        x = nn.relu(_conv(64, 7, 2, "conv1")(image * 2.0 - 1.0))
        edges = [(0, 2 * math.ceil((n - 3) / 2) + 3 - n) for n in x.shape[1:3]]
        x = nn.max_pool(x, (3, 3), (2, 2), [(low, max(high, 0)) for low, high in edges])
        for stage, (width, blocks, stride) in enumerate(
            ((64, 3, 2), (128, 4, 2), (256, 6, 1), (512, 3, 1)), 1
        ):
            for block in range(blocks):
                last = block == blocks - 1
                name = f"layer{stage}_{block}"
                x = Bottleneck(width, stride if last else 1, name=name)(x)
        return nn.relu(_conv(CHANNELS, 3, 1, "compress1")(x))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions and a shortcut: (B, H, W, C) to (B, H/s, W/s, 4·width)."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the block."""
        h = nn.relu(_conv(self.width, 1, 1, "conv1")(x))
        h = nn.relu(_conv(self.width, 3, self.stride, "conv2")(h))
        # Small at random initialisation, where no batch norm keeps the sum from growing.
        h = _conv(4 * self.width, 1, 1, "conv3", gain=0.1)(h)
        if x.shape[-1] != 4 * self.width:
            x = _conv(4 * self.width, 1, 1, "downsample")(x)
        return nn.relu(h + x[:, :: self.stride, :: self.stride])


class PixelHead(nn.Module):
    """Feature (B, h, w, 8) to output (B, 16h, 16w, channels), in [-1, 1] with tanh."""

    channels: int
    tanh: bool = True

    @nn.compact
    def __call__(self, feature: jax.Array) -> jax.Array:
        """Decode."""
        x = feature
        for number, width in enumerate((1024, 1024, 512, 256, 256, 128), 2):
            x = _leaky(_conv(width, 3, 1, f"conv{number}")(x))
        for number, width, then in ((8, 64, 64), (10, 32, 32), (12, 16, 32), (14, 16, None)):
            x = _leaky(Deconv(width, name=f"deconv{number}")(x))
            if then:
                x = _leaky(_conv(then, 3, 1, f"conv{number + 1}")(x))
        x = _conv(self.channels, 3, 1, "decoder_output")(x)
        return jnp.tanh(x) if self.tanh else x


class MLPHead(nn.Module):
    """Feature (B, 16, 16, 8) to logits (B, channels)."""

    channels: int

    @nn.compact
    def __call__(self, feature: jax.Array) -> jax.Array:
        """Decode to class logits.

        Raises:
          UsageError: The feature is not 16×16×8.
        """
        if feature.shape[1:] != (16, 16, CHANNELS):
            raise UsageError(
                f"class head: feature of shape {feature.shape[1:]}; expected (16, 16, 8), that of "
                f"an image of {SIZE}×{SIZE} pixels. Use --size {SIZE}."
            )
        x = nn.relu(nn.Dense(2048, name="fc0")(feature.reshape(len(feature), -1)))
        return nn.Dense(self.channels, name="fc2")(x)


class Deconv(nn.Module):
    """Stride-2 transposed 3×3 convolution: y[2i + k] += x[i]·w[k], cut to twice the size.

    Written as the four phases of the output, each a convolution of at most 2×2 taps, instead of
    one over an input with three zeros in four.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) to (B, 2H, 2W, features)."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        # taps[a, p, k]: output 2m + p sees input m - 1 + a through w[k].
        taps = np.zeros((2, 2, 3), np.float32)
        taps[0, 0, 2] = taps[1, 0, 0] = taps[1, 1, 1] = 1
        phases = jnp.einsum("apk,bql,klio->abipqo", *2 * (taps.astype(kernel.dtype),), kernel)
        phases = phases.reshape(2, 2, x.shape[-1], 4 * self.features)
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, phases, (1, 1), ((1, 0), (1, 0)), dimension_numbers=layout
        )
        y = upsample(y)
        return y + jnp.broadcast_to(bias, y.shape)


def _conv(features: int, side: int, stride: int, name: str, gain: float = 2.0) -> nn.Conv:
    """Padded alike on both sides, as in PyTorch; XLA's SAME is not where the stride is 2."""
    kernel_init = nn.initializers.variance_scaling(gain, "fan_in", "truncated_normal")
    around = side // 2
    padding = ((around, around), (around, around))
    return nn.Conv(
        features, (side, side), stride, padding=padding, kernel_init=kernel_init, name=name
    )


def _leaky(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, 0.2)
