"""Pieces of the procedural rooms' furniture, and the kit that builders make them with.

A piece stands in its own frame: metres, x along its width (centred), y from its back (0) to its
front, z up from what it stands on.
"""

from typing import NamedTuple

from vcmjax.data import rooms_render as render
from vcmjax.data.rooms_style import Colour, Draw, Materials, Style, darker, hsv
from vcmjax.tasks import SEGMENT_CLASSES

ID = {name: index for index, name in enumerate(SEGMENT_CLASSES)}

_UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_FORWARD = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0)  # local z axis along +y
_SIDEWAYS = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)  # local z axis along +x

Area = tuple[float, float, float, float, float]
"""A free surface: least and most x, least and most y, z."""


class Anchor(NamedTuple):
    """Something worth looking at: segment id, centre, and radius in metres."""

    segment: int
    x: float
    y: float
    z: float
    radius: float


class Piece:
    """A piece of furniture: primitive rows, footprint, free surfaces and things to look at."""

    def __init__(self, segment: int, width: float, depth: float, height: float) -> None:
        """Start an empty piece whose primitives have a segment id unless told otherwise."""
        self.segment = segment
        self.width, self.depth, self.height = width, depth, height
        self.rows: list[tuple[float, ...]] = []
        self.tops: list[Area] = []
        self.anchors: list[Anchor] = []
        if segment:
            self.look(segment, 0.0, depth / 2, height / 2, max(width, depth, height) / 2)

    def look(self, segment: int, x: float, y: float, z: float, radius: float) -> None:
        """Add an anchor."""
        self.anchors.append(Anchor(segment, x, y, z, radius))

    def _add(self, kind, centre, half, axes, material, segment) -> None:
        segment = self.segment if segment is None else segment
        self.rows.append((kind, *centre, *half, *axes, material, segment))

    def box(self, x0, x1, y0, y1, z0, z1, material, segment=None) -> None:
        """Add a box between opposite corners."""
        centre = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
        half = (abs(x1 - x0) / 2, abs(y1 - y0) / 2, abs(z1 - z0) / 2)
        self._add(render.BOX, centre, half, _UPRIGHT, material, segment)

    def pole(self, x, y, z0, z1, r, material, segment=None, kind=render.CYLINDER) -> None:
        """Add a vertical cylinder, or a tube open at its top."""
        half = (r, r, (z1 - z0) / 2)
        self._add(kind, (x, y, (z0 + z1) / 2), half, _UPRIGHT, material, segment)

    def rod(self, x, y, z, length, r, material, segment=None, along="x") -> None:
        """Add a horizontal cylinder around its centre."""
        axes = _SIDEWAYS if along == "x" else _FORWARD
        self._add(render.CYLINDER, (x, y, z), (r, r, length / 2), axes, material, segment)

    def ball(self, x, y, z, r, material, segment=None, kind=render.SPHERE) -> None:
        """Add a sphere, or a bowl, around its centre."""
        self._add(kind, (x, y, z), (r, r, r), _UPRIGHT, material, segment)

    def put(self, other: "Piece", x: float, y: float, z: float, back: bool = False) -> None:
        """Stand another piece on this one, its back's middle at (x, y, z), or turned round."""
        turn = -1.0 if back else 1.0
        for row in other.rows:
            cx, cy = x + turn * row[1], y + turn * row[2]
            axes = row[7:16]
            if back:
                a = axes
                axes = (-a[0], -a[1], a[2], -a[3], -a[4], a[5], -a[6], -a[7], a[8])
            self.rows.append((row[0], cx, cy, z + row[3], *row[4:7], *axes, *row[16:]))
        for a_ in other.anchors:
            centre = (x + turn * a_.x, y + turn * a_.y, z + a_.z)
            self.anchors.append(Anchor(a_.segment, *centre, a_.radius))


class Kit:
    """What a builder works with: random numbers, the style, materials of the scene."""

    def __init__(self, draw: Draw, style: Style, materials: Materials) -> None:
        """Make the materials every room has."""
        self.draw, self.style, self.materials = draw, style, materials
        s, add = style, materials.add
        self.wood = add(s.wood, s.wood2, render.WOOD, 5.0, gloss=0.05)
        self.wood2 = add(darker(s.wood, 0.75, 0.75, 0.75), s.wood2, render.WOOD, 7.0)
        self.fabric = add(s.fabric, s.fabric2, s.fabric_texture, 9.0, 0.5)
        self.metal = add(s.metal, gloss=0.5)
        self.white = add((0.86, 0.86, 0.84), gloss=0.35)
        self.black = add((0.015, 0.015, 0.018), gloss=0.5)
        self.appliance = add(s.appliance, gloss=0.3)
        self.stone = add(
            hsv(draw.uniform(), 0.1, draw.uniform(0.25, 0.9)),
            (0.5, 0.5, 0.5), render.SPECKLE, 60.0, 0.3, 0.15,
        )  # fmt: skip

    def u(self, low: float, high: float) -> float:
        """A uniform number."""
        return self.draw.uniform(low, high)

    def colour(self, saturation: float = 0.6, value: float = 0.7) -> Colour:
        """Any hue, near the given saturation and value."""
        u = self.u
        return hsv(u(0, 1), saturation * u(0.7, 1.2), value * u(0.6, 1.3))

    def plain(self, saturation: float = 0.6, value: float = 0.7, gloss: float = 0.0) -> int:
        """A new plain material of any hue."""
        return self.materials.add(self.colour(saturation, value), gloss=gloss)

    def legs(self, piece: Piece, x: float, y0: float, y1: float, z: float, material: int) -> None:
        """Four legs of height z at (+-x, y0 or y1)."""
        r = self.style.leg
        for sx in (-x, x):
            for y in (y0, y1):
                if self.style.round_legs:
                    piece.pole(sx, y, 0, z, r, material)
                else:
                    piece.box(sx - r, sx + r, y - r, y + r, 0, z, material)
