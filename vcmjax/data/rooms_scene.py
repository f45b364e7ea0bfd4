"""Sampling of procedural rooms: furnishing, lights, and a camera that sees objects."""

import math
from typing import NamedTuple

import numpy as np

from vcmjax.data import rooms_fittings as fit
from vcmjax.data import rooms_render as render
from vcmjax.data.rooms_layout import Layout
from vcmjax.data.rooms_piece import ID, Kit
from vcmjax.data.rooms_recipes import RECIPES, Recipe
from vcmjax.data.rooms_style import Draw, Materials, Style, darker
from vcmjax.tasks import ROOM_CLASSES

LEAST_OBJECTS = 0.03
"""Share of pixels that objects must cover, or the view is sampled again."""

MOST_OBJECTS = 0.5
_PREVIEW = 32
_VIEWS = 8


class Scene(NamedTuple):
    """A room as arrays for `vcmjax.data.rooms_render`, and how its picture is taken."""

    room_class: int
    camera: np.ndarray
    room: np.ndarray
    primitives: np.ndarray
    materials: np.ndarray
    groups: np.ndarray
    lights: np.ndarray
    ambient: np.ndarray
    exposure: float
    noise: float
    vignette: float


def _room_materials(kit: Kit, recipe: Recipe) -> list[int]:
    """Rows of the materials of the six faces."""
    style, draw, add = kit.style, kit.draw, kit.materials.add
    tiled = draw.chance(recipe.tiled)
    if tiled:
        grout = darker(style.tile, 0.55, 0.55, 0.55)
        tile = add(style.tile, grout, render.TILES, draw.uniform(3, 7), gloss=0.15)
        floor = add(
            style.tile, style.floor2, draw.pick((render.TILES, render.CHECKER)),
            draw.uniform(2, 5), 0.8, 0.15,
        )  # fmt: skip
        return [tile, tile, tile, tile, floor, add(style.ceiling)]
    texture = style.wall_texture
    scale = {render.STRIPES: draw.uniform(2, 6), render.BRICK: 9.0}.get(texture, 4.0)
    amount = {render.STRIPES: 0.5, render.BRICK: 0.9}.get(texture, 0.35)
    wall = add(style.wall, style.wall2, texture, scale, amount)
    other = wall
    if draw.chance(0.25):
        other = add(style.fabric2, style.wall2, style.fabric_texture, 4.0, 0.3)
    scale = {render.WOOD: 7.0, render.NOISE: 20.0}.get(style.floor_texture, draw.uniform(1.5, 3.5))
    floor = add(style.floor, style.floor2, style.floor_texture, scale, 0.85, 0.06)
    return [wall, wall, other, wall, floor, add(style.ceiling, style.wall, render.NOISE, 3.0, 0.1)]


def _furnish(draw: Draw, style: Style, name: str) -> tuple[Layout, Materials]:
    """A furnished room of the named type."""
    recipe = RECIPES[name]
    a, b, c, d = recipe.sides
    room = (draw.uniform(a, b), draw.uniform(c, d), style.height + draw.uniform(-0.1, 0.1))
    materials = Materials(draw)
    kit = Kit(draw, style, materials)
    faces = [materials.rows[row] for row in _room_materials(kit, recipe)]
    layout = Layout(kit, room)
    for chances, place in (
        (recipe.walls[:2], layout.against_wall), (recipe.middle, layout.in_middle),
        (recipe.walls[2:], layout.against_wall), (recipe.small, layout.on_top),
        (((fit.pendant, 0.6),), layout.hang),
    ):  # fmt: skip
        for builder, chance in chances:
            if draw.chance(chance):
                place(builder(kit))
    # The first six rows are the faces': shift what the builders numbered.
    for rows in layout.rows:
        rows[:, 16] += render.FACES
    materials.rows = faces + materials.rows
    return layout, materials


def _look(
    position: tuple[float, float, float], target: tuple[float, float, float], tan: float
) -> np.ndarray:
    """Upright camera (13,) at a position, looking at a target but never steeply."""
    dx, dy, dz = (t - p for t, p in zip(target, position, strict=True))
    yaw = math.atan2(dy, dx)
    pitch = min(0.15, max(-0.6, math.atan2(dz, math.hypot(dx, dy))))
    c, s, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    return np.array([*position, s, -c, 0.0, sp * c, sp * s, -cp, cp * c, cp * s, sp, tan])


