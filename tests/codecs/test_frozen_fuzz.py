"""Directories of a codec with anything done to them: they code as before, or are refused.

``pytest -m slow tests/codecs/test_frozen_fuzz.py`` does so 20 000 times.
"""

import collections
import hashlib
import json
import os
import shutil

import jax
import numpy as np
import pytest

import vcmjax
from vcmjax.codecs import stored
from vcmjax.codecs.feature import FeatureCodec
from vcmjax.codecs.frozen import FrozenCodec
from vcmjax.errors import DataError
from vcmjax.nets import pretrained
from vcmjax.tasks import ROOMS

VALUES = [
    None, True, 0, 1, -1, 0.1, 1e-30, 1e300, 10**30, "", "a", "../../esc", "class", "spatial", [],
    {}, [0.1, 0.1], [[["a"]]], {"a": 1}, "\x1b[2J", "0" * 64, 2**31, 3,
]  # fmt: skip


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    """Two codecs of one form, saved: the one that is altered, and one to take files from."""
    folder = tmp_path_factory.mktemp("codecs")
    form = FeatureCodec((2, 2, 8), "codebook", (0.1, 0.1), 2, 2, hidden=8, side=2)
    network = pretrained.shipped(ROOMS["class_scene"])
    made = []
    for seed, name in enumerate(("one", "other")):
        params = jax.jit(form.init)(jax.random.key(seed))
        near = network._replace(params=jax.tree.map(lambda x, by=seed: x + by / 8, network.params))
        made.append(FrozenCodec(form, params, form.tables(params), 0.1, near))
        made[-1].save(folder / name)
    return folder / "one", folder / "other", made[0]


def put(path, content):
    """Writes a file anew: its content is shared with the original by a hard link."""
    if path.is_symlink() or path.exists():
        path.unlink()
    path.write_bytes(content)


def altered(rng, content):
    """Bytes as damage leaves them."""
    data = bytearray(content)
    at = int(rng.integers(len(data) + 1))
    match rng.integers(7):
        case 0:
            for i in rng.integers(len(data), size=rng.integers(1, 9)):
                data[i] ^= 1 << rng.integers(8)
        case 1:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        case 2:
            data[at : at + 512] = rng.bytes(len(data[at : at + 512]))
        case 3:
            del data[at:]
        case 4:
            data += rng.bytes(int(rng.integers(1, 99)))
        case 5:
            del data[at : at + int(rng.integers(1, 99))]
        case 6:
            data[at:at] = data[: int(rng.integers(1, 99))]
    return bytes(data)


def places(value, path=()):
    """Every place in what JSON holds."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in inside:
        yield (*path, key)
        if isinstance(below, dict | list):
            yield from places(below, (*path, key))


def edit(rng, config):
    """One place of what JSON holds changed."""
    found = list(places(config))
    *above, key = found[rng.integers(len(found))]
    holder = config
    for step in above:
        holder = holder[step]
    match rng.integers(6):
        case 0:
            del holder[key]
        case 1 | 2:
            holder[key] = VALUES[rng.integers(len(VALUES))]
        case 3:
            *elsewhere, other = found[rng.integers(len(found))]
            source = config
            for step in elsewhere:
                source = source[step]
            holder[key] = json.loads(json.dumps(source[other])) if other in source else None
        case 4:
            if isinstance(holder, dict):
                holder[f"{key}x"] = holder.pop(key)
            else:
                holder.append(holder[key])
        case 5:
            if isinstance(holder[key], list):
                holder[key].reverse()
            elif isinstance(holder[key], int | float):
                holder[key] += rng.choice([-1, 1, 1e-9])
            else:
                holder[key] = str(holder[key])[::-1]


def change(rng, path, other):
    """Something done to the codec at `path`; says what."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    file = files[rng.integers(len(files))]
    kind = rng.choice(
        ["damage", "edit", "delete", "swap", "foreign", "rename", "add", "not a file", "stray",
         "layout"],
        p=[0.35, 0.25, 0.08, 0.08, 0.06, 0.05, 0.06, 0.05, 0.01, 0.01],
    )  # fmt: skip
    if kind == "damage":
        put(file, altered(rng, file.read_bytes()))
    elif kind in ("edit", "layout"):
        file = path / "codec.json"
        if file.is_file():
            config = json.loads(file.read_bytes())
            if kind == "edit":
                edit(rng, config)
            put(file, json.dumps(config, indent=int(rng.integers(9))).encode())
    elif kind == "delete":
        file.unlink()
    elif kind == "swap":
        second = files[rng.integers(len(files))]
        contents = file.read_bytes(), second.read_bytes()
        put(file, contents[1])
        put(second, contents[0])
    elif kind == "foreign":
        source = other / file.relative_to(path)
        put(file, source.read_bytes() if source.is_file() else rng.bytes(99))
    elif kind == "rename":
        file.rename(file.with_name(f"{file.name}{rng.choice(['x', '.bak', '~'])}"))
    elif kind == "add":
        name = rng.choice(["notes.txt", "network-normal.msgpack", "params/d/0", "codec.json.orig"])
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        put(path / name, rng.bytes(9))
    elif kind == "not a file":
        file.unlink()
        [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p), lambda p: os.symlink(p, p)][
            rng.integers(4)
        ](file)
    else:
        (path / rng.choice([".DS_Store", "._codec.json", "Thumbs.db", "params/.DS_Store"])).touch()
    return str(kind)


def signed_again(path):
    """The digests of files as whoever meant harm would make them, if there is anything to sign."""
    try:
        config = json.loads((path / "codec.json").read_bytes())
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        listed = {n: hashlib.sha256((path / n).read_bytes()).hexdigest() for n in names}
        config["files"] = listed | {"codec.json": stored.config_digest(config)}
    except (OSError, ValueError, TypeError, AttributeError):
        return
    put(path / "codec.json", json.dumps(config).encode())


@pytest.mark.parametrize("examples", [100, pytest.param(20_000, marks=pytest.mark.slow)])
def test_an_altered_codec_codes_as_before_or_is_refused(codecs, tmp_path, examples):
    one, other, codec = codecs
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    streams = codec.compress_images(images)
    features = codec.decompress(streams)
    output = codec.predict(features)
    path, counts = tmp_path / "codec", collections.Counter()
    for seed in range(examples):
        rng = np.random.default_rng(seed)
        shutil.copytree(one, path, copy_function=os.link)
        harm = seed % 200
        if harm == 7:  # as an earlier release saved it
            config = json.loads((path / "codec.json").read_bytes())
            config = {k: v for k, v in config.items() if k not in ("digest", "files")}
            put(path / "codec.json", json.dumps(config).encode())
        done = [change(rng, path, other) for _ in range(rng.integers(1, 4))]
        if harm == 3:
            signed_again(path)
        where = f"seed {seed}: {', '.join(done)}"
        try:
            loaded = vcmjax.load(path)
        except DataError as error:
            refusal = str(error)
        else:
            refusal = ""
        if not refusal:
            assert loaded.fingerprint == codec.fingerprint, where
            np.testing.assert_array_equal(loaded.decompress(streams), features, where)
            if harm != 7:  # whose network and encoder are under no digest
                assert loaded.digest == codec.digest, where
                np.testing.assert_array_equal(loaded.predict(features), output, where)
        shutil.rmtree(path)
        assert "\n" not in refusal and len(refusal) < 1000, where
        counts["refused" if refusal else "loaded"] += 1
    print(dict(counts))
    assert min(counts["refused"], counts["loaded"]) > examples // 200
