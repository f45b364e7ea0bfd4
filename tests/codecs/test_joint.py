"""One stream for several tasks: features of different shapes, and of vectors among them."""

import dataclasses

import jax
import numpy as np
import pytest

from vcmjax.codecs.feature import FeatureCodec
from vcmjax.coding.range_coder import CorruptStream
from vcmjax.errors import VcmError

SHAPES = {"normal": (8, 12, 3), "class_scene": (5,), "depth": (16, 24, 2), "edge": (4, 6, 4)}
SMALL = {"latent_channels": 8, "stride": 4, "hidden": 8, "side": 3}
CODEC = FeatureCodec(SHAPES, **SMALL)
LAM = 0.1


def features_of(count=3, seed=0, scale=1):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(
            size=(count, *(n * scale for n in shape[:-1]), shape[-1]), scale=2.0
        ).astype(np.float32)
        for name, shape in SHAPES.items()
    }


@pytest.fixture(
    scope="module",
    params=[{"prior": "codebook"}, {"prior": "spatial"}, {"context": True}],
    ids=["codebook", "spatial", "codebook in context"],
)
def coded(request):
    """(codec, params, tables, features, streams)."""
    codec = dataclasses.replace(CODEC, **request.param)
    features = features_of()
    params = codec.init(jax.random.key(0), features)
    frozen = codec.tables(params)
    return codec, params, frozen, features, codec.encode(params, frozen, features, LAM)


def test_every_task_gets_its_feature_back_in_its_own_shape(coded):
    codec, params, frozen, features, streams = coded
    back = codec.decode(params, frozen, streams, LAM)
    symbols = codec.quantise(params, features, codec.level_of(np.full(3, LAM)))
    assert back.keys() == SHAPES.keys()
    for name, feature in features.items():
        assert back[name].shape == feature.shape
        np.testing.assert_allclose(back[name], symbols.output.feature[name], atol=1e-4)


def test_any_subset_of_the_tasks_is_decoded_from_the_same_streams(coded):
    codec, params, frozen, _, streams = coded
    whole = codec.decode(params, frozen, streams, LAM)
    few = codec.decode(params, frozen, streams, LAM, only=("edge", "class_scene"))
    assert few.keys() == {"edge", "class_scene"}
    for name in few:
        np.testing.assert_allclose(few[name], whole[name], atol=1e-5)
    with pytest.raises(VcmError, match="only holds 'pose'; expected of normal"):
        codec.decode(params, frozen, streams, LAM, only=("pose",))


def test_every_task_reaches_the_stream_and_each_branch_sees_all_of_it(coded):
    codec, params, *_, features, _ = coded

    def output(features):
        latent = codec.transfer.analyse(params, features, np.zeros(3, np.float32))
        return codec.transfer.synthesise(params, latent, np.zeros(3, np.float32), (8, 12))

    for of in SHAPES:
        gradient = jax.grad(lambda x, of=of: (output(x)[of] ** 2).sum())(features)
        assert all(float(abs(each).max()) > 0 for each in gradient.values()), of


def test_the_bytes_of_an_image_do_not_depend_on_its_batch(coded):
    codec, params, frozen, features, streams = coded
    alone = [
        codec.encode(params, frozen, {n: f[i : i + 1] for n, f in features.items()}, LAM)[0]
        for i in range(3)
    ]
    assert alone == streams


def test_other_sizes_of_image_are_coded_as_well(coded):
    codec, params, frozen, *_ = coded
    larger = features_of(2, 1, scale=2) | {"class_scene": features_of(2)["class_scene"]}
    streams = codec.encode(params, frozen, larger, LAM)
    back = codec.decode(params, frozen, streams, LAM, (16, 24))
    assert {n: b.shape for n, b in back.items()} == {n: x.shape for n, x in larger.items()}


def test_no_images_are_no_streams_and_no_features(coded):
    codec, params, frozen, *_ = coded
    assert codec.decode(params, frozen, [], LAM)["depth"].shape == (0, 16, 24, 2)
    assert codec.encode(params, frozen, features_of(0), LAM) == []


def test_damage_is_refused_or_decodes_to_finite_features(coded):
    codec, params, frozen, _, streams = coded
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(streams[0])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            back = codec.decode(params, frozen, [bytes(damaged)], LAM)
        except CorruptStream:
            continue
        assert all(np.isfinite(each).all() for each in back.values())


def test_a_task_that_was_never_sent_comes_back_and_changes_no_byte(coded):
    """The second stage: a branch of the decoder more, everything else as it was."""
    codec, params, frozen, features, streams = coded
    unseen = {"normal": SHAPES["normal"], "reshading": (8, 12, 6)}
    later = dataclasses.replace(codec, outputs=unseen)
    sample = features | {"reshading": np.ones((3, 8, 12, 6), np.float32)}
    new = later.init(jax.random.key(1), sample)
    joined = {
        **params,
        "statistics": new["statistics"],
        "synthesis": {**params["synthesis"], "reshading": new["synthesis"]["reshading"]},
    }
    assert later.encode(joined, later.tables(joined), features, LAM) == streams
    back = later.decode(joined, frozen, streams, LAM)
    assert back["reshading"].shape == (3, 8, 12, 6)
    np.testing.assert_allclose(
        back["normal"], codec.decode(params, frozen, streams, LAM)["normal"], atol=1e-5
    )


def test_a_dict_of_one_task_is_that_task_alone():
    shape = (8, 8, 4)
    one, bare = FeatureCodec({"normal": shape}, **SMALL), FeatureCodec(shape, **SMALL)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    params = bare.init(jax.random.key(0), x)
    named = {k: {"normal": v} if k != "prior" else v for k, v in params.items()}
    assert one.encode(named, one.tables(named), {"normal": x}, LAM) == bare.encode(
        params, bare.tables(params), x, LAM
    )


