import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, log_loss

from vcmjax.errors import DataError
from vcmjax.evaluate import metrics
from vcmjax.tasks import VOID, Task

SCENE = Task("scene", "class", 5)
SEGMENT = Task("segment", "segment", 4, ("background", "chair", "bed", "vase"))
NORMAL = Task("normal", "dense", 3)


def softmax(logits):
    exp = np.exp(logits)
    return exp / exp.sum(-1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def scene(rng):
    return rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 5, 40).astype(np.int32)


@pytest.fixture
def segment(rng):
    logits = rng.normal(size=(6, 8, 10, 4)).astype(np.float32)
    label = rng.integers(0, 4, (6, 8, 10)).astype(np.uint8)
    label[rng.random(label.shape) < 0.2] = VOID
    return logits, label


@pytest.fixture
def normal(rng):
    label = rng.normal(size=(6, 8, 10, 3)).astype(np.float32)
    output = label + rng.normal(size=label.shape).astype(np.float32)
    label[rng.random(label.shape) < 0.2] = np.nan
    return output, label


def test_class_scores_equal_scikit_learn(scene):
    logits, label = scene
    result = metrics.scores(SCENE, metrics.statistics(SCENE, logits, label))
    assert result["accuracy"] == pytest.approx(accuracy_score(label, logits.argmax(1)))
    expected = log_loss(label, softmax(logits.astype(np.float64)), labels=range(5))
    assert result["cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_confusion_of_each_image_equals_scikit_learn(segment):
    logits, label = segment
    confusion = metrics.statistics(SEGMENT, logits, label)["confusion"]
    for counted, guess, truth in zip(confusion, logits.argmax(-1), label, strict=True):
        kept = truth != VOID
        expected = confusion_matrix(truth[kept], guess[kept], labels=range(4))
        np.testing.assert_array_equal(counted, expected)


def test_segment_scores_equal_scikit_learn_on_scored_pixels(segment):
    logits, label = segment
    result = metrics.scores(SEGMENT, metrics.statistics(SEGMENT, logits, label))
    kept = label != VOID
    truth, guess = label[kept], logits.argmax(-1)[kept]
    assert result["miou"] == pytest.approx(jaccard_score(truth, guess, average="macro"))
    assert result["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    front = truth > 0
    expected = accuracy_score(truth[front], guess[front])
    assert result["non_background_accuracy"] == pytest.approx(expected)
    expected = log_loss(truth, softmax(logits[kept].astype(np.float64)), labels=range(4))
    assert result["cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_miou_leaves_out_classes_in_neither_truth_nor_prediction():
    label = np.array([[[0, 0, 1, 1]]], np.uint8)
    logits = np.eye(4)[np.array([[[0, 0, 1, 2]]])]
    result = metrics.scores(SEGMENT, metrics.statistics(SEGMENT, logits, label))
    assert result["miou"] == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_non_background_accuracy_only_where_class_0_is_background(segment):
    roads = SEGMENT._replace(classes=("sky", "road", "car", "tree"))
    assert "non_background_accuracy" not in metrics.scores(
        roads, metrics.statistics(roads, *segment)
    )


def test_l1_is_the_mean_over_elements_that_are_not_nan(normal):
    output, label = normal
    result = metrics.scores(NORMAL, metrics.statistics(NORMAL, output, label))
    assert result == {"l1": pytest.approx(np.nanmean(np.abs(output - label)), rel=1e-6)}


@pytest.mark.parametrize(
    ("task", "name"), [(SCENE, "scene"), (SEGMENT, "segment"), (NORMAL, "normal")]
)
def test_weights_equal_repeating_the_images(task, name, request, rng):
    output, label = request.getfixturevalue(name)
    weights = rng.integers(0, 4, len(output))
    repeated = np.repeat(np.arange(len(output)), weights)
    weighted = metrics.scores(task, metrics.statistics(task, output, label), weights)
    plain = metrics.scores(task, metrics.statistics(task, output[repeated], label[repeated]))
    assert weighted == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize(
    ("task", "name"), [(SCENE, "scene"), (SEGMENT, "segment"), (NORMAL, "normal")]
)
def test_batches_join_to_the_statistics_of_the_whole(task, name, request):
    output, label = request.getfixturevalue(name)
    halves = [metrics.statistics(task, output[i::2], label[i::2]) for i in range(2)]
    joined = metrics.scores(task, metrics.concatenate(halves))
    assert joined == pytest.approx(metrics.scores(task, metrics.statistics(task, output, label)))


def test_headline_metric_is_among_the_scores(scene, segment, normal):
    for task, data in ((SCENE, scene), (SEGMENT, segment), (NORMAL, normal)):
        statistics = metrics.statistics(task, *data)
        assert task.metric in metrics.scores(task, statistics)
        assert metrics.headline(task, statistics) == metrics.scores(task, statistics)[task.metric]


def test_cross_entropy_of_huge_logits_is_finite():
    logits = np.array([[1e4, 0, 0, 0, 0]], np.float32)
    stats = metrics.statistics(SCENE, logits, np.array([1]))
    assert stats["cross_entropy"] == pytest.approx([1e4])


def test_images_that_are_all_void_score_nan():
    label = np.full((1, 2, 2), VOID, np.uint8)
    stats = metrics.statistics(SEGMENT, np.zeros((1, 2, 2, 4)), label)
    assert np.isnan(list(metrics.scores(SEGMENT, stats).values())).all()


def test_wrong_shapes_and_labels_are_refused_naming_what_was_expected(scene, segment, normal):
    with pytest.raises(DataError, match=r"output of shape \(40, 4\); expected \(B, 5\)"):
        metrics.statistics(SCENE, scene[0][:, :4], scene[1])
    with pytest.raises(DataError, match=r"expected \(6, 8, 10\)"):
        metrics.statistics(SEGMENT, segment[0], segment[1][:, :4])
    with pytest.raises(DataError, match=r"expected \(6, 8, 10, 3\)"):
        metrics.statistics(NORMAL, normal[0], normal[1][..., :1])
    with pytest.raises(DataError, match="label 5; expected a class index below 5"):
        metrics.statistics(SCENE, scene[0], np.full(40, 5))
    with pytest.raises(DataError, match=r"expected \(40,\)"):
        metrics.scores(SCENE, metrics.statistics(SCENE, *scene), np.ones(3))
