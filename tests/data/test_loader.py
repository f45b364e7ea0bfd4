import itertools
import threading
from typing import NamedTuple

import numpy as np
import pytest

from vcmjax.data.loader import Advised, Subset, batches, checked
from vcmjax.errors import DataError, UsageError


class Numbers:
    """Example i holds i; examples in `bad` cannot be read."""

    def __init__(self, count, bad=()):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            raise DataError(f"{index}.png: image: expected an image, found none.")
        return {
            "image": np.full((2, 3, 3), index, np.uint8),
            "class_scene": np.asarray(index, np.int32),
        }


def order(*args, **kwargs):
    return [b["class_scene"].tolist() for b in batches(*args, **kwargs)]


def flat(*args, **kwargs):
    return list(itertools.chain(*order(*args, **kwargs)))


def jitter(example, rng):
    return example | {"noise": rng.standard_normal(2)}


def test_unshuffled_batches_keep_order_shapes_and_types():
    first, _, last = batches(Numbers(5), 2)
    assert first["image"].shape == (2, 2, 3, 3) and first["image"].dtype == np.uint8
    assert first["class_scene"].tolist() == [0, 1] and first["class_scene"].dtype == np.int32
    assert last["class_scene"].tolist() == [4]


def test_remainder_can_be_dropped():
    assert order(Numbers(5), 2, drop_remainder=True) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_every_shuffled_epoch_is_a_permutation(count):
    seen = flat(Numbers(count), 3, shuffle=True, epochs=2)
    assert sorted(seen[:count]) == sorted(seen[count:]) == list(range(count))


def test_epochs_are_shuffled_differently():
    seen = flat(Numbers(50), 5, shuffle=True, epochs=3)
    epochs = {tuple(seen[i : i + 50]) for i in (0, 50, 100)}
    assert len(epochs) == 3 and tuple(range(50)) not in epochs


def test_seeds_share_no_epoch():
    runs = [flat(Numbers(50), 50, seed=s, shuffle=True, epochs=3) for s in range(3)]
    epochs = [tuple(run[i : i + 50]) for run in runs for i in (0, 50, 100)]
    assert len(set(epochs)) == 9


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_restart_from_the_same_seed_repeats_order_and_augmentation(workers):
    def run(workers):
        stream = batches(
            Numbers(11), 4, seed=3, shuffle=True, epochs=None, transform=jitter, workers=workers
        )
        return list(itertools.islice(stream, 9))

    for a, b in zip(run(workers), run(2), strict=True):
        np.testing.assert_array_equal(a["class_scene"], b["class_scene"])
        np.testing.assert_array_equal(a["noise"], b["noise"])


def test_augmentation_differs_between_examples_epochs_shards_and_seeds():
    runs = [(seed, shard) for seed in (0, 1) for shard in (0, 1)]
    noise = [
        b["noise"]
        for seed, shard in runs
        for b in batches(
            Numbers(6), 3, seed=seed, epochs=2, shard=(shard, 2), transform=jitter, shuffle=True
        )
    ]
    values = np.concatenate(noise)[:, 0]
    assert len(np.unique(values)) == len(values) == 24


