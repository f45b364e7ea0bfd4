"""Table 5: pixels beside features in one stream."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import human_vision
from vcmjax.nets import pixels

pytest.importorskip("av", reason="needs the extra [codecs]")
pytestmark = pytest.mark.slow
EXPERIMENT = human_vision


def test_the_network_of_pixels_loses_nothing():
    network = pixels.network(8)
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    feature = network.network.encode(network.params, images)
    assert feature.shape == (2, 3, 4, 192)
    np.testing.assert_allclose(
        network.network.decode(network.params, feature), images / 255, rtol=1e-6
    )
    # A position of the feature holds its own patch and no other.
    patch = jnp.zeros_like(feature).at[:, 1, 2].set(1.0)
    only = np.asarray(network.network.decode(network.params, patch))
    assert only[:, 8:16, 16:24].min() == 1 and only.sum() == 2 * 192


def test_pixels_cost_bytes_and_come_with_their_quality(finished):
    config, _, results = finished
    alone, plus, image = results["columns"]
    assert [c["name"] for c in results["columns"]] == ["alone", "with pixels", "image: HEVC, QP 43"]
    assert "psnr" not in alone and 5 < plus["psnr"] < image["psnr"] < 60
    assert 0 <= plus["ms_ssim"] < image["ms_ssim"] < 1
    for column in results["columns"]:
        assert column["bpp"] == pytest.approx(8 * column["bytes"] / config.size**2)
        assert column["ci"]["bytes"][0] <= column["bytes"] <= column["ci"]["bytes"][1]


def test_a_second_run_trains_and_measures_nothing(finished, again):
    *_, results = finished
    assert again["columns"] == results["columns"]


def test_the_table_and_the_figure_show_every_representation(finished, drawn):
    *_, results = finished
    text = human_vision.table(results)
    assert (
        "| alone | with pixels | image: HEVC, QP 43 |" in text and "| PSNR, dB ↑ | – | – |" in text
    )
    drawn(human_vision.draw, results)


def test_a_qp_that_does_not_exist_is_refused(refused):
    assert "--qp 60: expected 0 to 51" in refused(human_vision.main, ["--qp", "60"])
