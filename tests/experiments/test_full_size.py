"""The paper's protocol on random networks of full size and rooms in Taskonomy's layout."""

import json
import resource
import subprocess
import sys

import jax
import numpy as np
import pytest

import vcmjax
from experiments import feature_coding, plateau
from vcmjax.data import rooms
from vcmjax.nets import hourglass, pretrained

TASKS = ("class_scene", "segment_semantic")


def random_network(name):
    """A network of the release with random weights that keep its feature and outputs near one."""
    network = hourglass.released(name)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), hourglass.SIZE))
    rng = np.random.default_rng(0)

    def draw(leaf):
        deviation = (1.5 / np.prod(leaf.shape[:-1])) ** 0.5 if len(leaf.shape) > 1 else 0.1
        return rng.normal(0, deviation, leaf.shape).astype(np.float32)

    return network, jax.tree.map(draw, shapes)


@pytest.mark.slow
def test_the_papers_protocol_runs_from_files_to_bytes_at_full_size(
    tmp_path, monkeypatch, full_speed
):
    monkeypatch.setenv("VCMJAX_CACHE", str(tmp_path / "cache"))
    counts = {"train": 8, "val": 4, "test": 4}
    sources = {split: rooms.Rooms(split, count, 512) for split, count in counts.items()}
    rooms.write_taskonomy(tmp_path / "data", sources, quirks=True, official_classes=True)
    for name in TASKS:
        pretrained.save(tmp_path / "networks" / name, *random_network(name), {})
    out = tmp_path / "out"
    arguments = f"--data {tmp_path / 'data'} --networks {tmp_path / 'networks'} --out {out}"
    arguments += f" --preset full --task {' '.join(TASKS)} --methods ours --seeds 1"
    plateau.main([*arguments.split(), "--steps", "100", "--batch", "2"])
    results = json.loads((out / "results.json").read_text())
    assert results["config"]["size"] == 256 and results["config"]["target"] == "labels"
    for task in TASKS:
        rows = [r for r in results["rows"] if r["task"] == task and r["method"] == "ours"]
        assert rows and all(r["height"] == 256 and r["bytes_total"] > 0 for r in rows)
        codec = vcmjax.load(out / "codecs" / f"{task}-ours")
        image = sources["test"][0]["image"][None, ::2, ::2]
        (stream,) = codec.compress_images(image)
        output = codec.predict(codec.decompress([stream]))
        assert output.shape == ((1, 63) if task == "class_scene" else (1, 256, 256, 17))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20  # KiB


@pytest.mark.slow
def test_layers_of_released_networks_are_coded_by_hevc(tmp_path, monkeypatch, full_speed):
    pytest.importorskip("av", reason="needs the extra [codecs]")
    monkeypatch.setenv("VCMJAX_CACHE", str(tmp_path / "cache"))
    sources = {split: rooms.Rooms(split, 2, 512) for split in ("train", "val", "test")}
    rooms.write_taskonomy(tmp_path / "data", sources, quirks=True, official_classes=True)
    for name in TASKS:
        pretrained.save(tmp_path / "networks" / name, *random_network(name), {})
    out = tmp_path / "out"
    arguments = f"--data {tmp_path / 'data'} --networks {tmp_path / 'networks'} --out {out}"
    feature_coding.main([*arguments.split(), "--images", "2", "--layers", "encoder/conv1"])
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert {row["task"] for row in rows} == set(TASKS)
    assert all(row["bytes"] < row["raw_bytes"] for row in rows)
    finest = [row["fidelity"] for row in rows if row["qp"] == 12]
    assert np.mean(finest) > 0.9


TRAINING = """
import functools, resource, sys
from pathlib import Path
import jax, numpy as np
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.data import taskonomy
from vcmjax.nets import hourglass
from vcmjax.train import codec, loop

network = hourglass.released("segment_semantic")
params = jax.jit(lambda: network.init(jax.random.key(0), 256))()
task = taskonomy.TASKS["segment_semantic"]
rng = np.random.default_rng(0)
data = codec.Features(
    rng.normal(size=(32, 16, 16, 8)).astype(np.float16),
    rng.integers(0, 17, (32, 256, 256), np.uint8),
)
model = FeatureCodec((16, 16, 8), "codebook", (0.01, 3.0), 24, 2)
problem = codec.problem(
    model,
    codec.Goal(task, functools.partial(network.decode, params), "labels", np.ones(17, np.float32)),
    256 * 256,
    data.feature,
)
runs = loop.Runs(np.array([0]), np.array([[0.01, 3.0]], np.float32))
(result,) = loop.fit(problem, data, data, loop.Options(2, 16, chunk=2), runs, Path(sys.argv[1]))
assert not result.diverged
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_batch_of_16_through_the_segmentation_decoder_takes_less_than_8_gib(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    assert int(done.stdout.split()[-1]) < 8 * 2**20  # KiB