def _take_view(draw: Draw, layout: Layout, primitives: np.ndarray) -> np.ndarray | None:
    """A camera that sees enough, and not too much, of the objects; None if none was found."""
    length, width, height = layout.room
    segments = sorted({a.segment for a in layout.anchors})
    room = np.array(layout.room)
    for _ in range(_VIEWS):
        segment = draw.pick(segments)
        # A clock fills enough of a view only close by, where little of the room shows.
        if segment == ID["clock"] and draw.chance(0.6):
            continue
        anchor = draw.pick([a for a in layout.anchors if a.segment == segment])
        wanted = max(0.5, anchor.radius * draw.uniform(2.0, 5.0))
        best, position = math.inf, (0.0, 0.0, 0.0)
        for attempt in range(12):
            x, y = draw.uniform(0.2, length - 0.2), draw.uniform(0.2, width - 0.2)
            if attempt % 2:  # near enough for what is small
                angle = draw.uniform(0, 2 * math.pi)
                x = min(length - 0.2, max(0.2, anchor.x + 0.9 * wanted * math.cos(angle)))
                y = min(width - 0.2, max(0.2, anchor.y + 0.9 * wanted * math.sin(angle)))
            z = draw.uniform(1.0, min(1.7, height - 0.3))
            error = abs(math.hypot(x - anchor.x, y - anchor.y, z - anchor.z) - wanted)
            if error < best and not any(
                a - 0.15 < x < b + 0.15 and c - 0.15 < y < d + 0.15 and e < z + 0.2 and f > z - 0.35
                for a, b, c, d, e, f in layout.taken
            ):
                best, position = error, (x, y, z)
        if best == math.inf:
            continue
        shift = 0.35 * anchor.radius + 0.06 * wanted
        target = (
            anchor.x + draw.uniform(-shift, shift),
            anchor.y + draw.uniform(-shift, shift),
            anchor.z + draw.uniform(-shift, shift),
        )
        camera = _look(position, target, math.tan(math.radians(draw.uniform(60, 80)) / 2))
        depth, hit = render.cast(camera, room, primitives, _PREVIEW)
        seen = np.append(np.zeros(render.FACES), primitives[:, 17])[hit]
        pixels = np.bincount(seen.astype(int).ravel(), minlength=segment + 1)[1:]
        share = pixels.sum() / seen.size
        if not 1.3 * LEAST_OBJECTS < share < MOST_OBJECTS or depth.min() < 0.25:
            continue
        # Mostly what was aimed at is the main object: else chairs and tables would be, always.
        if pixels.argmax() == segment - 1 or draw.chance(0.2):
            return camera
    return None


def sample(draw: Draw, style: Style) -> Scene:
    """A room of random type in a building's style, seen from a random camera.

    At least about `LEAST_OBJECTS` of its pixels show objects.
    """
    room_class = draw.integer(len(ROOM_CLASSES))
    while True:
        layout, materials = _furnish(draw, style, ROOM_CLASSES[room_class])
        if not layout.anchors:
            continue
        primitives = np.concatenate(layout.rows)
        camera = _take_view(draw, layout, primitives)
        if camera is not None:
            break
    ends = np.cumsum([len(rows) for rows in layout.rows])
    groups = np.array(
        [
            (end - len(rows), end, *sphere)
            for end, rows, sphere in zip(ends, layout.rows, layout.spheres, strict=True)
        ],
        float,
    )
    length, width, height = layout.room
    lights = []
    for index in range(1 if draw.chance(0.4) else 2):
        x, y = draw.uniform(0.2, 0.8) * length, draw.uniform(0.2, 0.8) * width
        power = draw.uniform(0.7, 1.2) * (1.0 if index == 0 else 0.6)
        lights.append(
            (x, y, height - 0.15, *(power * c for c in style.light), draw.uniform(2.0, 4.0))
        )
    ambient = style.ambient * draw.uniform(0.7, 1.3)
    return Scene(
        room_class=room_class,
        camera=camera,
        room=np.array(layout.room),
        primitives=primitives,
        materials=np.array(materials.rows, float),
        groups=groups,
        lights=np.array(lights),
        ambient=np.array([ambient * (0.5 + 0.5 * c) for c in style.light]),
        exposure=draw.uniform(0.2, 0.36),
        noise=draw.uniform(0.5, 4.0),
        vignette=draw.uniform(0.0, 0.3),
    )
