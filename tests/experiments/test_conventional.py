"""Conventional codecs in a study: nothing is trained, every byte is counted."""

import json

import numpy as np
import pytest

from experiments import comparison, conventional, plateau
from experiments.comparison import Curve
from vcmjax.codecs.idfc import Idfc
from vcmjax.data.rooms import Rooms
from vcmjax.evaluate import metrics
from vcmjax.evaluate.measure import Measurement
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS, Task

pytest.importorskip("av", reason="needs the extra [codecs]")

METHODS = ("idfc_tiling", "idfc_descending", "image_hevc", "image_jpeg")
COUNTS = (2, 6, 4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, results) of a study without training."""
    out = tmp_path_factory.mktemp("out")
    config = plateau.Config(methods=METHODS, counts=COUNTS, tasks=("normal",))
    return out, plateau.run(config, out)


def rows_of(results, method, split="val"):
    return [
        r for r in results["rows"] if (r["method"], r["split"], r["seed"]) == (method, split, None)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_curve_ascends_in_bytes_and_ends_near_the_uncompressed_score(finished, method):
    _, results = finished
    (original,) = rows_of(results, "original")
    rows = rows_of(results, method)
    sizes = [row["bytes_total"] for row in rows]
    assert len(rows) == 8 and sizes == sorted(sizes)
    assert rows[-1]["metrics"]["l1"] == pytest.approx(original["metrics"]["l1"], rel=0.05)
    assert rows[0]["metrics"]["l1"] > rows[-1]["metrics"]["l1"]
    assert all(row["bpp_estimated"] is None and row["lam"] is None for row in rows)


@pytest.mark.parametrize("method", METHODS)
def test_the_plateau_is_the_coarsest_quality_within_tolerance(finished, method):
    _, results = finished
    (entry,) = (e for e in results["plateau"] if e["method"] == method)
    (original,) = rows_of(results, "original")
    assert entry["reached"] and entry["val"]["score"] <= 1.02 * original["metrics"]["l1"]
    failing = [r for r in rows_of(results, method) if r["level"] < entry["level"]]
    cheaper = [r for r in failing if r["metrics"]["l1"] <= 1.02 * original["metrics"]["l1"]]
    assert not [r for r in cheaper if r["bytes_total"] < entry["bytes_val"]]


def test_bytes_and_scores_are_those_of_the_streams(finished):
    """Recomputed here from the shipped network and the codec alone."""
    _, results = finished
    network = pretrained.shipped(ROOMS["normal"])
    rooms = Rooms("val", COUNTS[1], 128, 0)
    examples = [rooms[i] for i in range(len(rooms))]
    images = np.stack([each["image"] for each in examples])
    feature = np.asarray(network.network.encode(network.params, images), np.float16)
    codec = Idfc(feature.shape[1:])
    row = next(r for r in rows_of(results, "idfc_tiling") if r["quality"] == 40)
    streams = codec.encode(feature, 40)
    assert row["bytes_payload"] == pytest.approx(np.mean([len(s) for s in streams]))
    alone = np.mean([codec.stream_bytes(s) for s in streams])
    assert row["bytes_elementary"] == pytest.approx(alone)
    output = network.network.decode(network.params, codec.decode(streams))
    label = np.stack([each["normal"] for each in examples])
    full = np.repeat(np.repeat(np.asarray(output), 4, 1), 4, 2)  # another way to full size: close
    near = metrics.scores(ROOMS["normal"], metrics.statistics(ROOMS["normal"], full, label))["l1"]
    assert row["metrics"]["l1"] == pytest.approx(near, rel=0.1)


def test_image_bytes_count_a_file_and_idfc_its_share_of_one(finished):
    _, results = finished
    jpeg, hevc, idfc = (rows_of(results, m)[0] for m in ("image_jpeg", "image_hevc", "idfc_tiling"))
    assert jpeg["bytes_total"] == jpeg["bytes_payload"]
    assert hevc["bytes_total"] == hevc["bytes_payload"] + 24
    assert 0 < idfc["bytes_total"] - idfc["bytes_payload"] < 12
    assert jpeg["bytes_elementary"] is None and idfc["bytes_elementary"] > idfc["bytes_total"]


def test_the_same_command_again_codes_nothing(finished, monkeypatch):
    out, results = finished
    config = plateau.Config(methods=METHODS, counts=COUNTS, tasks=("normal",))

    def never(*_, **__):
        raise AssertionError("coded again")

    monkeypatch.setattr(conventional.measure, "conventional", never)
    monkeypatch.setenv("VCMJAX_CACHE", str(out / "elsewhere"))
    again = plateau.run(config, out)
    assert json.dumps(again["rows"]) == json.dumps(results["rows"])


# Comparison


def measured(size, error, images=40):
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.9, 1.1, images)
    statistics = {"error": error * spread * 10, "count": np.full(images, 10.0)}
    none = np.zeros(images)
    return Measurement(np.round(size * spread * 100), none, none, none, statistics)


def curve(factor, seeds=(0,)):
    points = [
        {seed: measured(factor * size, error) for seed in seeds}
        for size, error in ((1, 0.5), (2, 0.3), (4, 0.2), (8, 0.15))
    ]
    return Curve(points, points[2], True)


def test_half_the_bits_at_every_score_are_half_the_bits():
    task = Task("normal", "dense", 3)
    result = comparison.compare(task, curve(0.5, (0, 1)), curve(1))
    assert result["bits_ratio"] == pytest.approx(0.5, rel=0.01)
    assert result["bd_rate"] == pytest.approx(-50, abs=0.5)
    assert result["bd_score"] < 0  # a distance, so less is better
    low, high = result["ci"]["bd_rate"]
    assert low - 1e-6 <= result["bd_rate"] <= high + 1e-6 and high - low < 2
    assert result["reached"] == [True, True]


def test_curves_without_a_common_score_have_no_bd_rate():
    best = [{0: measured(1, 0.05)}, {0: measured(2, 0.04)}]
    result = comparison.compare(Task("normal", "dense", 3), Curve(best, best[1], True), curve(1))
    assert result["bd_rate"] is None and result["ci"]["bd_rate"] == [None, None]
