"""Procedural indoor scenes with exact labels for every task of `vcmjax.tasks.ROOMS`.

A stand-in for Taskonomy, whose images cannot be passed on: furnished rooms of ten types, drawn by
ray casting, in building styles that no two splits share. Label conventions follow Taskonomy's
files; `write_taskonomy` writes them.
"""

import contextlib
import csv
import functools
import io
import operator
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from vcmjax.data import rooms_render as render
from vcmjax.data import rooms_scene, rooms_shade
from vcmjax.data.rooms_style import STYLES, Draw, building
from vcmjax.data.taskonomy_encode import encode
from vcmjax.errors import DataError, UsageError
from vcmjax.tasks import SEGMENT_CLASSES

_SPLITS = tuple(STYLES)


def _check_split(split: str) -> None:
    if split not in STYLES:
        raise UsageError(f"rooms: `split` is {split!r}; expected one of {', '.join(_SPLITS)}.")


def style_of(split: str, index: int, seed: int) -> int:
    """Id of the building style of a room.

    Args:
      split: One of train, val, test.
      index: Number of the room, >= 0.
      seed: Seed of the data set, >= 0.

    Returns:
      A member of ``STYLES[split]``: 0 to 39 in train, 40 to 47 in val, 48 to 55 in test.

    Raises:
      UsageError: `split` is unknown.
    """
    _check_split(split)
    return Draw(seed, _SPLITS.index(split), index, 0).pick(list(STYLES[split]))


