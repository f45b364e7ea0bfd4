"""Refinement by rounds: curves of every group and method, and what is saved on them."""

import numpy as np
import pytest

from experiments import refinement
from vcmjax.evaluate.bd_rate import delta

pytestmark = pytest.mark.slow
EXPERIMENT = refinement


def test_the_saving_is_the_bd_rate_of_the_curves(finished):
    config, _, results = finished
    assert [tuple(entry["tasks"]) for entry in results["entries"]] == list(config.groups)
    for entry in results["entries"]:
        plain, refined = (
            np.array([[row["bytes"], row["kept"]] for row in entry["by_rounds"][r]["rows"]]).T
            for r in ("0", "2")
        )
        assert plain.shape == (2, len(config.lams)) and not np.array_equal(plain, refined)
        rate = delta(tuple(plain), tuple(refined), True).rate
        found = entry["by_rounds"]["2"]["bd_rate"]
        assert np.isnan(rate) if found is None else found == pytest.approx(rate, rel=1e-6)


def test_a_second_run_trains_and_measures_nothing(finished, again):
    *_, results = finished
    assert again["entries"] == results["entries"]


def test_the_table_names_every_group_and_the_figure_is_drawn(finished, drawn):
    *_, results = finished
    text = refinement.table(results)
    assert "| Scene class, Reshading | Ours |" in text
    for entry in results["entries"]:  # where curves of so few steps do not meet
        entry["by_rounds"]["2"] |= {"bd_rate": -10.0, "ci": [-12.0, -8.0]}
    drawn(refinement.draw, results)


def test_no_image_is_refused(refused):
    assert "--images 0" in refused(refinement.main, ["--images", "0"])
