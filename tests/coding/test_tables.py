import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vcmjax.coding import tables
from vcmjax.coding.tables import CdfTables

VECTORS = json.loads((Path(__file__).parent / "range_coder_vectors.json").read_text())
SCALES = np.geomspace(0.11, 64, 20)


def test_quantized_cdf_equals_tensorflow_compression_on_every_vector():
    for vector in VECTORS["pmf_to_quantized_cdf"]:
        got = tables.pmf_to_quantized_cdf(vector["pmf"], vector["precision"])
        np.testing.assert_array_equal(got, vector["cdf"])


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=40), st.integers(6, 16))
@settings(max_examples=60)
def test_quantized_cdf_gives_every_symbol_mass_and_ends_at_two_to_precision(weights, precision):
    pmf = np.array(weights) / max(sum(weights), 1e-3)
    cdf = tables.pmf_to_quantized_cdf(pmf, precision)
    assert cdf[0] == 0 and cdf[-1] == 2**precision and np.all(np.diff(cdf) > 0)
    assert cdf.dtype == np.int32


def test_quantized_cdf_keeps_masses_that_are_exact():
    np.testing.assert_array_equal(tables.pmf_to_quantized_cdf([0.5, 0.25, 0.25], 4), [0, 8, 12, 16])


def test_quantized_cdf_fits_as_many_symbols_as_units():
    np.testing.assert_array_equal(
        tables.pmf_to_quantized_cdf([1, 0, 0, 0, 0, 0, 0, 0], 3), range(9)
    )


@pytest.mark.parametrize(
    ("pmf", "precision", "message"),
    [
        ([0.5, -0.1, 0.6], 8, "position 1 is -0.1"),
        ([0.5, np.nan], 8, "position 1 is nan"),
        ([np.inf, 0.5], 8, "position 0 is inf"),
        ([1.0], 8, "shape"),
        ([0.2] * 5, 2, "2\\*\\*precision = 4"),
        ([0.5, 0.5], 17, "precision` is 17"),
        ([0.5, 0.5], 0, "precision` is 0"),
    ],
)
def test_quantized_cdf_refuses_what_is_no_distribution(pmf, precision, message):
    with pytest.raises(ValueError, match=message):
        tables.pmf_to_quantized_cdf(pmf, precision)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2, 0, 3, 2, 4], "row 1: position 3 is 2 after 3"),
        ([2, 0, -1, 4], "row 1: position 2 is -1"),
        ([2, 1, 4], "row 1: position 1 must be 0, is 1"),
        ([2, 0, 3], "row 1: last entry is 3"),
        ([2, 0, 4, 5], "row 1: position 3 is 5"),
        ([0, 0, 1], "row 1: precision at position 0 is 0"),
        ([17, 0, 2**17], "row 1: precision at position 0 is 17"),
        ([-17, 0, 2**17], "row 1: precision at position 0 is -17"),
        ([-(2**31), 0, 4], "row 1: precision"),
        ([2, 0], "row 1: expected integers"),
        ([2.0, 0.0, 4.0], "row 1: expected integers"),
        ([[2, 0, 4]], "row 1: expected integers"),
    ],
)
def test_illegal_row_is_refused_naming_row_position_and_value(row, message):
    with pytest.raises(ValueError, match=message):
        CdfTables.from_rows([[1, 0, 1, 2], row])


def test_padding_after_the_last_entry_is_dropped():
    t = CdfTables.from_rows([[-2, 0, 1, 4, 4, 4], [2, 0, 4]])
    np.testing.assert_array_equal(t.sizes, [2, 1])
    np.testing.assert_array_equal(t.escapes, [1, 0])


def test_tables_are_read_only():
    t = CdfTables.from_rows([[2, 0, 1, 4]])
    with pytest.raises(ValueError, match="read-only"):
        t.data[0] = 1


def test_no_rows_make_empty_tables():
    assert CdfTables.from_rows([]).sizes.size == 0


@pytest.mark.parametrize("precision", [1, 2, 3, 8, 12, 16])
def test_gaussian_rows_are_legal_and_escape_at_every_precision(precision):
    rows, offsets = tables.gaussian(SCALES, precision)
    t = CdfTables.from_rows(rows)
    assert t.escapes.all() and np.all(t.precision == precision)
    np.testing.assert_array_equal(t.sizes, 2 - 2 * offsets)  # -r..r and the escape
    assert offsets.dtype == np.int32


def test_gaussian_ideal_bits_agree_with_scipy():
    rows, offsets = tables.gaussian(SCALES)
    t = CdfTables.from_rows(rows)
    for k, scale in enumerate(SCALES):
        value = np.arange(-int(3 * scale), int(3 * scale) + 1)
        norm = stats.norm(scale=scale)
        expected = -np.log2(norm.cdf(value + 0.5) - norm.cdf(value - 0.5))
        got = tables.ideal_bits(value - offsets[k], np.full(value.size, k), t)
        # A mass of m units is rounded by half a unit, then moved by one or two to fix the sum.
        np.testing.assert_array_less(np.abs(got - expected), 1e-6 + 4 * 2.0 ** (expected - 16))


def test_gaussian_tables_cost_under_a_thousandth_bit_over_the_entropy():
    rows, offsets = tables.gaussian(SCALES)
    t = CdfTables.from_rows(rows)
    for k, scale in enumerate(SCALES):
        value = np.arange(-int(10 * scale) - 2, int(10 * scale) + 3)
        low = -np.abs(value)  # the accurate tail
        mass = stats.norm.cdf((low + 0.5) / scale) - stats.norm.cdf((low - 0.5) / scale)
        entropy = stats.entropy(mass, base=2)
        cost = mass @ tables.ideal_bits(value - offsets[k], np.full(value.size, k), t)
        assert cost - entropy < 1e-3


@pytest.mark.parametrize("scales", [[0.0], [-1.0], [np.nan], [np.inf], 1.0])
def test_gaussian_refuses_impossible_scales(scales):
    with pytest.raises(ValueError, match="scales"):
        tables.gaussian(scales)


@pytest.mark.parametrize("tail_mass", [0.0, 1.0, -1.0])
def test_gaussian_refuses_impossible_tail_mass(tail_mass):
    with pytest.raises(ValueError, match="tail_mass"):
        tables.gaussian([1.0], tail_mass=tail_mass)


def test_pmf_rows_put_the_tail_last():
    (row,) = tables.from_pmf_rows([[0.5, 0.25]], [0.25], precision=4)
    np.testing.assert_array_equal(row, [-4, 0, 8, 12, 16])


def test_pmf_rows_and_tails_must_match():
    with pytest.raises(ValueError, match="shorter"):
        tables.from_pmf_rows([[0.5], [0.5]], [0.5])


def test_ideal_bits_of_escapes_count_gamma_digits_twice():
    t = CdfTables.from_rows([[-2, 0, 3, 4]])  # symbol 0, then the escape at 2 bits
    values = [0, 1, 2, 3, 4, 5, -1, -2, -3, -4, 2**31 - 1, -(2**31)]
    digits = [0, 1, 2, 2, 3, 3, 1, 2, 2, 3, 31, 32]
    expected = [np.log2(4 / 3), *(2 + 2 * d for d in digits[1:])]
    np.testing.assert_allclose(tables.ideal_bits(values, np.zeros(12, int), t), expected)


def test_ideal_bits_keeps_the_shape():
    t = CdfTables.from_rows([[1, 0, 1, 2]])
    np.testing.assert_array_equal(
        tables.ideal_bits(np.ones((2, 3), int), np.zeros((2, 3), int), t), np.ones((2, 3))
    )