class Rooms:
    """Random-access source of rendered rooms; the same arguments give the same bytes."""

    def __init__(self, split: str, count: int, size: int = 128, seed: int = 0) -> None:
        """Describe the source; nothing is rendered yet.

        Args:
          split: One of train, val, test.
          count: Number of rooms, >= 1. A larger source starts with the rooms of a smaller one.
          size: Rows and columns of every picture, a multiple of 8 from 32 to 1024.
          seed: Seed, >= 0. Styles do not depend on it.

        Raises:
          UsageError: An argument is outside its range.
        """
        _check_split(split)
        if count < 1:
            raise UsageError(f"rooms: `count` is {count}; expected at least 1.")
        if size % 8 or not 32 <= size <= 1024:
            raise UsageError(f"rooms: `size` is {size}; expected a multiple of 8 from 32 to 1024.")
        if seed < 0:
            raise UsageError(f"rooms: `seed` is {seed}; expected 0 or more.")
        self.split, self.count, self.size, self.seed = split, count, size, seed

    def __len__(self) -> int:
        """Number of rooms."""
        return self.count

    def scene(self, index: int) -> rooms_scene.Scene:
        """Geometry, materials, lights and camera of a room.

        Raises:
          IndexError: `index` is not in [0, count).
        """
        if not 0 <= index < self.count:
            raise IndexError(
                f"rooms: index {index} is outside the {self.count} rooms of {self.split!r}; "
                f"expected 0 to {self.count - 1}."
            )
        style = building(style_of(self.split, index, self.seed))
        return rooms_scene.sample(self._draw(index, 1), style)

    def _draw(self, index: int, stream: int) -> Draw:
        return Draw(self.seed, _SPLITS.index(self.split), index, stream)

    def __getitem__(self, index: SupportsIndex) -> dict[str, np.ndarray]:
        """Picture and labels of a room, with H = W = size.

        Args:
          index: 0 to count - 1.

        Returns:
          A dictionary of

          * ``image`` uint8 (H, W, 3), sRGB-like
          * ``class_scene`` int32 (), index into `ROOM_CLASSES`
          * ``class_object`` int32 (), index into `OBJECT_CLASSES` of the object with most pixels
          * ``segment_semantic`` uint8 (H, W), index into `SEGMENT_CLASSES`
          * ``normal`` float32 (H, W, 3), unit outward normal of the visible side in camera axes: x
            right, y down, z away from the camera. A surface facing the camera squarely is
            (0, 0, -1), the floor under a level camera (0, -1, 0); the product with the viewing ray
            is never positive.
          * ``reshading`` float32 (H, W, 1) in [0, 1]: Lambert shading by a light at the camera,
            ``max(0, -n . r) / (1 + (distance / 8 m)**2)``, r the unit viewing ray
          * ``principal_curvature`` float32 (H, W, 2) in (-1, 1): curvatures k1 >= k2 in 1/m, convex
            positive, as ``k / (|k| + 10)``: planes 0, radius 10 cm 1/2, seen from inside -1/2
          * ``depth_zbuffer`` float32 (H, W, 1), metres along the optical axis
          * ``depth_euclidean`` float32 (H, W, 1), metres along the viewing ray

        Raises:
          IndexError: `index` is not in [0, count).
        """
        index = operator.index(index)
        scene = self.scene(index)
        depth, hit = render.cast(scene.camera, scene.room, scene.primitives, self.size)
        segment, normal, reshading, curvature = render.labels(
            scene.camera, scene.primitives, depth, hit
        )
        pixels = np.bincount(segment.ravel(), minlength=len(SEGMENT_CLASSES))[1:]
        across = ((np.arange(self.size) + 0.5) * 2 / self.size - 1) * scene.camera[12]
        ray = np.sqrt(1 + across[:, None] ** 2 + across[None, :] ** 2)
        return {
            "image": self._photograph(index, scene, depth, hit),
            "class_scene": np.array(scene.room_class, np.int32),
            "class_object": np.array(pixels.argmax(), np.int32),
            "segment_semantic": segment,
            "normal": normal,
            "reshading": reshading,
            "principal_curvature": curvature,
            "depth_zbuffer": depth[..., None].astype(np.float32),
            "depth_euclidean": (depth * ray)[..., None].astype(np.float32),
        }

    def _photograph(
        self, index: int, scene: rooms_scene.Scene, depth: np.ndarray, hit: np.ndarray
    ) -> np.ndarray:
        """The 8-bit picture: light, lens, exposure, sensor noise."""
        lit = rooms_shade.shadows(
            scene.camera, scene.primitives, scene.groups, scene.lights[0, :3], depth, hit
        )
        fine = render.cast(scene.camera, scene.room, scene.primitives, 2 * self.size)
        light = rooms_shade.shade(
            scene.camera, scene.room, scene.primitives, scene.materials, scene.lights,
            scene.ambient, *fine, lit,
        )  # fmt: skip
        # float32 from here: the transcendental functions below are what costs.
        light = (light * (scene.exposure / max(float(light.mean()), 1e-6))).astype(np.float32)
        across = (np.arange(self.size, dtype=np.float32) + 0.5) * 2 / self.size - 1
        light *= 1 - np.float32(scene.vignette / 2) * (across[:, None] ** 2 + across**2)[..., None]
        # Highlights are compressed, not clipped.
        light = light * (1 + light / 4) / (1 + light)
        picture = 255 * np.sqrt(np.clip(light * np.float32(1.35), 0, 1))
        noise = self._draw(index, 2).generator.standard_normal(picture.shape, np.float32)
        picture += np.float32(scene.noise) * noise
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def write_taskonomy(
    root: Path,
    sources: dict[str, Rooms],
    *,
    tar: bool = False,
    quirks: bool = False,
    official_classes: bool = False,
) -> None:
    """Write rooms as files in Taskonomy's layout and encoding.

    ``DOMAIN/BUILDING/point_P_view_0_domain_DOMAIN.png`` (``.npy`` for the class domains), one
    building per style, P the room's index in its split, and ``splits.csv`` with columns id, train,
    val, test. normal is ``round((n + 1) / 2 * 255)``; reshading grey stored as RGB in 1/255;
    principal_curvature ``round(127 + 127 v)`` in two channels and a third of zeros;
    segment_semantic id + 1; depths uint16 in 1/512 m, 65535 invalid; classes one-hot float32.
    Taskonomy's edge domains are left out: they come of its own filters, not of the geometry.

    Args:
      root: Folder to write to; made if missing.
      sources: Split name to source.
      tar: Pack ``BUILDING_DOMAIN.tar`` with members ``DOMAIN/point_...`` instead.
      quirks: As copies have been seen: segments in files ``..._domain_segmentsemantic.png``; and
        of each room of even index, rgb as JPEG inside ``.png``, normal as RGBA, reshading as
        16-bit grey, segments with a palette, and segments uncertain (0) and depths invalid in the
        upper left quarter of rows and columns.
      official_classes: Vectors of 365 and 1000 numbers, of which the largest is of no kept class.
        Room class i is put at `taskonomy_lists.KEPT_PLACES`[i] and object class i at
        `KEPT_OBJECTS`[i].

    Raises:
      DataError: A key of `sources` is not its source's split.
    """
    for name, source in sources.items():
        if name != source.split:
            raise DataError(
                f"write_taskonomy: `sources` gives {name!r} rooms of the split {source.split!r}; "
                "expected the same name, or buildings of one split would be listed in another."
            )
    root.mkdir(parents=True, exist_ok=True)
    buildings: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, source in sources.items():
        for index in range(len(source)):
            style = style_of(name, index, source.seed)
            buildings[f"style{style:02d}", name].append(index)
    for (building_name, name), indices in buildings.items():
        with contextlib.ExitStack() as tars:
            put = _tars(root, building_name, tars) if tar else _folders(root, building_name)
            for index in indices:
                odd = quirks and index % 2 == 0
                for domain, content in encode(sources[name][index], odd, official_classes):
                    word = domain.replace("_", "") if quirks and "segment" in domain else domain
                    ending = "npy" if domain.startswith("class_") else "png"
                    put(domain, f"point_{index}_view_0_domain_{word}.{ending}", content)
    with open(root / "splits.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("id", *_SPLITS))
        for building_name, name in sorted(buildings):
            rows.writerow((building_name, *(int(name == split) for split in _SPLITS)))


def _folders(root: Path, building_name: str) -> Callable[[str, str, bytes], None]:
    """Writer of (domain, file name, content) into folders."""

    def put(domain: str, name: str, content: bytes) -> None:
        folder = root / domain / building_name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return put


def _tars(
    root: Path, building_name: str, stack: contextlib.ExitStack
) -> Callable[[str, str, bytes], None]:
    """Writer of (domain, file name, content) into one tar per domain, which `stack` closes."""

    @functools.cache
    def opened(domain: str) -> tarfile.TarFile:
        return stack.enter_context(tarfile.open(root / f"{building_name}_{domain}.tar", "w"))

    def put(domain: str, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(f"{domain}/{name}")
        member.size = len(content)
        opened(domain).addfile(member, io.BytesIO(content))

    return put
