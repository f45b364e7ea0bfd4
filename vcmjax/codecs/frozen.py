"""A trained codec as it is deployed: parameters, integer tables and configuration in one directory.

    codec = vcmjax.load("segmentation")
    streams = codec.compress(features)           # a list of bytes
    features = codec.decompress(streams)

There is no step to forget between loading and coding: the tables were frozen when it was saved.
Its fingerprint names it in every `.vcm` file. One of several tasks takes and gives dictionaries.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax import arrays, tasks
from vcmjax.codecs import arguments, stored
from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.codecs.stored import read_tables, table_arrays
from vcmjax.errors import DataError, UsageError, VcmError
from vcmjax.io import atomic
from vcmjax.nets import hourglass, pretrained, small_hourglass, transfer
from vcmjax.nets.hourglass import Hourglass
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.nets.transfer import Features
from vcmjax.tasks import Task

__all__ = ["FrozenCodec", "load", "read_tables", "table_arrays"]
log = logging.getLogger("vcmjax")


@dataclasses.dataclass(frozen=True)
class FrozenCodec:
    """A codec that only codes.

    Attributes:
      codec: Hyper-parameters.
      params: Trained parameters, float32.
      tables: Integers, from ``codec.tables(params)``.
      lam: λ at which `compress` codes unless told otherwise.
      network: The task network whose features are coded, of several tasks those by name, the ones
        that come back included; None where the user has their own.
    """

    codec: FeatureCodec
    params: dict[str, Any]
    tables: Tables
    lam: float
    network: TaskNetwork | Mapping[str, TaskNetwork] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot code; parameters of other types are rounded to float32.

        Raises:
          VcmError: λ out of range; a codec without prior; networks that are not by task, or lack
            one; a fork of a process that has used JAX.
        """
        arrays.check_process()
        if self.codec.prior is None:
            raise VcmError("codec.prior is None: the Control Group has no bytes; expected another")
        if self.codec.level_of(self.lam).ndim:
            raise VcmError(f"lam is {self.lam}; expected one number")
        object.__setattr__(self, "lam", float(self.lam))
        if self.network is not None:
            if isinstance(self.network, Mapping) != self.codec.transfer.joint:
                raise VcmError(
                    "network is of one task and codec of several, or the other way round"
                )
            known = self.codec.transfer.sent | self.codec.transfer.received
            if missing := known.keys() - self.networks.keys():
                raise VcmError(f"network lacks {', '.join(sorted(missing))}")
        as_float = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), self.params)
        object.__setattr__(self, "params", as_float)

    def compress(
        self,
        features: Features,
        lam: float | np.ndarray | None = None,
        priority: np.ndarray | None = None,
    ) -> list[bytes]:
        """One byte string per feature.

        Args:
          features: (N, *codec.shape), finite; H and W may differ. Of several tasks a dict.
          lam: λ, a scalar or (N,), within ``codec.lams``; None for this codec's own. The decoder
            must be told it.
          priority: (N, tasks that come back), of a codec that takes it: see `FeatureCodec.encode`.

        Raises:
          VcmError: Features of another shape or not finite; λ out of range; a priority of another
            shape, or one that this codec does not take.
        """
        return self.codec.encode(self.params, self.tables, features, self._lam(lam), priority)

    def decompress(
        self,
        streams: Sequence[bytes],
        lam: float | np.ndarray | None = None,
        size: tuple[int, int] | None = None,
        only: tuple[str, ...] = (),
    ) -> Features:
        """The features (N, *codec.shape) float32 that `compress` meant; of several tasks a dict.

        Args:
          streams: From `compress`.
          lam: As given to `compress`.
          size: (H, W) of the features, where not those of ``codec.shape``.
          only: Of several tasks, those whose features are wanted; empty for all.

        Raises:
          CorruptStream: A stream no encoder can have written.
          VcmError: A task in `only` that does not come back.
        """
        chosen = self._lam(lam)
        return self.codec.decode(self.params, self.tables, streams, chosen, size, only=only)

    def spent(
        self,
        streams: Sequence[bytes],
        lam: float | np.ndarray | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bits of each stream that its tables ask for: (N,) of side, and (N,) of latent symbols.

        What remains of a stream's length is termination. Arguments as of `decompress`.
        """
        listed = arguments.byte_strings(streams)
        level = self.codec.levels_of(self._lam(lam), len(listed))
        return self.codec.ideal_bits(self.tables, listed, level, size)

    def compress_images(
        self, images: np.ndarray, lam: float | np.ndarray | None = None
    ) -> list[bytes]:
        """One byte string per image: (N, H, W, 3) uint8, H and W multiples of a network's stride.

        Raises:
          VcmError: This codec has no encoder network; images of another form.
        """
        return self.compress(self.features(images), lam)

    @property
    def networks(self) -> dict[str, TaskNetwork]:
        """The task networks by name, as ``codec.transfer`` has the features.

        Raises:
          VcmError: There are none.
        """
        if self.network is None:
            raise VcmError("this codec holds no task network; give it features, not images")
        return dict(self.codec.transfer.by_name(self.network))

    @property
    def stride(self) -> int:
        """Image pixels per position of the feature whose size ``codec.transfer.size`` is."""
        spatial = (n for n, shape in self.codec.transfer.sent.items() if len(shape) == 3)
        return self.networks[next(spatial)].network.stride

    def features(self, images: np.ndarray) -> Features:
        """What the task networks make of images as of `compress_images`.

        Raises:
          VcmError: As of `compress_images`; a fork of a process that has used JAX.
        """
        arrays.check_process()
        networks, images = self.networks, arguments.numbers("images", images)
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise VcmError(f"images are {images.dtype} {images.shape}; expected uint8 (N, H, W, 3)")
        found = {}
        for name in self.codec.transfer.sent:
            network, params = networks[name].network, networks[name].params
            if any(n % network.stride or not n for n in images.shape[1:3]):
                raise VcmError(
                    f"images are of {images.shape[1:3]} pixels; expected multiples of "
                    f"{network.stride}, the stride of the task network"
                )
            found[name] = np.asarray(network.encode(params, images))
        return self.codec.transfer.bare(found)

    def predict(self, features: Features) -> Any:
        """The task's output (N, classes) or (N, h, w, channels) on decompressed features.

        Of several tasks a dict of those whose features are given.

        Raises:
          VcmError: This codec has no networks; features of another shape or type, or of a task
            that it does not know; a fork of a process that has used JAX.
        """
        arrays.check_process()
        networks, of = self.networks, self.codec.transfer
        found = {}
        for name, given in of.given(features).items():
            known = of.sent | of.received
            if name not in known:
                raise VcmError(f"features of {name!r}; expected of {', '.join(known)}")
            x = arguments.as_float(f"features of {name}" if name else "features", given)
            transfer.check_shape(name, known[name], x)
            network, params = networks[name].network, networks[name].params
            found[name] = np.asarray(network.decode(params, jnp.asarray(x)))
        return of.bare(found)

    def _lam(self, lam: float | np.ndarray | None) -> float | np.ndarray:
        return self.lam if lam is None else lam

    @property
    def fingerprint(self) -> bytes:
        """Eight bytes that change with anything the decoder depends on."""
        return bytes.fromhex(self._fingerprint())[:8]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that change with anything there is of the codec.

        That is what `fingerprint` tells, and the encoder, λ, the task networks as they are stored
        and the names of tasks and classes; never the place or time of saving.
        """
        networks = {
            name: [each.task._asdict(), each.network.name, pretrained.digest(each)]
            for name, each in (self.networks.items() if self.network else ())
        }
        whole = {
            "fingerprint": self._fingerprint(),
            "analysis": arrays.digest(self.params["analysis"]),
            "lam": self.lam,
            "networks": networks,
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def _fingerprint(self) -> str:
        # What came later counts only where it is used: codecs saved before keep their name.
        form = dataclasses.asdict(self.codec)
        form = {name: value for name, value in form.items() if value or name not in stored.LATER}
        digest = hashlib.sha256(json.dumps(form).encode())
        for name, array in sorted(table_arrays(self.tables).items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        decoder = {name: part for name, part in self.params.items() if name != "analysis"}
        for path, leaf in jax.tree_util.tree_leaves_with_path(decoder):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write everything to `directory`, whole or not at all; replaces one saved before.

        Raises:
          DataError: `directory` holds something else, is the current one, or cannot be written.
          VcmError: What could not be loaded again: parameters of another codec, or not finite; a
            task or network of another form than those of this package.
        """
        path = stored.place(directory)
        self._check_storable()
        stored.check_replaceable(path)
        with atomic.directory(path) as aside:
            with open(aside / stored.TABLES, "wb") as file:
                np.savez(file, **table_arrays(self.tables))  # type: ignore[arg-type]
            arrays.save(aside / stored.PARAMS, self.params)
            described = {}
            for name, each in self.networks.items() if self.network else ():
                described[name] = each.task._asdict()
                place = aside / _network_name(name, each.network.name == "small")
                pretrained.save(place, each.network, each.params, each.scores)
            stored.write_config(
                aside,
                {
                    "format": stored.FORMAT,
                    "codec": dataclasses.asdict(self.codec),
                    "lam": self.lam,
                    "task": self.codec.transfer.bare(described) if described else None,
                    "fingerprint": self._fingerprint(),
                    "digest": self.digest,
                },
            )

    def _check_storable(self) -> None:
        """Refuse what `load` would."""
        like = jax.eval_shape(self.codec.init, jax.random.key(0))
        if _shapes(self.params) != _shapes(like):
            raise VcmError("params are those of another codec: their names or shapes differ")
        self._check_finite()
        if self.network is None:
            return
        if self.codec.transfer.joint:
            tasks.check_names(self.networks)
        for name, each in self.networks.items():
            tasks.check(each.task)
            if each.network not in _known(each.task):
                raise VcmError(
                    f"network {name or each.task.name!r} is of another form than those of "
                    "vcmjax.nets.pretrained, and cannot be stored; save the codec with network=None"
                )

    def _check_finite(self) -> None:
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            if not np.isfinite(np.asarray(leaf)).all():
                where = jax.tree_util.keystr(path)
                raise VcmError(f"params{where} holds NaN or infinity; its training has diverged")


def load(directory: str | os.PathLike[str]) -> FrozenCodec:
    """The codec that `FrozenCodec.save` wrote, every file of it checked.

    Raises:
      DataError: No such directory; not a codec; one that is damaged, has been changed, or is of a
        newer format.
      VcmError: This process was forked from one that has used JAX.
    """
    arrays.check_process()
    path = stored.place(directory)
    atomic.recover(path)
    config = stored.read_config(path)
    names = stored.check_files(path, config)
    with stored.using(path, stored.CONFIG):
        codec = stored.codec_of(config["codec"])
        of = stored.tasks_of(codec, config["task"])
    with stored.using(path, stored.TABLES):
        tables = read_tables(path / stored.TABLES)
        stored.check_tables(codec, tables)
    with stored.using(path, stored.PARAMS):
        like = jax.eval_shape(codec.init, jax.random.key(0))
        params = arrays.load(path / stored.PARAMS, like)
    networks = {}
    for name, task in of.items():
        whole = f"{_network_name(name, small=False)}/"
        file = _network_name(name, not any(other.startswith(whole) for other in names))
        with stored.using(path, file):
            networks[name] = pretrained.load(path / file, task)
    with stored.using(path, stored.CONFIG):
        network = codec.transfer.bare(networks) if networks else None
        loaded = FrozenCodec(codec, params, tables, config["lam"], network)
        loaded._check_finite()
    if loaded._fingerprint() != config["fingerprint"]:
        raise DataError(f"{path}: its files do not match its fingerprint; copy it again.")
    if "digest" not in config:
        log.warning(
            "%s: saved by an earlier release; no digest covers its encoder, task network and names."
            " Save it again to add one",
            path,
        )
    elif loaded.digest != config["digest"]:
        raise DataError(f"{path}: its files do not match its digest; copy it again.")
    return loaded


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def _known(task: Task) -> list[Hourglass]:
    """The networks of `task` that can be stored."""
    found = [small_hourglass.hourglass(task)]
    try:
        found.append(hourglass.hourglass(task))
    except UsageError:  # the release has none for it
        return found
    return found


def _network_name(name: str, small: bool) -> str:
    """Of the file of a small network, or the directory of a released one."""
    return f"network{'-' if name else ''}{name}{'.msgpack' if small else ''}"
