"""Bjøntegaard deltas against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.evaluate.bd_rate import delta, envelope

RATES = np.array([0.01, 0.02, 0.05, 0.1])


@given(st.floats(0.2, 5), st.booleans())
def test_a_curve_of_scaled_bits_has_that_delta(factor, higher):
    score = np.array([0.2, 0.3, 0.38, 0.4]) * (1 if higher else -1)
    found = delta((RATES, score), (factor * RATES, score), higher)
    assert found.rate == pytest.approx(100 * (factor - 1), abs=1e-6)


@given(st.floats(-0.5, 0.5))
def test_curves_linear_in_log_rate_differ_by_their_distance(shift):
    score = 0.3 + 0.1 * np.log(RATES / 0.01)
    found = delta((RATES, score), (RATES, score + shift), True)
    assert found.score == pytest.approx(shift, abs=1e-9)
    if abs(shift) < 0.1 * math.log(10):
        assert found.rate == pytest.approx(100 * (math.exp(-shift / 0.1) - 1), rel=1e-6, abs=1e-6)


def test_order_and_points_below_the_envelope_change_nothing():
    score = np.array([0.2, 0.3, 0.38, 0.4])
    wobbly = ([0.05, 0.01, 0.03, 0.1, 0.02, 0.2], [0.38, 0.2, 0.25, 0.4, 0.3, 0.39])
    other = (2 * RATES, score)
    assert delta(wobbly, other, True) == delta((RATES, score), other, True)


def test_the_envelope_of_a_distance_descends():
    rates, scores = envelope([1, 2, 2, 3, 0, 4], [0.5, 0.45, 0.4, 0.41, 0.1, math.nan], False)
    np.testing.assert_array_equal(rates, [1, 2])
    np.testing.assert_array_equal(scores, [0.5, 0.4])


@pytest.mark.parametrize(
    "test", [([0.01, 0.1], [0.5, 0.6]), ([0.05], [0.3]), ([], []), ([0.1, 0.2], [math.nan] * 2)]
)
def test_curves_without_a_common_score_have_no_rate_delta(test):
    assert math.isnan(delta((RATES, [0.2, 0.3, 0.38, 0.4]), test, True).rate)
