"""Streams written once, by one machine and one JAX, that every other must read to the same symbols.

``python tests/codecs/test_golden.py [NAME ...]`` writes ``golden_*.npz`` anew; a change of format
does so.
"""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.codecs import frozen
from vcmjax.codecs.feature import FeatureCodec

HERE = Path(__file__).parent
CODECS = {
    "codebook": FeatureCodec((9, 12, 3), "codebook", (0.1, 0.1), 6, 2, hidden=16, side=4),
    "spatial": FeatureCodec((9, 12, 3), "spatial", (0.1, 0.1), 6, 2, hidden=16, side=4),
    "context": FeatureCodec((9, 12, 3), lams=(0.1, 0.1), latent_channels=6, stride=2, hidden=16,
                            side=4, context=True),
}  # fmt: skip
SIZES = {"own": None, "other": (5, 20)}
SETTINGS = {
    "as the tests run": {},
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    "fast mathematics": {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"},
    "bfloat16 products": {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"},
    "float64": {"JAX_ENABLE_X64": "1"},
}


def golden(name):
    """(tables, {size name: (streams, side, latent)}) from the file of one codec."""
    path = HERE / f"golden_{name}.npz"
    with np.load(path) as saved:
        arrays = dict(saved)
    cases = {}
    for size in SIZES:
        lengths, data = arrays[f"{size}.lengths"], arrays[f"{size}.bytes"].tobytes()
        ends = np.cumsum(lengths)
        streams = [data[end - n : end] for end, n in zip(ends, lengths, strict=True)]
        cases[size] = streams, arrays[f"{size}.side"], arrays[f"{size}.latent"]
    return frozen.read_tables(path), cases


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CODECS)
def test_golden_streams_are_read_and_written_as_ever(name, size):
    codec, (tables, cases) = CODECS[name], golden(name)
    streams, side, latent = cases[size]
    level = np.zeros(len(streams), np.int32)
    got = codec.read(tables, streams, level, SIZES[size])
    np.testing.assert_array_equal(got[0], side)
    np.testing.assert_array_equal(got[1], latent)
    assert codec.write(tables, side, latent, level) == streams
    assert len(np.unique(latent)) > 3  # they say something


def digest():
    """Of all symbols in all golden streams, read in batches of 1 and of all."""
    found = hashlib.sha256()
    for name, codec in CODECS.items():
        tables, cases = golden(name)
        for size, (streams, *_) in cases.items():
            level = np.zeros(len(streams), np.int32)
            for part in ([streams], [[stream] for stream in streams]):
                read = [codec.read(tables, s, level[: len(s)], SIZES[size]) for s in part]
                for symbols in zip(*read, strict=True):
                    found.update(np.concatenate(symbols).astype(np.int32).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("setting", SETTINGS)
def test_symbols_do_not_depend_on_threads_precision_or_compiler_settings(setting):
    program = f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_golden as golden; "
    program += "print(golden.digest())"
    environment = os.environ | SETTINGS[setting]
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest()


def _write(names: list[str]) -> None:
    for name in names:
        codec = CODECS[name]
        rng = np.random.default_rng(0)
        x = (3 * rng.normal(size=(6, *codec.shape))).astype(np.float32)
        params = jax.jit(codec.init)(jax.random.key(0), jnp.asarray(x))
        prior = params["prior"]["params"]
        spread = prior["output"] | {"kernel": 3 * prior["output"]["kernel"]}
        params["prior"] = {"params": prior | {"output": spread}}
        if codec.context:
            board = params["context"]["params"]
            far = board["output"] | {"kernel": 20 * board["output"]["kernel"]}
            params["context"] = {"params": board | {"output": far}}
        tables = codec.tables(params)
        arrays = frozen.table_arrays(tables)
        for size, of in SIZES.items():
            shape = (*(of or codec.shape[:2]), 3)
            level = np.zeros(6, np.int32)
            features = (3 * rng.normal(size=(6, *shape))).astype(np.float32)
            symbols = codec.quantise(params, features, level)
            streams = codec.write(tables, symbols.side, symbols.latent, level)
            arrays[f"{size}.lengths"] = np.array([len(s) for s in streams])
            arrays[f"{size}.bytes"] = np.frombuffer(b"".join(streams), np.uint8)
            arrays[f"{size}.side"] = np.asarray(symbols.side)
            arrays[f"{size}.latent"] = np.asarray(symbols.latent)
        arrays["written_by"] = np.array(json.dumps([jax.__version__, dataclasses.asdict(codec)]))
        np.savez_compressed(HERE / f"golden_{name}.npz", **arrays)


if __name__ == "__main__":
    _write(sys.argv[1:] or list(CODECS))
