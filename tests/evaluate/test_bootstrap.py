import numpy as np
import pytest
import scipy.stats

from vcmjax.errors import UsageError
from vcmjax.evaluate import bootstrap, metrics
from vcmjax.tasks import Task


def mean_of(sample):
    return lambda weights: weights @ sample / weights.sum(1)


def test_interval_of_a_mean_agrees_with_scipy():
    sample = np.random.default_rng(0).exponential(size=200)
    ours = bootstrap.interval(mean_of(sample), 200, seed=1, resamples=20_000)[""]
    scipys = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="percentile", rng=2, batch=1000
    ).confidence_interval
    np.testing.assert_allclose(ours, scipys, atol=0.05 * sample.std() / np.sqrt(200))


def test_interval_of_a_normal_mean_covers_at_its_level():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(400, 60))
    # All 400 experiments share one set of draws: the statistic returns them by name.
    statistic = lambda weights: {str(i): weights @ s / 60 for i, s in enumerate(samples)}  # noqa: E731
    intervals = bootstrap.interval(statistic, 60, seed=0, resamples=1000, level=0.9)
    covered = np.mean([low < 0 < high for low, high in intervals.values()])
    assert 0.85 < covered < 0.94  # 0.9 and 3 standard errors, less the bootstrap's small-n bias


def test_same_seed_same_interval_and_blocks_do_not_change_it(monkeypatch):
    statistic = mean_of(np.random.default_rng(0).normal(size=50))
    whole = bootstrap.interval(statistic, 50, seed=3)
    monkeypatch.setattr(bootstrap, "_BLOCK", 333)
    assert bootstrap.interval(statistic, 50, seed=3) == whole
    assert bootstrap.interval(statistic, 50, seed=4) != whole


def test_one_seed_or_equal_seeds_reduce_to_images():
    statistic = mean_of(np.random.default_rng(0).normal(size=50))
    alone = bootstrap.interval(statistic, 50, seed=3)[""]
    assert bootstrap.interval([statistic], 50, seed=3)[""] == alone
    assert bootstrap.interval([statistic] * 3, 50, seed=3)[""] == pytest.approx(alone)


def test_variances_of_seeds_and_images_add():
    rng = np.random.default_rng(0)
    image, seed = rng.normal(size=100), 0.2 * rng.normal(size=8)
    both = bootstrap.interval([mean_of(image + s) for s in seed], 100, seed=0, resamples=20_000)[""]
    sigma = np.sqrt(image.var() / 100 + seed.var() / 8)
    expected = (image.mean() + seed.mean()) + 1.96 * sigma * np.array([-1, 1])
    np.testing.assert_allclose(both, expected, atol=0.1 * sigma)


def test_interval_of_pooled_task_scores_contains_them():
    rng = np.random.default_rng(0)
    task = Task("segment", "segment", 3, ("background", "a", "b"))
    label = rng.integers(0, 3, (30, 8, 8))
    logits = 2 * np.eye(3)[label] + rng.normal(size=(30, 8, 8, 3))
    stats = metrics.statistics(task, logits, label)
    statistic = lambda weights: metrics.resampled_scores(task, stats, weights)  # noqa: E731
    intervals = bootstrap.interval(statistic, 30, seed=0)
    for name, score in metrics.scores(task, stats).items():
        low, high = intervals[name]
        assert low < score < high


def test_replicates_without_a_score_are_left_out():
    statistic = lambda weights: np.where(weights[:, 0] > 0, 1.0, np.nan)  # noqa: E731
    assert bootstrap.interval(statistic, 2, seed=0)[""] == (1.0, 1.0)
    nothing = lambda weights: np.full(len(weights), np.nan)  # noqa: E731
    assert np.isnan(bootstrap.interval(nothing, 2, seed=0)[""]).all()


@pytest.mark.parametrize("wrong", [{"images": 0}, {"resamples": 0}, {"level": 1.0}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        bootstrap.interval(**{"statistics": mean_of(np.ones(2)), "images": 2, "seed": 0} | wrong)


def test_no_statistic_is_refused():
    with pytest.raises(UsageError, match="0 statistics"):
        bootstrap.interval([], 2, seed=0)