@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_are_disjoint_and_complete_in_every_epoch(shuffle):
    shards = [flat(Numbers(10), 2, shuffle=shuffle, epochs=2, shard=(i, 3)) for i in range(3)]
    together = [shards[k % 3][k // 3] for k in range(20)]
    assert together == flat(Numbers(10), 2, shuffle=shuffle, epochs=2)
    assert sorted(together[:10]) == sorted(together[10:]) == list(range(10))


@pytest.mark.parametrize("count", [7, 10])
def test_processes_together_see_the_batches_of_one_process(count):
    def first(batch, shard):
        stream = batches(Numbers(count), batch, shuffle=True, epochs=None, shard=shard)
        return np.array([b["class_scene"] for b in itertools.islice(stream, 6)])

    apart = np.stack([first(2, (p, 3)) for p in range(3)], axis=2)
    np.testing.assert_array_equal(apart.reshape(6, 6), first(6, (0, 1)))


@pytest.mark.parametrize("epochs", [3, None])
@pytest.mark.parametrize("start", [0, 1, 4])
def test_a_later_start_reads_nothing_of_what_it_passes_over(start, epochs):
    reads = []

    class Counting(Numbers):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    options = {"shuffle": True, "epochs": epochs, "shard": (1, 2), "transform": jitter, "seed": 5}
    whole = itertools.islice(batches(Numbers(9), 3, **options), start, 5)
    later = list(itertools.islice(batches(Counting(9), 3, start=start, workers=0, **options), 5))
    for a, b in zip(whole, later, strict=False):
        np.testing.assert_array_equal(a["class_scene"], b["class_scene"])
        np.testing.assert_array_equal(a["noise"], b["noise"])
    assert reads == list(itertools.chain(*(b["class_scene"] for b in later)))


def test_named_tuples_come_back_as_named_tuples():
    class Pair(NamedTuple):
        feature: np.ndarray
        label: int

    (batch,) = batches([Pair(np.full(2, i), i) for i in range(3)], 3)
    assert isinstance(batch, Pair) and batch.label.tolist() == [0, 1, 2]
    assert batch.feature.shape == (3, 2)


def test_endless_batches_are_always_full():
    stream = batches(Numbers(3), 4, epochs=None)
    seen = [next(stream)["class_scene"].tolist() for _ in range(3)]
    assert seen == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]]


def test_abandoned_endless_stream_leaves_no_thread_reading():
    reads = []

    class Counting(Numbers):
        def __getitem__(self, index):
            reads.append(threading.get_ident())
            return super().__getitem__(index)

    stream = batches(Counting(100), 2, epochs=None, workers=2)
    next(stream)
    assert len(reads) <= 12 and threading.get_ident() not in reads


@pytest.mark.parametrize("workers", [0, 2])
def test_first_bad_example_raises_its_own_error(workers):
    stream = batches(Numbers(8, bad={3}), 2, workers=workers)
    assert next(stream)["class_scene"].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"^3.png: image"):
        next(stream)


def test_skip_bad_keeps_the_readable_and_lists_the_rest():
    shown = []
    source, skipped = checked(
        Numbers(6, bad={1, 4}), True, lambda items, total: shown.append(total) or items
    )
    assert flat(source, 6) == [0, 2, 3, 5] and shown == [6]
    assert [i for i, _ in skipped] == [1, 4] and skipped[0][1].startswith("1.png: image")


def test_without_skip_bad_nothing_is_read_or_left_out():
    numbers = Numbers(3, bad={0, 1, 2})
    assert checked(numbers, False) == (numbers, [])


def test_a_commands_own_remedy_ends_what_is_said_of_a_bad_example():
    source = Advised(Numbers(3, bad={1}), "Or use --skip-bad.")
    assert len(source) == 3 and source[0]["class_scene"] == Numbers(3)[0]["class_scene"]
    with pytest.raises(DataError, match=r"^1.png: image: .*Or use --skip-bad\.$"):
        source[1]


def test_source_with_no_readable_example_raises_data_error():
    with pytest.raises(DataError, match=r"none of 2 .* First: 0.png"):
        checked(Numbers(2, bad={0, 1}), True)


def test_examples_of_different_shapes_raise_data_error():
    source = [{"image": np.zeros((2, n, 3))} for n in (2, 4)]
    with pytest.raises(DataError, match=r"image: expected one shape per batch.*\(2, 4, 3\)"):
        next(batches(source, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch": 0},
        {"batch": 2, "epochs": 0},
        {"batch": 2, "shard": (2, 2)},
        {"batch": 2, "seed": -1},
        {"batch": 2, "start": -1},
        {"batch": 2, "shard": (9, 10)},
        {"batch": 9, "drop_remainder": True},
    ],
)
def test_impossible_arguments_raise_usage_error_at_once(arguments):
    with pytest.raises(UsageError, match="batches"):
        batches(Numbers(5), **arguments)


def test_subset_keeps_the_order_of_its_indices():
    assert flat(Subset(Numbers(9), [7, 2, 5]), 3) == [7, 2, 5]
