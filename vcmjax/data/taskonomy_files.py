"""Finds Taskonomy's files in folders and in plain tar files, which are read in place.

A file is ``point_P_view_V_domain_DOMAIN.png`` (``.npy`` for class tasks). A tar counts as a folder
of its name. The building is told by a folder on the file's path named ``BUILDING`` or
``BUILDING_DOMAIN``, so ``DOMAIN/BUILDING/``, ``BUILDING/DOMAIN/``, ``BUILDING_DOMAIN/``,
``DOMAIN/taskonomy/BUILDING/``, ``BUILDING_DOMAIN.tar``, ``DOMAIN/BUILDING.tar``, ``BUILDING.tar``
and ``DOMAIN.tar`` with folders ``BUILDING/`` inside all read alike. Where the buildings are not
known, it is the last folder that is not a domain's.
"""

import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vcmjax.data import listing, reading
from vcmjax.errors import DataError

_DOMAINS = (
    "class_object", "class_scene", "depth_euclidean", "depth_zbuffer", "edge_occlusion",
    "edge_texture", "fragments", "keypoints2d", "keypoints3d", "mask_valid",
    "nonfixated_matches", "normal", "point_info", "points", "principal_curvature", "reshading",
    "rgb", "rgb_large", "segment_semantic", "segment_unsup25d", "segment_unsup2d",
    "segmentsemantic",
)  # fmt: skip
_ALIASES = {"segmentsemantic": "segment_semantic"}  # The official files' name of the domain.
_FOLDER = re.compile(rf"(?:(.+)_)?({'|'.join(sorted(_DOMAINS, key=len, reverse=True))})")
_NUMBER = "(0|[1-9][0-9]{0,8})"
_NAME = re.compile(rf"point_{_NUMBER}_view_{_NUMBER}_domain_(\w+)\.(png|npy)")
_ROW = np.dtype([("key", "i8"), ("offset", "i8"), ("size", "i8"), ("place", "i4")])

Rows = dict[tuple[str, str, str], list[tuple[int, int, int, int]]]  # by building, domain, name


class Member(NamedTuple):
    """A file inside a plain tar; reads like a `Path`, from any number of threads at once."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        """``TAR/MEMBER``, for messages."""
        return f"{self.tar}/{self.name}"

    def read_bytes(self) -> bytes:
        """The member's content; `OSError` if the tar is gone or has been cut since indexed."""
        # Opened anew for each read: a copy has more tars than a process may hold open.
        descriptor = os.open(self.tar, os.O_RDONLY)
        try:
            content = os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)
        if len(content) < self.size:
            raise OSError(f"the tar ends after {len(content)} of its {self.size} bytes")
        return content


class Place(NamedTuple):
    """One folder, or one folder within a tar, with files of one domain of one building."""

    building: str
    domain: str
    path: Path
    """The folder or the tar."""
    name: str
    """A file's name but for its numbers; within a tar, with the folders before it."""
    rows: np.ndarray
    """Per file point << 32 | view, and offset and size in a tar (-1 in a folder); sorted."""


class Files:
    """The files of one domain of one building, 28 bytes each; of two of the same view, one."""

    def __init__(self, places: list[Place]):
        """Merges places of the same building and domain."""
        self._places = [(place.path, place.name) for place in places]
        for number, place in enumerate(places):
            place.rows["place"] = number
        rows = np.concatenate([place.rows for place in places])
        self._rows = rows[np.unique(rows["key"], return_index=True)[1]]

    @property
    def keys(self) -> np.ndarray:
        """Key point << 32 | view of each file, ascending int64."""
        return self._rows["key"]

    def get(self, key: int) -> Path | Member | None:
        """The file of a view, None where there is none."""
        index = int(np.searchsorted(self.keys, key))
        if index == len(self._rows) or self.keys[index] != key:
            return None
        _, offset, size, place = self._rows[index].item()
        path, name = self._places[place]
        return _file(path, name, key, offset, size)


def _file(path: Path, pattern: str, key: int, offset: int, size: int) -> Path | Member:
    name = pattern % (key >> 32, key & 0xFFFFFFFF)
    return path / name if size < 0 else Member(path, name, offset, size)


def files(place: Place) -> Iterator[Path | Member]:
    """Each file of a place, in order of point and view."""
    for key, offset, size, _ in place.rows.tolist():
        yield _file(place.path, place.name, key, offset, size)


