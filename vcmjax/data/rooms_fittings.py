"""Background of the procedural rooms: what stands, hangs or lies there but is no object.

Builders as in `vcmjax.data.rooms_furniture`; all segment ids are 0.
"""

from vcmjax.data import rooms_render as render
from vcmjax.data.rooms_piece import Kit, Piece
from vcmjax.data.rooms_style import hsv


def cabinet(k: Kit, w: float, d: float, h: float, doors: bool = True) -> Piece:
    """Box with door fronts and handles, and a free top."""
    piece = Piece(0, w, d, h)
    body = k.draw.pick((k.wood, k.white, k.wood2))
    piece.box(-w / 2, w / 2, 0, d - 0.02, 0.03, h - 0.03, body)
    piece.box(-w / 2 - 0.01, w / 2 + 0.01, 0, d + 0.02, h - 0.03, h, k.wood2)
    if doors:
        count = max(1, round(w / 0.5))
        for i in range(count):
            x0 = -w / 2 + i * w / count
            x1 = x0 + w / count
            piece.box(x0 + 0.008, x1 - 0.008, d - 0.02, d, 0.06, h - 0.045, body)
            piece.rod(0.5 * (x0 + x1), d + 0.015, h - 0.12, 0.12, 0.008, k.metal)
    piece.tops = [(-w / 2 + 0.05, w / 2 - 0.05, 0.05, d - 0.05, h)]
    return piece


def bathtub(k: Kit) -> Piece:
    """White tub filled to the rim, along the wall."""
    w, d, h = k.u(1.5, 1.75), 0.75, k.u(0.5, 0.6)
    piece = Piece(0, w, d, h)
    water = k.materials.add((0.35, 0.55, 0.62), gloss=0.6)
    piece.box(-w / 2, w / 2, 0, d, 0, h - 0.02, k.white)
    for a, b, c, e in (
        (-w / 2, w / 2, 0, 0.07), (-w / 2, w / 2, d - 0.07, d),
        (-w / 2, -w / 2 + 0.08, 0, d), (w / 2 - 0.08, w / 2, 0, d),
    ):  # fmt: skip
        piece.box(a, b, c, e, h - 0.05, h + 0.04, k.white)
    piece.box(-w / 2 + 0.05, w / 2 - 0.05, 0.05, d - 0.05, h - 0.05, h - 0.01, water)
    piece.pole(-w / 2 + 0.2, 0.03, h, h + 0.25, 0.015, k.metal)
    return piece


def boxes(k: Kit) -> Piece:
    """A pile of cardboard boxes with tape."""
    piece = Piece(0, 0.7, 0.6, 1.2)
    tape = k.materials.add((0.6, 0.55, 0.4))
    z, w = 0.0, 0.35
    for _ in range(1 + k.draw.integer(3)):
        h, d = k.u(0.25, 0.4), k.u(0.4, 0.55)
        card = k.materials.add(hsv(k.u(0.06, 0.1), k.u(0.4, 0.6), k.u(0.5, 0.8)))
        x = k.u(-0.05, 0.05)
        piece.box(x - w, x + w, 0.02, d, z, z + h, card)
        piece.box(x - 0.03, x + 0.03, 0.018, d + 0.002, z + 0.002, z + h + 0.002, tape)
        z, w = z + h, w * k.u(0.7, 1.0)
    piece.height = z
    return piece


def coffee_table(k: Kit) -> Piece:
    """Low table; background, as no segment class names it."""
    w, d, h = k.u(0.8, 1.2), k.u(0.5, 0.65), k.u(0.36, 0.45)
    piece = Piece(0, w, d, h)
    piece.box(-w / 2, w / 2, 0, d, h - 0.04, h, k.wood)
    k.legs(piece, w / 2 - 0.05, 0.05, d - 0.05, h - 0.03, k.wood2)
    piece.tops = [(-w / 2 + 0.06, w / 2 - 0.06, 0.06, d - 0.06, h)]
    return piece


def lamp(k: Kit) -> Piece:
    """Floor lamp with an open shade."""
    piece = Piece(0, 0.4, 0.4, 1.65)
    shade = k.materials.add((0.95, 0.85, 0.65), glow=0.4)
    piece.pole(0, 0.2, 0, 0.03, 0.15, k.metal)
    piece.pole(0, 0.2, 0.03, 1.45, 0.015, k.metal)
    piece.pole(0, 0.2, 1.35, 1.62, k.u(0.14, 0.2), shade, kind=render.TUBE)
    return piece


def bin_(k: Kit) -> Piece:
    """Open waste bin."""
    piece = Piece(0, 0.32, 0.32, 0.4)
    piece.pole(0, 0.16, 0, k.u(0.3, 0.5), k.u(0.12, 0.16), k.plain(0.4, 0.5), kind=render.TUBE)
    return piece


def door(k: Kit) -> Piece:
    """Closed door in its frame."""
    w, h = k.u(0.8, 0.95), k.u(1.98, 2.1)
    piece = Piece(0, w + 0.1, 0.05, h)
    leaf = k.materials.add(
        k.draw.pick((k.style.wood, k.style.wood2, (0.8, 0.8, 0.78), k.style.fabric)),
        (0.05, 0.05, 0.05), render.PANEL, 1.05, 0.35,
    )  # fmt: skip
    piece.box(-w / 2 - 0.07, w / 2 + 0.07, 0, 0.03, 0, h + 0.07, k.white)
    piece.box(-w / 2, w / 2, 0.03, 0.045, 0, h, leaf)
    piece.rod(w / 2 - 0.1, 0.08, 1.02, 0.12, 0.012, k.metal)
    return piece


