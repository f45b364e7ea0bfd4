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
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcmjax import arrays
from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.coding.tables import CdfTables
from vcmjax.entropy.integer import ScaleNetwork
from vcmjax.errors import DataError, VcmError
from vcmjax.nets import pretrained
from vcmjax.nets.pretrained import TaskNetwork
from vcmjax.nets.transfer import Features
from vcmjax.tasks import Task

_FORMAT = 1
_NETWORK = "scales."


@dataclasses.dataclass(frozen=True)
class FrozenCodec:
    """A codec that only codes.

    Attributes:
      codec: Hyper-parameters.
      params: Trained parameters.
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
        level = np.broadcast_to(self.codec.level_of(self._lam(lam)), (len(streams),))
        return self.codec.ideal_bits(self.tables, streams, level, size)

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
        """What the task networks make of images as of `compress_images`."""
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise VcmError(f"images are {images.dtype} {images.shape}; expected uint8 (N, H, W, 3)")
        networks = self.networks
        found = {
            name: np.asarray(networks[name].network.encode(networks[name].params, images))
            for name in self.codec.transfer.sent
        }
        return self.codec.transfer.bare(found)

    def predict(self, features: Features) -> Any:
        """The task's output (N, classes) or (N, h, w, channels) on decompressed features.

        Of several tasks a dict of those whose features are given.
        """
        networks = self.networks
        found = {
            name: np.asarray(networks[name].network.decode(networks[name].params, jnp.asarray(x)))
            for name, x in self.codec.transfer.by_name(features).items()
        }
        return self.codec.transfer.bare(found)

    def _lam(self, lam: float | np.ndarray | None) -> float | np.ndarray:
        return self.lam if lam is None else lam

    @property
    def fingerprint(self) -> bytes:
        """Eight bytes that change with anything the decoder depends on."""
        return bytes.fromhex(self._digest())[:8]

    def _digest(self) -> str:
        # What came later counts only where it is used: codecs saved before keep their name.
        later = ("outputs", "prioritised", "context")
        form = dataclasses.asdict(self.codec)
        form = {name: value for name, value in form.items() if value or name not in later}
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
          DataError: `directory` holds something else.
        """
        path = Path(directory).absolute()
        if path.exists() and not (path / "codec.json").exists():
            raise DataError(f"{path}: exists and is not a codec; name another directory.")
        aside = path.with_name(f"{path.name}.part-{os.getpid()}")
        aside.mkdir(parents=True)
        try:
            np.savez(aside / "tables.npz", **table_arrays(self.tables))  # type: ignore[arg-type]
            arrays.save(aside / "params", self.params)
            tasks = {}
            for name, each in self.networks.items() if self.network else ():
                tasks[name] = each.task._asdict()
                place = aside / _network_name(name, each.network.name == "small")
                pretrained.save(place, each.network, each.params, each.scores)
            config = {
                "format": _FORMAT,
                "codec": dataclasses.asdict(self.codec),
                "lam": self.lam,
                "task": self.codec.transfer.bare(tasks) if tasks else None,
                "fingerprint": self._digest(),
            }
            (aside / "codec.json").write_text(json.dumps(config, indent=1) + "\n")
            if path.exists():
                shutil.rmtree(path)
            os.replace(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def load(directory: str | os.PathLike[str]) -> FrozenCodec:
    """The codec that `FrozenCodec.save` wrote.

    Raises:
      DataError: No such directory; not a codec; one that is damaged or of a newer format.
    """
    path = Path(directory).absolute()
    try:
        config = json.loads((path / "codec.json").read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no codec here; expected a directory with codec.json.") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}/codec.json: not readable ({error}); copy it again.") from None
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        found = config.get("format") if isinstance(config, dict) else config
        raise DataError(
            f"{path}: codec of format {found!r}; this release reads {_FORMAT}: update vcmjax."
        )
    try:
        codec = FeatureCodec(**_tuples(config["codec"]))
        tables = read_tables(path / "tables.npz")
        like = jax.eval_shape(codec.init, jax.random.key(0))
        params = arrays.load(path / "params", like)
        network = None
        if config["task"]:
            tasks = codec.transfer.by_name(config["task"])
            network = codec.transfer.bare(
                {name: _network(path, name, Task(**_tuples(of))) for name, of in tasks.items()}
            )
        loaded = FrozenCodec(codec, params, tables, float(config["lam"]), network)
    except Exception as error:  # Orbax and zipfile raise many types on damaged files
        raise DataError(f"{path}: damaged codec ({error}); copy it again.") from error
    if loaded._digest() != config["fingerprint"]:
        raise DataError(f"{path}: its files do not match its fingerprint; copy it again.")
    return loaded


def _network_name(name: str, small: bool) -> str:
    """Of the file of a small network, or the directory of a released one."""
    return f"network{'-' if name else ''}{name}{'.msgpack' if small else ''}"


def _network(path: Path, name: str, task: Task) -> TaskNetwork:
    full = path / _network_name(name, small=False)
    return pretrained.load(full if full.exists() else path / _network_name(name, small=True), task)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    def as_tuple(value: Any) -> Any:
        return tuple(map(as_tuple, value)) if isinstance(value, list) else value

    return {name: as_tuple(value) for name, value in fields.items()}


def table_arrays(tables: Tables) -> dict[str, np.ndarray]:
    """Integer arrays that describe `tables`, to be stored; inverse of `read_tables`."""
    rows = tables.cdf.rows()
    return {
        "rows": np.concatenate(rows),
        "lengths": np.array([len(row) for row in rows], np.int32),
        "offsets": tables.offsets,
        "side_index": tables.side_index,
        **{_NETWORK + name: array for name, array in tables.scales.arrays().items()},
    }


def read_tables(path: Path) -> Tables:
    """The tables in an `.npz` file of `table_arrays`.

    Raises:
      ValueError, KeyError, OSError: It holds none.
    """
    with np.load(path) as saved:
        arrays = dict(saved)
    rows = np.split(arrays["rows"], np.cumsum(arrays["lengths"])[:-1])
    network = {k.removeprefix(_NETWORK): v for k, v in arrays.items() if k.startswith(_NETWORK)}
    return Tables(
        CdfTables.from_rows(rows),
        arrays["offsets"],
        arrays["side_index"],
        ScaleNetwork.from_arrays(network),
    )
