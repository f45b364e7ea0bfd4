"""The laws that both coders keep are in test_range_coder.py; here is what is tfc's own."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.coding import range_coder, tables, tfc
from vcmjax.coding.tables import CdfTables
from vcmjax.errors import CorruptStream, VcmError

VECTORS = json.loads((Path(__file__).parent / "range_coder_vectors.json").read_text())
NO_TFC = not importlib.util.find_spec("tensorflow_compression_ops")
needs_tfc = pytest.mark.skipif(NO_TFC, reason="needs the extra [tfc]")
BYTE = [8, *range(257)]
ONLY_ESCAPE = [-1, 0, 2]


def gaussian_symbols(seed, streams, n):
    """(values, indexes, tables), some values beyond their table; precisions 16 and 12."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(0.2, 20, 32)
    rows, offsets = tables.gaussian(scales, tail_mass=0.1)
    coarse, _ = tables.gaussian(scales, precision=12, tail_mass=0.1)
    indexes = rng.integers(64, size=(streams, n), dtype=np.int32)
    values = np.rint(rng.normal(size=indexes.shape) * scales[indexes % 32]).astype(np.int32)
    return values - offsets[indexes % 32], indexes, CdfTables.from_rows([*rows, *coarse])


@needs_tfc
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 50), (7, 4000)])
def test_batches_have_the_bytes_of_range_coder_and_each_decodes_the_other(shape):
    values, indexes, t = gaussian_symbols(1, *shape)
    streams = tfc.encode_batch(values, indexes, t)
    assert streams == range_coder.encode_batch(values, indexes, t)
    np.testing.assert_array_equal(tfc.decode_batch(streams, indexes, t), values)
    np.testing.assert_array_equal(range_coder.decode_batch(streams, indexes, t), values)


@needs_tfc
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=40)
def test_pausing_between_reads_changes_nothing_and_finds_streams_of_range_coder_whole(seed, cuts):
    values, indexes, t = gaussian_symbols(seed, 3, 60)
    decoder = tfc.BatchDecoder(range_coder.encode_batch(values, indexes, t), t)
    parts = [decoder.read(part) for part in np.split(indexes, sorted(cuts), axis=1)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), values)
    assert decoder.finish().all()


@needs_tfc
def test_finish_notices_bytes_left_over():
    decoder = tfc.BatchDecoder([b"ab", b"abcdefg"], CdfTables.from_rows([BYTE]))
    np.testing.assert_array_equal(decoder.read([0, 0]), [[97, 98]] * 2)
    np.testing.assert_array_equal(decoder.finish(), [True, False])


@needs_tfc
def test_precision_equal_to_the_last_entry_before_it_is_no_padding():
    """In a flat list of rows the operation would take the 2 of the second row for padding."""
    rows = [[1, 0, 1, 2], [2, 0, 1, 2, 4], [4, 0, 3, 16], [16, 0, 1, 65536], [-1, 0, 2]]
    t, indexes = CdfTables.from_rows(rows), [0, 1, 2, 3, 4]
    data = tfc.encode([1, 2, 1, 0, 9], indexes, t)
    assert data == range_coder.encode([1, 2, 1, 0, 9], indexes, t)
    np.testing.assert_array_equal(tfc.decode(data, indexes, t), [1, 2, 1, 0, 9])


@needs_tfc
@pytest.mark.parametrize("value", [-(2**31), -(2**30), 2**30 - 1, 2**31 - 1])
def test_an_escape_on_which_the_operation_would_hang_is_refused_naming_position(value):
    t = CdfTables.from_rows([ONLY_ESCAPE])
    with pytest.raises(ValueError, match=f"position 1 is {value}; tensorflow-compression"):
        tfc.encode([7, value], [0, 0], t)
    with pytest.raises(ValueError, match=f"position 1, 0 is {value}; tensorflow-compression"):
        tfc.encode_batch([[7], [value]], [0], t)


@needs_tfc
def test_decoding_refuses_an_index_without_table_and_reads_nothing():
    decoder = tfc.BatchDecoder([b"AB"], CdfTables.from_rows([BYTE]))
    with pytest.raises(ValueError, match="position 0, 1 is 1"):
        decoder.read([0, 1])
    np.testing.assert_array_equal(decoder.read([0, 0]), [[65, 66]])


@needs_tfc
def test_an_escape_code_without_end_raises_and_does_not_hang():
    with pytest.raises(CorruptStream, match="symbol 0"):
        tfc.decode(b"", [0], CdfTables.from_rows([ONLY_ESCAPE]))


@needs_tfc
def test_quantized_cdf_is_that_of_every_vector():
    for vector in VECTORS["pmf_to_quantized_cdf"]:
        got = tfc.pmf_to_quantized_cdf(vector["pmf"], vector["precision"])
        np.testing.assert_array_equal(got, vector["cdf"])


@needs_tfc
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=16), st.integers(4, 16))
def test_quantized_cdfs_agree_up_to_16_symbols_ties_included(weights, precision):
    pmf = np.array(weights) / max(sum(weights), 1e-3)
    got = tfc.pmf_to_quantized_cdf(pmf, precision)
    np.testing.assert_array_equal(got, tables.pmf_to_quantized_cdf(pmf, precision))


@needs_tfc
@given(st.integers(0, 2**32 - 1), st.integers(17, 400), st.integers(9, 16))
def test_quantized_cdfs_of_many_symbols_agree_but_for_ties(seed, n, precision):
    """Random masses do not tie; they sum to a little over or under one, as tails are cut."""
    rng = np.random.default_rng(seed)
    pmf = rng.dirichlet(np.full(n, 0.5)) * rng.uniform(0.99, 1.01)
    got = tfc.pmf_to_quantized_cdf(pmf, precision)
    np.testing.assert_array_equal(got, tables.pmf_to_quantized_cdf(pmf, precision))


@needs_tfc
def test_quantized_cdf_refuses_more_symbols_than_units():
    with pytest.raises(ValueError, match="2\\*\\*precision = 4"):
        tfc.pmf_to_quantized_cdf([0.2] * 5, 2)


def test_without_the_extra_an_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_compression_ops", None)
    tfc._tensorflow.cache_clear()
    t = CdfTables.from_rows([BYTE])
    for call in (
        lambda: tfc.encode([1], [0], t),
        lambda: tfc.decode(b"", [0], t),
        lambda: tfc.pmf_to_quantized_cdf([0.5, 0.5], 4),
    ):
        with pytest.raises(VcmError, match=r"pip install 'vcmjax\[tfc\]'"):
            call()


def test_importing_imports_neither_tensorflow_nor_jax():
    code = "import sys, vcmjax.coding.tfc; assert not {'tensorflow', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
