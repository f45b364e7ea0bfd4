"""The search for a grouping, against closed forms and brute force."""

import itertools
import math

import numpy as np
import pytest

from experiments import grouping

TASKS = ("a", "b", "c", "d", "e")
BITS = dict.fromkeys(TASKS, 100.0)


def saving(value, tasks=TASKS):
    return {frozenset(pair): float(value) for pair in itertools.combinations(tasks, 2)}


@pytest.mark.parametrize("count", range(1, 7))
def test_every_partition_comes_once(count):
    """Bell's triangle gives their number."""
    row = [1]
    for _ in range(count - 1):
        row = list(itertools.accumulate([row[-1], *row]))
    found = list(grouping.partitions(range(count)))
    assert len(found) == len(set(found)) == row[-1]
    for each in found:
        assert sorted(itertools.chain(*each)) == list(range(count))


def test_a_group_is_as_cheap_as_its_gaussian_chain():
    """The entropy of a Markov chain is what Chow and Liu's tree says, and no tree says less."""
    steps = (0.9, 0.5, 0.8, 0.7)
    correlation = np.array(
        [[math.prod(steps[min(i, j) : max(i, j)]) for j in range(5)] for i in range(5)]
    )
    own = 0.5 * math.log2(2 * math.pi * math.e)
    saved = {
        frozenset({TASKS[i], TASKS[j]}): -0.5 * math.log2(1 - correlation[i, j] ** 2)
        for i, j in itertools.combinations(range(5), 2)
    }
    joint = 5 * own + 0.5 * np.linalg.slogdet(correlation)[1] / math.log(2)
    assert grouping.predicted((TASKS,), dict.fromkeys(TASKS, own), saved) == pytest.approx(joint)


def test_tasks_that_save_nothing_cost_what_they_cost_alone():
    for partition in grouping.partitions(TASKS):
        assert grouping.predicted(partition, BITS, saving(0)) == pytest.approx(500)


def test_the_best_puts_like_with_like():
    saved = saving(-10) | {frozenset("ab"): 30.0, frozenset("cd"): 20.0, frozenset("de"): 20.0}
    first, second = grouping.best(TASKS, BITS, saved, 2)
    assert first == (("a", "b"), ("c", "d", "e"))
    assert grouping.predicted(first, BITS, saved) == pytest.approx(430)
    assert grouping.predicted(second, BITS, saved) == pytest.approx(440)


def test_savings_keep_all_together_and_losses_keep_all_apart():
    assert grouping.best(TASKS, BITS, saving(5), 1) == [(TASKS,)]
    assert grouping.best(TASKS, BITS, saving(-5), 1) == [tuple((task,) for task in TASKS)]
