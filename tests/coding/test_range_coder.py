import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vcmjax.coding import range_coder, range_kernels, tables, tfc
from vcmjax.coding.tables import CdfTables
from vcmjax.errors import CorruptStream

VECTORS = json.loads((Path(__file__).parent / "range_coder_vectors.json").read_text())
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
BYTE = [8, *range(257)]  # every byte equally likely
ONLY_ESCAPE = [-1, 0, 2]
NO_TFC = not importlib.util.find_spec("tensorflow_compression_ops")
needs_tfc = pytest.mark.skipif(NO_TFC, reason="needs the extra [tfc]")
each_coder = pytest.mark.parametrize(
    "coder",
    [pytest.param(range_coder, id="range_coder"), pytest.param(tfc, id="tfc", marks=needs_tfc)],
)
EXTREMES = [INT32_MIN, INT32_MIN + 1, -(2**30), -1, 0, 1, 2**30, INT32_MAX - 1, INT32_MAX]


def random_row(rng, escape):
    """A row of random precision, 1..16; some symbols may have no mass."""
    precision = int(rng.integers(1, 17))
    cuts = rng.integers(0, 2**precision, size=rng.integers(0, min(2**precision, 60)))
    row = [0, *np.sort(cuts).tolist(), 2**precision]
    return [-precision if escape else precision, *row]


