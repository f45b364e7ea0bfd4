"""The directory of a frozen codec: its description, its tables, and the digests of its files.

    codec.json     hyper-parameters, λ, tasks, fingerprint, digests
    tables.npz     integer tables
    params/        by Orbax, see `vcmjax.arrays`
    network...     of each task, see `vcmjax.nets.pretrained`

All of it may come from others. Every file is checked before it is understood, which tells damage;
what is then read is checked too, as digests tell nothing of who wrote them.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vcmjax import arrays, tasks
from vcmjax.codecs.feature import FeatureCodec, Tables
from vcmjax.coding.tables import CdfTables
from vcmjax.entropy import gaussian
from vcmjax.entropy.integer import ScaleNetwork
from vcmjax.errors import DataError, VcmError
from vcmjax.io import atomic, files
from vcmjax.tasks import Task

CONFIG, TABLES, PARAMS = "codec.json", "tables.npz", "params"
FORMAT = 1
LATER = ("outputs", "prioritised", "context")
"""Hyper-parameters that codecs saved before do not name; they count only where they are used."""
MOST_CONFIG, MOST_TABLES = 1 << 20, 1 << 27
"""Bytes of the description, and of all tables once they are unpacked."""
_MOST_MEMBERS, _MOST_ROWS = 1000, 1 << 18
_OWN = re.compile(r"codec\.json|tables\.npz|params/.*|network(-.*)?(\.msgpack|/.*)")
_PARTS = ("rows", "lengths", "offsets", "side_index")
_NETWORK = "scales."


def place(directory: str | os.PathLike[str]) -> Path:
    """The directory that is meant, ``~`` being the user's own.

    Raises:
      DataError: It cannot be the name of one.
    """
    name = os.fsdecode(directory)
    if not name or "\0" in name:
        raise DataError(f"{name!r}: expected the name of a directory")
    return Path(os.path.abspath(os.path.expanduser(name)))


@contextlib.contextmanager
def using(path: Path, name: str) -> Iterator[None]:
    """Turns any failure to make sense of one file of the codec at `path` into a `DataError`."""
    try:
        yield
    except Exception as error:  # of many types: zipfile, numpy, msgpack, Orbax, Flax
        reason = str(error) if isinstance(error, VcmError) else arrays.first_line(error)
        remedy = "copy it again, or update vcmjax if a newer one wrote it"
        raise DataError(f"{path}: damaged codec ({name}: {reason[:400]}); {remedy}.") from error


def read_config(path: Path) -> dict[str, Any]:
    """What ``codec.json`` says, which is of this release's format.

    Raises:
      DataError: There is none, or it is another's.
    """
    try:
        content = files.read(path / CONFIG, MOST_CONFIG)
        config = json.loads(content, parse_constant=_no_number)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no codec here; expected a directory with {CONFIG}.") from None
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path}/{CONFIG}: not readable ({error}); copy it again.") from None
    form = config.get("format") if isinstance(config, dict) else config
    if form != FORMAT or isinstance(form, bool):
        raise DataError(
            f"{path}: codec of format {_short(form)}; this release reads {FORMAT}: update vcmjax."
        )
    expected: dict[str, Any] = {
        "codec": dict,
        "task": dict | None,
        "lam": int | float,
        "fingerprint": str,
    }
    expected |= {name: kind for name, kind in _DIGESTS.items() if _DIGESTS.keys() & config.keys()}
    for name, kind in expected.items():
        if name not in config:
            raise DataError(f"{path}: damaged codec ({CONFIG} lacks {name!r}); copy it again.")
        if not isinstance(config[name], kind) or isinstance(config[name], bool):
            found = _short(config[name])
            raise DataError(f"{path}: damaged codec ({CONFIG}: {name} is {found}); copy it again.")
    return config


_DIGESTS = {"digest": str, "files": dict}
"""Of codecs saved by earlier releases neither is there; one alone is damage."""


def write_config(path: Path, config: dict[str, Any]) -> None:
    """Writes ``codec.json`` beside all other files, with the digests of all."""
    digests = files.digests(files.regular(path))
    listed = {"files": {CONFIG: config_digest(config), **digests}}
    (path / CONFIG).write_text(json.dumps(config | listed, indent=1) + "\n", encoding="utf-8")


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of what ``codec.json`` says, however it is laid out, but for the digests of files."""
    said = {name: value for name, value in config.items() if name != "files"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_files(path: Path, config: Mapping[str, Any]) -> list[str]:
    """Names of the codec's files, which are there, alone, and as they were saved.

    Of a codec saved by an earlier release they are taken as they are.

    Raises:
      DataError: Names what is missing, has been added, or differs.
    """
    present = files.regular(path)
    listed = config.get("files")
    if listed is None:
        return list(present)
    if missing := sorted(listed.keys() - present.keys()):
        raise DataError(f"{path}: damaged codec ({missing[0]!r} is missing); copy it again.")
    if added := _strangers(present, config):
        raise DataError(f"{path}: holds {added[0]!r}, which is no part of the codec; move it away.")
    found = {CONFIG: config_digest(config)}
    found |= files.digests({name: p for name, p in present.items() if name != CONFIG})
    for name, digest in found.items():
        if digest != listed[name]:
            raise DataError(
                f"{path}: damaged codec ({name!r} is not as it was saved: its files do not match "
                "its fingerprint and digests); copy it again."
            )
    return list(present)


def check_replaceable(path: Path) -> None:
    """Refuse to replace what is no codec, or holds other things besides.

    Raises:
      DataError: Says what there is.
    """
    with atomic.naming(path, "written"):
        if not path.exists():
            return
        if not (path / CONFIG).is_file():
            raise DataError(f"{path}: exists and is not a codec; name another directory.")
    here = Path(os.path.realpath("."))
    if path.resolve() in (here, *here.parents):
        raise DataError(
            f"{path}: is the current directory, or holds it, and would vanish under this process "
            "when it is replaced; save from elsewhere."
        )
    if added := _strangers(files.regular(path), read_config(path)):
        raise DataError(f"{path}: holds {added[0]!r}, which is no part of a codec; move it away.")


def _strangers(present: Mapping[str, Path], config: Mapping[str, Any]) -> list[str]:
    listed = config.get("files")
    return [n for n in present if not (_OWN.fullmatch(n) if listed is None else n in listed)]


def codec_of(fields: Mapping[str, Any]) -> FeatureCodec:
    """The codec of given hyper-parameters.

    Raises:
      VcmError: Some are missing or unknown, or cannot be.
    """
    names = {field.name for field in dataclasses.fields(FeatureCodec)}
    if unknown := sorted(fields.keys() - names):
        raise VcmError(f"hyper-parameter {unknown[0]!r} is unknown to this release")
    if missing := sorted(names - fields.keys() - set(LATER)):
        raise VcmError(f"hyper-parameter {missing[0]!r} is missing")
    shapes = {name: _shapes(fields[name]) for name in ("shape", "outputs") if name in fields}
    codec = FeatureCodec(**{**fields, **shapes})
    if codec.prior is None:
        raise VcmError("prior is None, of which there are no tables")
    return codec


def tasks_of(codec: FeatureCodec, config: Mapping[str, Any] | None) -> dict[str, Task]:
    """The tasks whose networks are there, by name as `codec` has them.

    Raises:
      VcmError: They are described otherwise, or cannot be.
    """
    if config is None:
        return {}
    given = codec.transfer.by_name(config)
    if codec.transfer.joint:
        tasks.check_names(given)
    found = {name: _task(fields) for name, fields in given.items()}
    for task in found.values():
        tasks.check(task)
    return found


def _task(fields: Any) -> Task:
    if not isinstance(fields, dict) or fields.keys() != set(Task._fields):
        raise VcmError(f"task is {_short(fields)}; expected {', '.join(Task._fields)}")
    classes = fields["classes"]
    return Task(**fields | {"classes": tuple(classes) if isinstance(classes, list) else classes})


def _shapes(value: Any) -> Any:
    """Lists, and lists in them, as tuples; anything deeper is refused where shapes are checked."""
    if not isinstance(value, list):
        raise VcmError(f"shape is {_short(value)}; expected a list")
    return tuple(
        (each[0], tuple(each[1])) if isinstance(each, list) and len(each) == 2 else each
        for each in value
    )


# Tables


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
      VcmError, ValueError, KeyError, OSError, zipfile.BadZipFile: It holds none.
    """
    found = _arrays(files.read(path, MOST_TABLES))
    lengths = found["lengths"]
    if (
        lengths.size > _MOST_ROWS
        or lengths.min(initial=3) < 3
        or lengths.sum() != len(found["rows"])
    ):
        raise VcmError(f"rows are not as long as lengths say, or more than {_MOST_ROWS}")
    rows = np.split(found["rows"], np.cumsum(lengths)[:-1])
    network = {k.removeprefix(_NETWORK): v for k, v in found.items() if k.startswith(_NETWORK)}
    return Tables(
        CdfTables.from_rows(rows),
        found["offsets"],
        found["side_index"],
        ScaleNetwork.from_arrays(network),
    )


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file that describe tables, none larger than it says it is."""
    found = {}
    if content.count(b"PK\x01\x02") > _MOST_MEMBERS:  # each of which costs a kilobyte of memory
        raise VcmError(f"over {_MOST_MEMBERS} arrays")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [
            each
            for each in archive.infolist()
            if each.filename.removesuffix(".npy") in _PARTS or each.filename.startswith(_NETWORK)
        ]
        if sum(each.file_size for each in members) > MOST_TABLES:
            raise VcmError(f"tables of over {MOST_TABLES} bytes")
        for each in members:
            found[each.filename.removesuffix(".npy")] = _array(each.filename, archive.read(each))
    return found


def _array(name: str, content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise VcmError(f"{name}: not an array as NumPy writes it")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind != "i" or len(content) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise VcmError(f"{name}: {dtype} {shape} in {len(content)} bytes; expected integers")
    return np.load(io.BytesIO(content), allow_pickle=False)


def check_tables(codec: FeatureCodec, found: Tables) -> None:
    """Refuse tables that are not of `codec`.

    Raises:
      VcmError: Says what does not fit.
      Exception: Of any kind, where the scale network cannot be run at all.
    """
    count, levels = len(found.cdf.sizes), codec.levels
    least = len(gaussian.SCALES)
    expected = {
        "tables": (count, least + (levels * codec.side if codec.prior == "spatial" else 0)),
        "offsets": (found.offsets.shape, (count,)),
        "side_index": (found.side_index.shape, (levels, codec.side)),
        "thresholds": (found.scales.thresholds.shape, (least - 1,)),
        "context": (bool(found.scales.context), codec.context),
    }
    for name, (is_, wanted) in expected.items():
        if is_ != wanted:
            raise VcmError(f"{name}: found {is_}, expected {wanted}")
    index, offsets = found.side_index, found.offsets
    if not 0 <= index.min() <= index.max() < count or np.any(np.diff(found.scales.thresholds) < 0):
        raise VcmError("an index of a table, or a threshold, is out of order")
    if offsets.max() > 0 or offsets.min() < -(1 << 16):
        raise VcmError(f"offsets reach from {offsets.min()} to {offsets.max()}")
    _run(codec, found.scales)


def _run(codec: FeatureCodec, scales: ScaleNetwork) -> None:
    """The scale network on a latent of two positions each way, at the greatest level."""
    size = (2, 2) if codec.spatial else ()
    shape, level = (1, *size, codec.latent_channels), np.array([codec.levels - 1])
    side = np.zeros((1, *codec.side_shape(size)), np.int32)
    log_scales = scales.log_scales(side, level, size)
    if codec.context:
        anchor = np.ones((*size, 1), bool)
        log_scales = scales.in_context(log_scales, np.zeros(shape), anchor, level)
    if log_scales.shape != shape:
        raise VcmError(f"scales are {log_scales.shape}; expected {shape}")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
