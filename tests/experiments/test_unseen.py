"""Table 7: a task finished from streams that were not made for it."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import joint, unseen

pytest.importorskip("av", reason="needs the extra [codecs]")


EXPERIMENT = unseen


def test_every_strategy_and_the_image_has_its_score_and_bytes(finished):
    *_, results = finished
    assert [row["strategy"] for row in results["rows"]] == ["Internal", "Source+", "Image: HEVC"]
    for row in results["rows"]:
        assert 0 < row["ci"]["bytes"][0] <= row["bytes"] <= row["ci"]["bytes"][1]
        assert row["kept"] == pytest.approx(2 - row["score"] / results["original"]["reshading"])


def test_the_second_stage_changes_neither_streams_nor_what_was_trained_before(finished):
    config, out, _ = finished
    _, at = joint.opened(config, ["normal", "reshading"])
    known = {"normal": at["normal"]}
    (first,) = joint.train(known, known, config, out / "models" / "normal for normal").values()
    folder = out / "models" / "normal for normal, then reshading"
    (second,) = joint.extended({0: first}, at["reshading"], config, folder).values()
    features = {"normal": at["normal"].splits["val"].feature[:4]}
    lam = config.lams[-1]
    streams = first.codec.encode(first.params, first.frozen, features, lam)
    own = second.codec.tables(second.params)
    assert second.codec.encode(second.params, own, features, lam) == streams
    for part in ("analysis", "prior"):
        jax.tree.map(np.testing.assert_array_equal, second.params[part], first.params[part])
    both = dataclasses.replace(second.codec, outputs=(*first.codec.outputs, *second.codec.outputs))
    back = both.decode(second.params, own, streams, lam)
    before = first.codec.decode(first.params, first.frozen, streams, lam)
    np.testing.assert_allclose(back["normal"], before["normal"], atol=1e-5)
    assert back["reshading"].shape == (4, *at["reshading"].splits["val"].feature.shape[1:])


def test_the_table_and_the_figure_show_every_strategy(finished, drawn):
    *_, results = finished
    text = unseen.table(results)
    assert all(f"| {name} |" in text for name in ("Internal", "Source+", "Image: HEVC"))
    assert "| External |" not in text
    drawn(unseen.draw, results)
