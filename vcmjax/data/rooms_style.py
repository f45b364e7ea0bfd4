"""Building styles of the procedural rooms: palette, textures, proportions and lighting habits."""

import colorsys
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vcmjax.data import rooms_render as render

Colour = tuple[float, float, float]
T = TypeVar("T")

STYLES = {"train": range(40), "val": range(40, 48), "test": range(48, 56)}
"""Style ids of each split: disjoint by construction."""

_STYLE_STREAM = 20_210
_BLOCK = 4096


class Draw:
    """Uniform numbers from one PCG64 stream, drawn in blocks: cheap, and the same everywhere."""

    def __init__(self, *entropy: int) -> None:
        """Start the stream named by non-negative integers."""
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        self._block: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        if not self._block:
            self._block = self.generator.random(_BLOCK).tolist()
        return low + (high - low) * self._block.pop()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def integer(self, count: int) -> int:
        """One of 0 .. count - 1."""
        return int(self.uniform() * count)

    def pick(self, items: "tuple[T, ...] | list[T]") -> T:
        """One of the items."""
        return items[self.integer(len(items))]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Linear-light colour of a hue in turns and a saturation and value in [0, 1]."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, min(1.0, saturation), min(1.0, value))
    return (r**2.2, g**2.2, b**2.2)


def darker(colour: Colour, red: float, green: float, blue: float) -> Colour:
    """A colour with each channel scaled."""
    return (colour[0] * red, colour[1] * green, colour[2] * blue)


class Style(NamedTuple):
    """What the rooms of one building have in common. Colours are linear light."""

    wall: Colour
    wall2: Colour
    wall_texture: int
    floor: Colour
    floor2: Colour
    floor_texture: int
    tile: Colour
    ceiling: Colour
    wood: Colour
    wood2: Colour
    fabric: Colour
    fabric2: Colour
    fabric_texture: int
    appliance: Colour
    metal: Colour
    hue: float
    leg: float
    round_legs: bool
    scale: float
    sturdy: float
    light: Colour
    ambient: float
    height: float


def building(style: int) -> Style:
    """The style with an id; the same for every seed and split."""
    draw = Draw(_STYLE_STREAM, style)
    u = draw.uniform
    hue = u()
    wood = hsv(u(0.04, 0.11), u(0.35, 0.7), u(0.3, 0.85))
    wall = hsv(u(), u(0.0, 0.28), u(0.72, 0.96))
    floor_texture = draw.pick(
        (render.WOOD, render.WOOD, render.TILES, render.CHECKER, render.NOISE)
    )
    floor = (
        hsv(u(0.04, 0.11), u(0.3, 0.65), u(0.35, 0.8))
        if floor_texture == render.WOOD
        else hsv(u(), u(0.02, 0.3), u(0.4, 0.85))
    )
    grey = u(0.75, 0.95)
    return Style(
        wall=wall,
        wall2=darker(wall, u(0.6, 0.9), u(0.6, 0.9), u(0.6, 0.9)),
        wall_texture=draw.pick(
            (render.PLAIN, render.PLAIN, render.NOISE, render.STRIPES, render.BRICK)
        ),
        floor=floor,
        floor2=darker(floor, u(0.35, 0.6), u(0.35, 0.6), u(0.35, 0.6)),
        floor_texture=floor_texture,
        tile=hsv(u(0.05, 0.65), u(0.02, 0.3), u(0.75, 0.97)),
        ceiling=hsv(u(), u(0.0, 0.06), u(0.88, 0.99)),
        wood=wood,
        wood2=darker(wood, u(0.3, 0.65), u(0.3, 0.65), u(0.3, 0.65)),
        fabric=hsv(hue + u(-0.06, 0.06), u(0.2, 0.75), u(0.3, 0.85)),
        fabric2=hsv(hue + u(0.3, 0.6), u(0.1, 0.6), u(0.4, 0.95)),
        fabric_texture=draw.pick((render.PLAIN, render.NOISE, render.STRIPES, render.CHECKER)),
        appliance=draw.pick(
            ((grey, grey, grey), (0.45, 0.46, 0.48), (0.05, 0.05, 0.06), (0.85, 0.8, 0.68))
        ),
        metal=draw.pick(((0.6, 0.61, 0.63), (0.5, 0.42, 0.25), (0.1, 0.1, 0.1))),
        hue=hue,
        leg=u(0.018, 0.04),
        round_legs=draw.chance(0.5),
        scale=u(0.9, 1.12),
        sturdy=u(0.8, 1.3),
        light=hsv(u(0.05, 0.16), u(0.02, 0.28), 1.0) if draw.chance(0.7) else hsv(0.58, 0.1, 1.0),
        ambient=u(0.25, 0.55),
        height=u(2.4, 3.1),
    )


class Materials:
    """Growing table of a scene's materials; see `vcmjax.data.rooms_render` for its columns."""

    def __init__(self, draw: Draw) -> None:
        """Start empty; texture seeds come from `draw`."""
        self.rows: list[tuple[Any, ...]] = []
        self._draw = draw

    def add(
        self,
        colour: Colour,
        second: Colour = (0.0, 0.0, 0.0),
        texture: int = render.PLAIN,
        scale: float = 1.0,
        amount: float = 1.0,
        gloss: float = 0.0,
        glow: float = 0.0,
    ) -> int:
        """Append a material (`scale` in texels per metre) and return its row."""
        seed = self._draw.integer(10_000)
        self.rows.append((texture, *colour, *second, scale, seed, amount, gloss, glow))
        return len(self.rows) - 1
