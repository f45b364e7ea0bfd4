"""The range coder of tensorflow-compression itself, with the functions of `range_coder`.

For comparison with it, and to exchange streams with programs that use it: `range_coder` writes the
same bytes without TensorFlow. Needs ``pip install 'vcmjax[tfc]'``; without it, VcmError.

The operations trust their input. What would hang or kill the process there is refused here: an
escape to 2**30 or more beyond its table and, decoding, an escape code without end.
"""

import contextlib
import functools
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vcmjax.coding import range_coder
from vcmjax.coding.tables import CdfTables, check_symbols
from vcmjax.coding.tables import pmf_to_quantized_cdf as _our_quantized_cdf
from vcmjax.errors import VcmError


def encode(values: ArrayLike, indexes: ArrayLike, tables: CdfTables) -> bytes:
    """Codes integers into one stream, as `range_coder.encode` does; arguments as there.

    Raises:
      ValueError: as there, or an escape is too far from its table for the operation.
    """
    v, k = range_coder._int32("values", values, 1), range_coder._int32("indexes", indexes, 1)
    if v.shape != k.shape:
        raise ValueError(f"encode: `values` has shape {v.shape} but `indexes` {k.shape}")
    return _encode(v, k, tables)


def decode(data: bytes, indexes: ArrayLike, tables: CdfTables) -> NDArray[np.int32]:
    """Inverse of `encode`: (n,) int32. Raises as `BatchDecoder.read` does."""
    return BatchDecoder([data], tables).read(range_coder._int32("indexes", indexes, 1)[None])[0]


def encode_batch(values: ArrayLike, indexes: ArrayLike, tables: CdfTables) -> list[bytes]:
    """Codes each row of `values` (b, n) into its own stream; `indexes` (b, n) or (n,)."""
    v = range_coder._int32("values", values, 2)
    k = range_coder._batched(indexes, len(v))
    if v.shape != k.shape:
        raise ValueError(f"encode_batch: `values` has shape {v.shape} but `indexes` {k.shape}")
    return _encode(v, k, tables).tolist() if len(v) else []  # no handles: a segmentation fault


def decode_batch(
    streams: Sequence[bytes], indexes: ArrayLike, tables: CdfTables
) -> NDArray[np.int32]:
    """Inverse of `encode_batch`: (b, n) int32. Raises as `BatchDecoder.read` does."""
    return BatchDecoder(streams, tables).read(indexes)


class BatchDecoder:
    """Reads b streams side by side; each `read` goes on where the last one stopped."""

    def __init__(self, streams: Sequence[bytes], tables: CdfTables):
        """Opens b streams, for good with these tables."""
        tf, ops = _tensorflow()
        # Reads ahead, to refuse what it refuses: on an endless escape code the operation hangs.
        self._guard = range_coder.BatchDecoder(streams, tables)
        self._handle = None
        if len(streams):
            strings = tf.constant([bytes(stream) for stream in streams])
            self._handle = ops.create_range_decoder(strings, _lookup(tables))

    def read(self, indexes: ArrayLike) -> NDArray[np.int32]:
        """The next (b, n) int32 values for indexes (b, n) or (n,).

        Raises:
          ValueError: an index is outside its range. Nothing has been read.
          CorruptStream: an escape code is not that of an int32. The decoder is of no further use.
        """
        expected = self._guard.read(indexes)
        if self._handle is None:
            return expected
        tf, ops = _tensorflow()
        k = range_coder._batched(indexes, len(expected))
        self._handle, values = ops.entropy_decode_index(self._handle, k, k.shape[1:], tf.int32)
        return values.numpy()

    def finish(self) -> NDArray[np.bool_]:
        """Ends decoding: (b,), False where a stream was surely read wrongly; True is weak."""
        if self._handle is None:
            return np.ones(0, bool)
        return _tensorflow()[1].entropy_decode_finalize(self._handle).numpy()


def pmf_to_quantized_cdf(pmf: ArrayLike, precision: int) -> NDArray[np.int32]:
    """As `tables.pmf_to_quantized_cdf`, but exact ties of more than 16 symbols may differ."""
    _our_quantized_cdf(pmf, precision)  # refuses that for which the operation ends the process
    ops = _tensorflow()[1]
    return ops.pmf_to_quantized_cdf(np.asarray(pmf, np.float32), precision=precision).numpy()


def _encode(v: NDArray[np.int32], k: NDArray[np.int32], tables: CdfTables):
    """One stream for (n,), an array of b for (b, n)."""
    check_symbols(v, k, tables)
    plain = (tables.sizes - tables.escapes)[k].astype(np.int64)
    far = np.where(v < 0, -v.astype(np.int64), v - plain + 1) >= 2**30
    for at in np.argwhere(far)[:1]:
        raise ValueError(
            f"`values` at position {', '.join(map(str, at))} is {v[tuple(at)]}; "
            "tensorflow-compression cannot escape to 2**30 or more beyond a table"
        )
    tf, ops = _tensorflow()
    handle = ops.create_range_encoder(tf.constant(v.shape[:-1], tf.int32), _lookup(tables))
    return ops.entropy_encode_finalize(ops.entropy_encode_index(handle, k, v)).numpy()


def _lookup(tables: CdfTables) -> NDArray[np.int32]:
    """Rows [±precision, 0, ..., 2**precision] as given, repeating the last entry to one length."""
    rows = tables.rows()
    longest = max((len(row) for row in rows), default=3)
    padded = [np.pad(row, (0, longest - len(row)), mode="edge") for row in rows]
    return np.array(padded, np.int32).reshape(len(rows), longest)


def check() -> None:
    """Raise VcmError, naming the extra, unless TensorFlow and its operations are installed."""
    _tensorflow()


@functools.cache
def _tensorflow() -> tuple[ModuleType, ModuleType]:
    """TensorFlow and the operations of tensorflow-compression, imported at first use."""
    try:
        import tensorflow as tf
        import tensorflow_compression_ops as ops
    except ImportError as error:
        raise VcmError(f"{error}; this coder needs: pip install 'vcmjax[tfc]'") from error
    with contextlib.suppress(RuntimeError):  # too late: TensorFlow is in use elsewhere
        tf.config.set_visible_devices([], "GPU")  # or it takes all memory of JAX's GPU
    return tf, ops