def index(
    root: Path,
    domains: Collection[str],
    mine: Collection[str] = (),
    others: Collection[str] = (),
) -> dict[str, dict[str, Files]]:
    """Files by building and domain; arguments and errors as for `scan`."""
    places: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for place in scan(root, domains, mine, others):
        places[place.building, place.domain].append(place)
    result: dict[str, dict[str, Files]] = defaultdict(dict)
    for (building, domain), found in places.items():
        result[building][domain] = Files(found)
    return dict(result)


def scan(
    root: Path,
    domains: Collection[str],
    mine: Collection[str] = (),
    others: Collection[str] = (),
) -> Iterator[Place]:
    """Every place with files, in order of path; tars are read once, headers only.

    Args:
      root: Folder of the copy.
      domains: Which to find. Folders and tars named after other domains are not entered.
      mine: Buildings to find; if empty all, named by their folders.
      others: Buildings whose folders and tars are not entered.

    Raises:
      DataError: A tar is compressed, damaged or cut short.
    """

    def skipped(part: str) -> bool:
        building, domain = _split(part)
        return building in others or bool(domain and domain not in domains)

    for folder, inner, names in listing.walk(root):
        inner[:] = [part for part in inner if not skipped(part)]
        path = Path(folder)
        parts = path.relative_to(root).parts
        rows: Rows = defaultdict(list)
        for found in filter(None, map(_NAME.fullmatch, names)):
            _add(rows, found, parts, "", mine, (-1, -1))
        yield from _places(path, rows, domains)
        for name in names:
            stem, dot, suffix = name.partition(".")
            if not dot or suffix not in ("tar", "tar.gz", "tgz") or skipped(stem):
                continue
            if not (path / name).is_file():  # a pipe would wait for ever
                continue
            if suffix != "tar":
                raise reading.bad(
                    path / name, _split(stem)[1] or "files", "a plain tar", "a compressed one",
                    "Decompress it with gunzip (the .tar may stay packed), or unpack it.",
                )  # fmt: skip
            rows.clear()
            for member, span in _members(path / name):
                before, _, last = member.rpartition("/")
                if match := _NAME.fullmatch(last):
                    inside = before.split("/") if before else ()
                    _add(rows, match, (*parts, stem, *inside), f"{before}/" * bool(before),
                         mine, span)  # fmt: skip
            yield from _places(path / name, rows, domains)


def _split(part: str) -> tuple[str | None, str | None]:
    """Building and domain that the name of a folder or tar tells."""
    if match := _FOLDER.fullmatch(part):
        return match[1], _ALIASES.get(match[2], match[2])
    return part, None


def _add(
    rows: Rows,
    match: re.Match[str],
    parts: Sequence[str],
    before: str,
    mine: Collection[str],
    span: tuple[int, int],
) -> None:
    """Files one match of `_NAME` under its building, domain and name without numbers."""
    told = [building for building in (_split(part)[0] for part in parts) if building]
    found = [building for building in told if building in mine] if mine else told[-1:]
    if found:
        domain = _ALIASES.get(match[3], match[3])
        name = f"{before.replace('%', '%%')}point_%d_view_%d_domain_{match[3]}.{match[4]}"
        key = int(match[1]) << 32 | int(match[2])
        rows[found[0], domain, name].append((key, *span, 0))


def _places(path: Path, rows: Rows, domains: Collection[str]) -> Iterator[Place]:
    for (building, domain, name), found in sorted(rows.items()):
        if domain in domains:
            yield Place(building, domain, path, name, np.sort(np.array(found, _ROW), order="key"))


def _members(path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name and (offset, size) of each file in a tar."""
    size = path.stat().st_size
    last, reason = "", ""
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would hold every header.
                last = member.name
                if member.isreg():
                    if member.offset_data + member.size > size:
                        break
                    yield last.removeprefix("./"), (member.offset_data, member.size)
            # tarfile takes a cut or garbled header for the end; a whole tar ends in zeros.
            with open(path, "rb") as file:
                file.seek(tar.offset)
                whole = member is None and file.read(512) == bytes(512)
    except (OSError, tarfile.TarError) as error:
        whole, reason = False, f" ({type(error).__name__}: {error})"
    if not whole:
        found = f"that end or are damaged at {last}" if last else "that do not begin as one"
        raise DataError(
            f"{path}: expected a whole plain tar, found {size} bytes {found}{reason}. "
            "Copy it again, or unpack what there is and take the tar away."
        )
