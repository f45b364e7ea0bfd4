import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcmjax.errors import UsageError
from vcmjax.evaluate import plateau

grids = st.lists(st.integers(0, 255), min_size=1, max_size=12)
values = st.floats(0, 1) | st.just(math.nan)


class Counted:
    """A curve that counts its evaluations."""

    def __init__(self, curve):
        self.curve, self.calls = curve, []

    def __call__(self, level):
        self.calls.append(level)
        return self.curve(level)


@given(grids, st.integers(0, 300))
def test_monotone_curve_gives_the_first_level_within_tolerance(grid, first):
    """The score steps up at level `first`: from there on it is within tolerance."""
    curve = Counted(lambda level: (0.01 + level / 1000, 0.5 if level >= first else 0.4))
    found = plateau.search(curve, grid, 0.5, 0.02, True)
    assert found.reached == (first <= 255)
    if found.reached:
        assert found.level == first
        assert (found.bpp, found.score) == curve.curve(first)
    assert len(curve.calls) == len(set(curve.calls)) <= len(set(grid)) + 9


@given(grids, st.floats(0.05, 1.5), st.floats(0, 0.5))
def test_exponential_curve_matches_its_closed_form(grid, control, tolerance):
    """L1 distance exp(-level / 64), lower is better: within from 64 log(1/bound) on."""
    curve = lambda level: (float(level + 1), math.exp(-level / 64))  # noqa: E731
    found = plateau.search(curve, grid, control, tolerance, False)
    bound = control * (1 + tolerance)
    first = max(0, math.ceil(-64 * math.log(bound) - 1e-9))
    assert found.reached == (first <= 255)
    assert found.level == min(first, 255)


@given(
    grids,
    st.lists(st.tuples(values, values), min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_any_curve_gives_the_least_bpp_among_evaluated_points_within(grid, points, higher, refine):
    curve = Counted(lambda level: points[level % len(points)])
    found = plateau.search(curve, grid, 0.5, 0.1, higher, refine=refine)
    assert set(grid) <= set(found.evaluated) == set(curve.calls)
    assert len(curve.calls) <= len(set(grid)) + (9 if refine else 0)
    within = [
        bpp
        for bpp, score in found.evaluated.values()
        if bpp == bpp and plateau.within(score, 0.5, 0.1, higher)
    ]
    assert found.reached == bool(within)
    if within:
        assert found.bpp == min(within)
        assert plateau.within(found.score, 0.5, 0.1, higher)
    else:
        known = [score for _, score in found.evaluated.values() if score == score]
        assert not known or found.score == (max if higher else min)(known)


def test_grid_that_stops_short_tries_the_highest_level_and_refines_from_there():
    curve = lambda level: (level / 100, 0.5 if level >= 200 else 0.3)  # noqa: E731
    found = plateau.search(curve, [10, 100], 0.5, 0.02, True)
    assert found.reached and found.level == 200 and 255 in found.evaluated


def test_separate_models_evaluate_the_grid_alone():
    curve = Counted(lambda level: (level / 100, 0.5 if level >= 3 else 0.3))
    found = plateau.search(curve, range(6), 0.5, 0.02, True, refine=False)
    assert found.level == 3 and curve.calls == [0, 1, 2, 3, 4, 5]
    missed = plateau.search(curve, range(3), 0.5, 0.02, True, refine=False)
    assert not missed.reached and missed.level == 0  # best score, then fewest bits


def test_a_control_group_without_a_score_is_never_reached():
    found = plateau.search(lambda level: (1.0, 0.5), [3], math.nan, 0.02, True)
    assert not found.reached


@pytest.mark.parametrize(
    ("score", "higher", "expected"),
    [(0.75, True, True), (0.74, True, False), (1.25, False, True), (1.26, False, False)],
)
def test_tolerance_is_relative_and_its_bound_belongs_to_the_plateau(score, higher, expected):
    assert plateau.within(score, 1.0, 0.25, higher) is expected
    assert plateau.within(2 * score, 2.0, 0.25, higher) is expected


@pytest.mark.parametrize(
    ("grid", "tolerance"), [([], 0.02), ([-1], 0.02), ([256], 0.02), ([1], -1)]
)
def test_levels_and_tolerance_out_of_range_are_refused(grid, tolerance):
    with pytest.raises(UsageError, match="expected"):
        plateau.search(lambda level: (0.0, 0.0), grid, 0.5, tolerance, True)