def test_vectors_alone_share_a_stream():
    codec = FeatureCodec({"class_scene": (5,), "class_object": (7,)}, **SMALL)
    x = {"class_scene": np.ones((2, 5), np.float32), "class_object": np.ones((2, 7), np.float32)}
    params = codec.init(jax.random.key(0))
    frozen = codec.tables(params)
    back = codec.decode(params, frozen, codec.encode(params, frozen, x, LAM), LAM)
    assert back["class_object"].shape == (2, 7)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ({"a": (8, 8, 4), "b": (12, 12, 4)}, {}, r"b has size \(12, 12\); expected \(8, 8\) times"),
        ({"a": (8, 8, 4), "b": (8, 16, 4)}, {}, "same power of two"),
        ({"a": (8, 8, 4), "b": (1, 1, 4)}, {}, "at least one position per position"),
        ({"a": (8, 8, 4), "b": (5,)}, {"latent_channels": 7}, "multiple of the number of tasks, 2"),
        ({"a": (5,)}, {"outputs": {"b": (8, 8, 2)}}, "b has positions; expected a feature sent"),
        ((8, 8, 4), {"outputs": {"b": (8, 8, 2)}}, "expected shapes by name as well"),
        ({"a": (5,)}, {"prior": "spatial"}, "no positions"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(shapes, options, message):
    with pytest.raises(VcmError, match=message):
        FeatureCodec(shapes, **SMALL | options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": np.zeros((3, 16, 20, 2))}, r"features of depth have size \(16, 20\); expected"),
        ({"depth": np.zeros((3, 16, 24, 3))}, r"features of depth have shape"),
        ({"depth": np.zeros((2, 16, 24, 2))}, "expected as many"),
        ({"depth": np.full((3, 16, 24, 2), np.nan)}, "NaN or infinity"),
    ],
)
def test_features_that_do_not_go_together_are_refused(coded, change, message):
    codec, params, frozen, features, _ = coded
    with pytest.raises(VcmError, match=message):
        codec.encode(params, frozen, features | change, LAM)
    less = {name: x for name, x in features.items() if name != "depth"}
    with pytest.raises(VcmError, match="features lack depth"):
        codec.encode(params, frozen, less, LAM)


def test_the_encoder_alone_knows_what_matters_more():
    codec = dataclasses.replace(CODEC, prioritised=True)
    features = features_of()
    params = codec.init(jax.random.key(0), features)
    frozen = codec.tables(params)
    equal = codec.encode(params, frozen, features, LAM)
    assert codec.encode(params, frozen, features, LAM, np.zeros((3, 4))) == equal
    priority = np.zeros((3, 4))
    priority[1] = (2.0, -1.0, 0.0, 0.0)
    other = codec.encode(params, frozen, features, LAM, priority)
    assert (other[0], other[2]) == (equal[0], equal[2]) and other[1] != equal[1]
    symbols = codec.quantise(params, features, codec.level_of(np.full(3, LAM)), priority)
    back = codec.decode(params, frozen, other, LAM)  # which is told of no priority
    for name in SHAPES:
        np.testing.assert_allclose(back[name], symbols.output.feature[name], atol=1e-4)
    with pytest.raises(VcmError, match=r"priority has shape \(3, 2\); expected \(3, 4\)"):
        codec.encode(params, frozen, features, LAM, np.zeros((3, 2)))
    with pytest.raises(VcmError, match="trained without"):
        CODEC.encode(params, frozen, features, LAM, priority)


@pytest.mark.parametrize("only", ["normal", "class_scene", None, 3])
def test_one_name_of_a_task_is_no_list_of_them(coded, only):
    codec, params, frozen, _, streams = coded
    with pytest.raises(VcmError, match=r"only is .*expected a tuple of names"):
        codec.decode(params, frozen, streams, LAM, only=only)


def test_a_list_of_names_is_as_good_as_a_tuple(coded):
    codec, params, frozen, _, streams = coded
    assert codec.decode(params, frozen, streams, LAM, only=["edge"]).keys() == {"edge"}


@pytest.mark.parametrize("features", [np.zeros((3, 8, 12, 3)), None, [1, 2], "normal"])
def test_features_that_are_not_by_task_are_refused(coded, features):
    codec, params, frozen, *_ = coded
    with pytest.raises(VcmError, match="expected a dict by task, of normal, class_scene"):
        codec.encode(params, frozen, features, LAM)


def test_what_else_a_dict_of_features_holds_is_left_out(coded):
    codec, params, frozen, features, streams = coded
    more = features | {"image": np.array(["a", "b"]), "label": None}
    assert codec.encode(params, frozen, more, LAM) == streams
    again = codec.init(jax.random.key(0), features | {"label": np.zeros((3, 4))})
    assert jax.tree.structure(again) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("priority", "message"),
    [
        (np.full((3, 4), np.nan), "priority holds NaN"),
        (np.full((3, 4), "a"), "priority: found <U1"),
        ([[0.0, 1.0]] * 3, r"priority has shape \(3, 2\); expected \(3, 4\)"),
        (0.0, r"priority has shape \(\)"),
        ({"normal": 1.0}, "priority: found object"),
    ],
)
def test_what_is_no_priority_is_refused(priority, message):
    codec = dataclasses.replace(CODEC, prioritised=True)
    params = codec.init(jax.random.key(0))
    with pytest.raises(VcmError, match=message):
        codec.encode(params, codec.tables(params), features_of(), LAM, priority)