def window(k: Kit) -> Piece:
    """Bright window with a frame and bars."""
    w, h, z = k.u(0.9, 1.6), k.u(0.9, 1.3), k.u(0.85, 1.0)
    piece = Piece(0, w, 0.05, z + h)
    sky = k.materials.add(
        hsv(0.58, k.u(0.05, 0.4), 1.0), hsv(0.3, 0.3, 0.7), render.NOISE, 1.5, 0.6, glow=0.7
    )
    piece.box(-w / 2, w / 2, 0, 0.02, z, z + h, sky)
    for a, b, c, e in (
        (-w / 2 - 0.05, w / 2 + 0.05, z - 0.05, z),
        (-w / 2 - 0.05, w / 2 + 0.05, z + h, z + h + 0.05),
        (-w / 2 - 0.05, -w / 2, z, z + h), (w / 2, w / 2 + 0.05, z, z + h),
        (-0.02, 0.02, z, z + h), (-w / 2, w / 2, z + 0.6 * h, z + 0.6 * h + 0.03),
    ):  # fmt: skip
        piece.box(a, b, 0, 0.04, c, e, k.white)
    if k.draw.chance(0.4):
        for side in (-1, 1):
            x0, x1 = sorted((side * (w / 2 - 0.05), side * (w / 2 + 0.22)))
            folds = 5
            for i in range(folds):
                x = x0 + (i + 0.5) * (x1 - x0) / folds
                piece.pole(x, 0.07, 0.08, z + h + 0.15, 0.6 * (x1 - x0) / folds, k.fabric)
        piece.rod(0, 0.07, z + h + 0.17, w + 0.6, 0.015, k.metal)
    return piece


def picture(k: Kit) -> Piece:
    """Framed picture."""
    w, h, z = k.u(0.4, 1.0), k.u(0.35, 0.75), k.u(1.3, 1.5)
    piece = Piece(0, w, 0.03, z + h)
    art = k.materials.add(
        k.colour(0.5, 0.8), k.colour(0.6, 0.6),
        k.draw.pick((render.NOISE, render.STRIPES, render.CHECKER, render.BRICK)), k.u(2.0, 8.0),
    )  # fmt: skip
    piece.box(-w / 2, w / 2, 0, 0.025, z, z + h, k.draw.pick((k.wood2, k.black, k.white)))
    piece.box(-w / 2 + 0.04, w / 2 - 0.04, 0, 0.028, z + 0.04, z + h - 0.04, art)
    return piece


def rug(k: Kit) -> Piece:
    """Thin rug."""
    w, d = k.u(1.4, 2.4), k.u(1.0, 1.7)
    piece = Piece(0, w, d, 0.012)
    texture = k.draw.pick((render.STRIPES, render.CHECKER, render.NOISE, render.PLAIN))
    weave = k.materials.add(k.colour(0.5, 0.7), k.colour(0.4, 0.8), texture, k.u(2.0, 7.0), 0.8)
    piece.box(-w / 2, w / 2, 0, d, 0, 0.01, k.fabric)
    piece.box(-w / 2 + 0.08, w / 2 - 0.08, 0.08, d - 0.08, 0, 0.012, weave)
    return piece


def radiator(k: Kit) -> Piece:
    """Column radiator."""
    count, h = 6 + k.draw.integer(9), k.u(0.5, 0.75)
    w = 0.085 * count
    piece = Piece(0, w, 0.14, h)
    for i in range(count):
        piece.pole((i + 0.5) * 0.085 - w / 2, 0.08, 0.1, h, 0.04, k.white)
    for z in (0.15, h - 0.06):
        piece.rod(0, 0.08, z, w + 0.1, 0.025, k.white)
    return piece


def pillar(k: Kit) -> Piece:
    """Round pillar from floor to ceiling."""
    r = k.u(0.1, 0.24)
    piece = Piece(0, 2 * r + 0.06, 2 * r + 0.06, 4.0)
    body = k.draw.pick((k.white, k.stone, k.wood2, k.fabric))
    piece.pole(0, r + 0.03, 0, 4.0, r, body)
    piece.pole(0, r + 0.03, 0, 0.12, r + 0.03, body)
    return piece


def pendant(k: Kit) -> Piece:
    """Lamp hanging from the ceiling, which is at z = 0."""
    r, drop = k.u(0.12, 0.24), k.u(0.35, 0.6)
    piece = Piece(0, 2 * r, 2 * r, 0.0)
    shade = k.materials.add((0.95, 0.88, 0.72), glow=0.5)
    piece.pole(0, r, -drop, 0, 0.01, k.black)
    kind = k.draw.pick((render.SPHERE, render.TUBE))
    if kind == render.SPHERE:
        piece.ball(0, r, -drop - 0.6 * r, r, shade)
    else:
        piece.pole(0, r, -drop - r, -drop, r, shade)
    return piece