@st.composite
def symbols(draw, escapes=None):
    """(values, indexes, tables): legal symbols over 1..6 random tables."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    escapes = st.booleans() if escapes is None else escapes
    rows = [random_row(rng, draw(escapes)) for _ in range(draw(st.integers(1, 6)))]
    indexes = rng.integers(len(rows), size=draw(st.integers(0, 300)), dtype=np.int32)
    values = np.zeros(indexes.size, np.int32)
    for i, k in enumerate(indexes):
        width = np.diff(rows[k][1:])
        if rows[k][0] < 0 and rng.random() < 0.3:
            values[i] = (
                rng.choice(EXTREMES) if rng.random() < 0.3 else rng.integers(-(2**20), 2**20)
            )
            if 0 <= values[i] < width.size and not width[values[i]]:
                values[i] = -1
        else:
            values[i] = rng.choice(np.flatnonzero(width))
    return values, indexes, CdfTables.from_rows(rows)


def gaussian_symbols(seed, streams, n):
    """Values drawn from 32 Gaussian tables, as an entropy model would; (b, n) each."""
    rng = np.random.default_rng(seed)
    scales = np.geomspace(0.2, 20, 32)
    rows, offsets = tables.gaussian(scales)
    indexes = rng.integers(32, size=(streams, n), dtype=np.int32)
    values = np.rint(rng.normal(size=indexes.shape) * scales[indexes]).astype(np.int32)
    return values - offsets[indexes], indexes, CdfTables.from_rows(rows)


@each_coder
def test_every_vector_encodes_to_the_bytes_of_tensorflow_compression_and_back(coder):
    assert len(VECTORS["range_coder"]) == 180
    for vector in VECTORS["range_coder"]:
        t = CdfTables.from_rows(vector["rows"])
        data = coder.encode(vector["values"], vector["indexes"], t)
        assert data.hex() == vector["hex"], vector["kind"]
        decoded = coder.decode(data, vector["indexes"], t)
        np.testing.assert_array_equal(decoded, vector["values"])


@each_coder
@given(symbols())
@settings(max_examples=300)
def test_decoding_returns_what_was_encoded_and_all_coders_write_the_same(coder, drawn):
    values, indexes, t = drawn
    decoded = coder.decode(range_coder.encode(values, indexes, t), indexes, t)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, values)
    near = np.clip(values, 1 - 2**30, 2**30 - 2)  # as far as tensorflow-compression can encode
    assert coder.encode(near, indexes, t) == range_coder.encode(near, indexes, t)


@each_coder
@pytest.mark.parametrize("row", [ONLY_ESCAPE, [-16, 0, 65535, 65536], [-3, 0, 1, 2, 8]])
def test_int32_extremes_survive_the_escape(coder, row):
    t = CdfTables.from_rows([row])
    data = range_coder.encode(EXTREMES, [0] * len(EXTREMES), t)
    np.testing.assert_array_equal(coder.decode(data, [0] * len(EXTREMES), t), EXTREMES)


def test_all_escapes_fit_the_buffer():
    t = CdfTables.from_rows([[-16, 0, 65535, 65536]])
    values = np.full((5, 3000), INT32_MIN, np.int32)
    streams = range_coder.encode_batch(values, np.zeros(3000, int), t)
    np.testing.assert_array_equal(range_coder.decode_batch(streams, np.zeros(3000, int), t), values)


@each_coder
@pytest.mark.parametrize("middle", [b"\xff" * 400, b"\x00" * 400, b""])
def test_long_carry_chains_round_trip(coder, middle):
    """Byte tables write the symbols themselves, so a carry has to cross the whole middle."""
    t = CdfTables.from_rows([BYTE, [16, 0, 1, 32767, 32769, 65535, 65536]])
    values = np.concatenate([[1, 127], np.frombuffer(middle, np.uint8), [2] * 9])
    indexes = np.concatenate([[0, 0], np.zeros(len(middle), int), [1] * 9])
    data = coder.encode(values, indexes, t)
    np.testing.assert_array_equal(coder.decode(data, indexes, t), values)


@each_coder
def test_a_row_of_more_symbols_than_units_decodes(coder):
    row = np.concatenate([[-16, 0], np.ones(70_000, int), [65_535, 65_536]])
    t = CdfTables.from_rows([row])
    values = [0, 70_000, -1, 70_001, 70_000, 10**6]
    data = coder.encode(values, [0] * 6, t)
    np.testing.assert_array_equal(coder.decode(data, [0] * 6, t), values)


@each_coder
def test_no_symbols_take_no_bytes(coder):
    t = CdfTables.from_rows([BYTE])
    assert coder.encode([], [], t) == b""
    assert coder.decode(b"", [], t).shape == (0,)


@each_coder
@given(st.binary(max_size=200), symbols(escapes=st.just(True)), st.integers(0, 200))
@example(b"\x00" * 40, (np.zeros(3, int), np.zeros(3, int), CdfTables.from_rows([ONLY_ESCAPE])), 0)
@settings(max_examples=300)
def test_random_or_cut_bytes_decode_to_int32_or_raise_corrupt_stream(coder, noise, drawn, cut):
    values, indexes, t = drawn
    for data in (noise, range_coder.encode(values, indexes, t)[:cut]):
        try:
            decoded = coder.decode(data, indexes, t)
        except CorruptStream:
            continue
        np.testing.assert_array_equal(decoded, range_coder.decode(data, indexes, t))
        # What was decoded is legal: it can be coded again.
        again = range_coder.encode(decoded, indexes, t)
        np.testing.assert_array_equal(range_coder.decode(again, indexes, t), decoded)


@each_coder
def test_endless_elias_gamma_raises_corrupt_stream_naming_stream_and_symbol(coder):
    t = CdfTables.from_rows([BYTE, ONLY_ESCAPE])
    good = coder.encode([65, 7], [0, 1], t)
    for count in (1, 2, 3):  # alone, in a pair, after a pair
        streams = [good] * (count - 1) + [b"A"]
        with pytest.raises(CorruptStream, match=f"stream {count - 1}: .* symbol 1"):
            coder.decode_batch(streams, [0, 1], t)


@each_coder
@pytest.mark.parametrize("sign", [0, 1])
def test_escape_beyond_int32_raises_corrupt_stream(coder, sign):
    """31 zeros, a one and 31 ones, written as raw bits: 2**32 - 1 is no int32 with either sign."""
    bits = [0] * 31 + [1] * 32 + [sign]
    raw = CdfTables.from_rows([[1, 0, 1, 2]])
    data = coder.encode(bits, [0] * 64, raw)
    with pytest.raises(CorruptStream):
        coder.decode(data, [0], CdfTables.from_rows([ONLY_ESCAPE]))


@given(symbols(), st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=60)
def test_pausing_between_reads_changes_nothing(drawn, cuts):
    values, indexes, t = drawn
    decoder = range_coder.Decoder(range_coder.encode(values, indexes, t), t)
    parts = [decoder.read(part) for part in np.split(indexes, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), values)


def test_each_read_may_use_other_tables():
    first, then = CdfTables.from_rows([BYTE]), CdfTables.from_rows([[-4, 0, 3, 16], [1, 0, 1, 2]])
    both = CdfTables.from_rows([BYTE, [-4, 0, 3, 16], [1, 0, 1, 2]])
    streams = range_coder.encode_batch([[9, 200, -5, 1], [8, 0, 77, 0]], [0, 0, 1, 2], both)
    decoder = range_coder.BatchDecoder(streams)
    np.testing.assert_array_equal(decoder.read([0, 0], first), [[9, 200], [8, 0]])
    np.testing.assert_array_equal(decoder.read([[0, 1], [0, 1]], then), [[-5, 1], [77, 0]])


@pytest.mark.parametrize("threads", [None, 1, 3])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 50), (7, 40_000)])
def test_batch_equals_single_streams_on_any_number_of_threads(shape, threads):
    values, indexes, t = gaussian_symbols(1, *shape)
    streams = range_coder.encode_batch(values, indexes, t, threads)
    rows = zip(values, indexes, strict=True)
    assert streams == [range_coder.encode(v, k, t) for v, k in rows]
    np.testing.assert_array_equal(
        range_coder.decode_batch(streams, indexes, t, threads), values.reshape(shape)
    )


@each_coder
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5])
def test_a_short_stream_reads_zeros_past_its_end_and_not_its_neighbour(coder, length):
    data, t = b"\x07" * length, CdfTables.from_rows([BYTE])
    decoded = coder.decode_batch([data, b"\xff" * 9, data], [0] * 9, t)
    expected = list(data.ljust(9, b"\x00"))
    np.testing.assert_array_equal(decoded, [expected, [255] * 9, expected])


@pytest.mark.parametrize("n", [64, 256, 1024])
def test_a_stream_exceeds_the_ideal_by_at_most_four_bits_on_average(n):
    values, indexes, t = gaussian_symbols(n, 2000, n)
    coded = [8 * len(s) for s in range_coder.encode_batch(values, indexes, t)]
    ideal = tables.ideal_bits(values, indexes, t).sum(axis=1)
    assert np.mean(coded - ideal) <= 4
    assert np.max(coded - ideal) <= 17


@each_coder
@pytest.mark.parametrize(
    ("values", "indexes", "message"),
    [
        ([1, 2, 3], [0, 0, 0], "`values` at position 2 is 3; table 0 codes 0..2"),
        ([1, -1], [0, 0], "`values` at position 1 is -1; table 0"),
        ([1, 1, 1], [0, 2, 0], "`indexes` at position 1 is 2; there are 2 tables"),
        ([1, 1], [0, -1], "`indexes` at position 1 is -1"),
        ([0, 1], [0, 1], "`values` at position 1 is 1, to which table 1 gives no probability"),
        ([0, 2**31], [0, 0], r"`values` at position \[1\] is 2147483648"),
        ([0, -(2**31) - 1], [0, 0], "`values` at position"),
        ([0], [2**32], "`indexes` at position"),
        ([0.0], [0], "`values` is float64"),
        ([[0]], [[0]], "`values` is int64"),
        ([0, 1], [0], "`values` has shape"),
    ],
)
def test_illegal_symbols_are_refused_naming_position_and_value(coder, values, indexes, message):
    t = CdfTables.from_rows([[4, 0, 1, 5, 16], [-4, 0, 7, 7, 7, 16]])
    with pytest.raises(ValueError, match=message):
        coder.encode(values, indexes, t)


def test_batch_errors_name_row_and_column():
    t = CdfTables.from_rows([BYTE])
    values = np.zeros((4, 50_000), int)
    values[3, 7] = 256
    with pytest.raises(ValueError, match="`values` at position 3, 7 is 256"):
        range_coder.encode_batch(values, np.zeros(50_000, int), t, threads=2)


@pytest.mark.parametrize("index", [1, -1, INT32_MAX, INT32_MIN])
def test_decoding_refuses_an_index_without_table_and_reads_nothing(index):
    t = CdfTables.from_rows([BYTE])
    decoder = range_coder.Decoder(b"AB", t)
    with pytest.raises(ValueError, match=f"position 0, 1 is {index}"):
        decoder.read([0, index])
    np.testing.assert_array_equal(decoder.read([0, 0]), [65, 66])


def test_decoding_refuses_missing_tables_and_wrong_counts():
    with pytest.raises(ValueError, match="no tables"):
        range_coder.Decoder(b"").read([0])
    with pytest.raises(ValueError, match=r"shape \(1, 1\) for 2 streams"):
        range_coder.decode_batch([b"", b""], [[0]], CdfTables.from_rows([BYTE]))


@each_coder
def test_read_only_inputs_are_accepted(coder):
    t = CdfTables.from_rows([BYTE])
    values, indexes = np.arange(5, dtype=np.int32), np.zeros(5, np.int32)
    values.setflags(write=False)
    indexes.setflags(write=False)
    data = coder.encode(values, indexes, t)
    np.testing.assert_array_equal(coder.decode(data, indexes, t), values)


def test_kernels_compile_without_a_cache_directory():
    """Numba finds no place to cache code that came from no file."""
    scope = {}
    exec("def double(x):\n    return 2 * x", scope)
    assert range_kernels._compile("int64(int64)", scope["double"])(21) == 42


def test_first_use_on_a_machine_says_once_that_it_compiles_and_needs_no_jax(tmp_path):
    code = (
        "import sys; from vcmjax.coding import range_coder, tables;"
        "t = tables.CdfTables.from_rows([[1, 0, 1, 2]]);"
        "assert range_coder.decode(range_coder.encode([1], [0], t), [0], t) == 1;"
        "assert 'jax' not in sys.modules"
    )
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(done.stderr.count("compiling the range coder"))
    assert said == [1, 0]
