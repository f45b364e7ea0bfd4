"""One model for any priority: its curves, and what they are compared with."""

import numpy as np
import pytest

from experiments import variable_rate
from vcmjax.evaluate.bd_rate import delta

pytestmark = pytest.mark.slow
EXPERIMENT = variable_rate


def curve(results, model, priority, task):
    rows = [r for r in results["rows"] if (r["model"], r["priority"]) == (model, priority)]
    return [r["bytes"] for r in rows], [r["kept"][task] for r in rows]


def test_weights_are_of_mean_one_and_favour_one_task_by_as_much_as_asked():
    config = variable_rate.Config(tasks=("a", "b", "c"), favour=4.0)
    found = variable_rate.priorities(config)
    assert list(found) == ["equal", "a", "b", "c"]
    for name, weights in found.items():
        assert np.mean(list(weights.values())) == pytest.approx(1)
        others = [weights[other] for other in weights if other != name]
        assert all(
            weights.get(name, 1.0) == pytest.approx(4 * o) for o in others if name != "equal"
        )


def test_a_comparison_is_the_bd_rate_of_two_of_its_curves(finished):
    *_, results = finished
    assert len(results["comparisons"]) == 3
    for entry in results["comparisons"]:
        anchor = ("separate", entry["priority"])
        if entry["anchor"] == "one":
            anchor = ("one", "equal")
        for task, found in entry["bd_rate"].items():
            own = curve(results, "one", entry["priority"], task)
            rate = delta(curve(results, *anchor, task), own, True).rate
            assert np.isnan(rate) if found is None else found == pytest.approx(rate, rel=1e-6)


def test_the_one_model_sends_other_bytes_for_another_priority(finished):
    *_, results = finished
    sizes = {name: curve(results, "one", name, "reshading")[0] for name in ("equal", "reshading")}
    assert sizes["equal"] != sizes["reshading"]


def test_a_second_run_trains_and_measures_nothing(finished, again):
    *_, results = finished
    assert again["rows"] == results["rows"]


def test_the_table_and_the_figure_show_every_priority(finished, drawn):
    *_, results = finished
    text = variable_rate.table(results)
    assert "| equal | a model for it |" in text and "| Reshading first | itself, equal |" in text
    drawn(variable_rate.draw, results)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--favour", "100"], "--favour 100: expected above 1, and up to 8"),
        (["--task", "normal"], "--task normal: expected two tasks or more"),
    ],
)
def test_bad_options_are_refused(refused, given, message):
    assert message in refused(variable_rate.main, given)
