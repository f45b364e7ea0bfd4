import importlib.resources
import os
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.errors import DataError, UsageError, VcmError
from vcmjax.nets import hourglass as full_size
from vcmjax.nets import pretrained
from vcmjax.nets.small_hourglass import hourglass
from vcmjax.tasks import ROOMS

TASK = ROOMS["reshading"]
NETWORK = hourglass(TASK)
SCORES = {"val": {"l1": 0.125}, "test": {"l1": 0.25}}


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: NETWORK.init(jax.random.key(0), 32))()


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("networks") / "inner" / "reshading.msgpack"
    pretrained.save(path, NETWORK, params, SCORES)
    return path


def test_a_network_comes_back_rounded_to_half_precision_with_its_scores(params, saved):
    network = pretrained.load(saved, TASK)
    assert network.scores == SCORES
    assert network.task == TASK
    for got, expected in zip(jax.tree.leaves(network.params), jax.tree.leaves(params), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.asarray(expected).astype(np.float16))
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_fingerprint_is_stable_and_changes_with_any_parameter(params, saved, tmp_path):
    first = pretrained.load(saved, TASK).fingerprint
    assert first == pretrained.load(saved, TASK).fingerprint
    leaves, tree = jax.tree.flatten(params)
    leaves[-1] = leaves[-1] + 1
    pretrained.save(tmp_path / "other", NETWORK, jax.tree.unflatten(tree, leaves), SCORES)
    assert pretrained.load(tmp_path / "other", TASK).fingerprint != first


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"absent\.msgpack.*experiments\.task_networks"):
        pretrained.load(tmp_path / "absent.msgpack", TASK)


def test_a_network_of_another_task_is_refused_by_name(saved):
    with pytest.raises(DataError, match="normal with 3 channels"):
        pretrained.load(saved, ROOMS["normal"])


@settings(max_examples=15)
@given(st.floats(0, 0.99))
def test_a_truncated_file_is_refused_and_named(saved, share):
    data = saved.read_bytes()
    cut = saved.with_name("cut")
    cut.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="cut: not a"):
        pretrained.load(cut, TASK)


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 255))
def test_one_byte_that_differs_is_noticed_or_changes_nothing(saved, place, by):
    data = bytearray(saved.read_bytes())
    data[place % len(data)] ^= by
    changed = saved.with_name("changed")
    changed.write_bytes(data)
    before = pretrained.load(saved, TASK)
    try:
        after = pretrained.load(changed, TASK)
    except DataError:
        return
    assert after.scores == before.scores
    for got, expected in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(before.params), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_weights_beyond_half_precision_are_not_saved(params, tmp_path):
    for value in (1e6, np.nan):
        worse = jax.tree.map(lambda leaf, value=value: np.full(leaf.shape, value), params)
        with pytest.raises(VcmError, match="weights that are not finite in float16"):
            pretrained.save(tmp_path / "a", NETWORK, worse, SCORES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "device", "too long"])
def test_what_is_no_file_of_weights_is_not_read(saved, tmp_path, kind):
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(
        DataError, match=r"a: not a task network .*(no regular file|bytes; expected)"
    ):
        pretrained.load(path, TASK)


def test_a_network_is_replaced_and_what_is_none_is_not(params, saved, released, tmp_path):
    full = pretrained.load(released, TASK)
    mine = tmp_path / "mine"
    mine.mkdir()
    pretrained.save(mine, full.network, full.params, SCORES)  # into a folder that is empty
    pretrained.save(mine, full.network, full.params, {"val": {"l1": 1.0}})
    assert pretrained.load(mine, TASK).scores == {"val": {"l1": 1.0}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis").touch()
    with pytest.raises(DataError, match="other: exists and is not a network"):
        pretrained.save(tmp_path / "other", full.network, full.params, SCORES)
    with pytest.raises(DataError, match="mine: cannot be written: it is no regular file"):
        pretrained.save(mine, NETWORK, params, SCORES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "other"]


@pytest.mark.parametrize("name", ROOMS)
def test_every_rooms_task_has_a_shipped_network_with_scores(name):
    network = pretrained.shipped(ROOMS[name])
    for split in ("val", "test"):
        assert np.isfinite(network.scores[split][ROOMS[name].metric])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(network.params))


def test_the_shipped_networks_together_take_at_most_20_megabytes():
    folder = importlib.resources.files("vcmjax.nets") / "weights"
    sizes = [len((folder / f"{name}.msgpack").read_bytes()) for name in ROOMS]
    assert sum(sizes) <= 20e6


# A network of the Taskonomy release


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A directory with the network of `TASK`, its weights alike but one."""
    network = full_size.hourglass(TASK)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), 256))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), shapes)
    params["head"]["params"]["decoder_output"]["bias"][:] = 0.5
    path = tmp_path_factory.mktemp("released") / "reshading"
    pretrained.save(path, network, params, SCORES)
    return path


def test_a_released_network_comes_back_exactly(released):
    network = pretrained.load(released, TASK)
    assert network.network == full_size.hourglass(TASK)
    assert network.scores == SCORES
    assert network.params["head"]["params"]["decoder_output"]["bias"] == 0.5
    assert [path.name for path in released.parent.iterdir()] == ["reshading"]


@pytest.mark.parametrize("task", ["normal", "segment_semantic"])
def test_a_directory_with_another_tasks_network_is_refused(task, released):
    with pytest.raises(
        DataError, match=f"reshading: the network of reshading; expected that of {task};"
    ):
        pretrained.load(released, ROOMS[task])


def test_a_task_of_other_classes_than_the_releases_is_refused(released):
    with pytest.raises(UsageError, match="63 outputs; expected the 10"):
        pretrained.load(released, ROOMS["class_scene"])


def largest(directory):
    """The largest file of array data; Orbax reads on without some of its descriptions."""
    return max(directory.rglob("d/*"), key=lambda path: path.stat().st_size)


def altered_digest(directory):
    about = directory / "network.json"
    about.write_text(about.read_text().replace('"digest": "', '"digest": "0'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "network.json").unlink(), "network.json"),
        (lambda d: (d / "network.json").write_text("{"), "damaged"),
        (lambda d: largest(d).write_bytes(b"x" * 10), "damaged"),
        (lambda d: largest(d).unlink(), "damaged|not a converted"),
        (altered_digest, "do not match its digest"),
        (lambda d: shutil.rmtree(d / "params"), "not a converted|damaged"),
    ],
)
def test_a_damaged_directory_is_refused_and_named(released, tmp_path, damage, message):
    copy = tmp_path / "reshading"
    shutil.copytree(released, copy)
    damage(copy)
    with pytest.raises(DataError, match=rf"reshading: .*({message}).*vcmjax convert"):
        pretrained.load(copy, TASK)
