import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcmjax.errors import DataError
from vcmjax.train import checkpoint


def state(seed):
    rng = np.random.default_rng(seed)
    return {
        "params": [
            rng.normal(size=(2, 3)).astype(np.float32),
            np.asarray(rng.integers(9), np.int32),
        ],
        "healthy": np.asarray([True, False]),
        "history": np.full((3, 2), np.nan, np.float32),
    }


def assert_equal(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_an_empty_directory_holds_no_state(tmp_path):
    with checkpoint.opened(tmp_path / "none" / "yet") as kept:
        assert kept.newest(state(0)) is None


def test_the_newest_state_comes_back_bit_for_bit_and_two_are_kept(tmp_path):
    with checkpoint.opened(tmp_path) as kept:
        for step in (100, 200, 300):
            kept.save(step, state(step))
    with checkpoint.opened(tmp_path) as kept:
        assert_equal(kept.newest(jax.tree.map(jnp.zeros_like, state(0))), state(300))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["200", "300"]


def test_a_half_written_state_is_passed_over(tmp_path):
    with checkpoint.opened(tmp_path) as kept:
        kept.save(100, state(100))
    # What a kill leaves of a write: a folder of a temporary name.
    (tmp_path / "200.orbax-checkpoint-tmp-0").mkdir()
    with checkpoint.opened(tmp_path) as kept:
        assert_equal(kept.newest(state(0)), state(100))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | {"more": np.zeros(1, np.float32)},
        lambda s: {k: v for k, v in s.items() if k != "history"},
        lambda s: s | {"params": {"a": s["params"][0], "b": s["params"][1]}},
    ],
    ids=["more", "less", "another tree"],
)
def test_a_state_of_another_form_is_refused_by_name_and_kept(tmp_path, change):
    with checkpoint.opened(tmp_path) as kept:
        kept.save(100, state(100))
    with (
        checkpoint.opened(tmp_path) as kept,
        pytest.raises(DataError, match=f"{tmp_path}/100: a checkpoint of another form"),
    ):
        kept.newest(change(state(0)))
    with checkpoint.opened(tmp_path) as kept:
        assert_equal(kept.newest(state(0)), state(100))
