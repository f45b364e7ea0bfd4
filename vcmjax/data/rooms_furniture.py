"""The 16 object categories of the procedural rooms, built of simple solids.

Each builder takes a `Kit` and returns a `Piece` of the category it is named after.
"""

from vcmjax.data import rooms_render as render
from vcmjax.data.rooms_piece import ID, Kit, Piece
from vcmjax.data.rooms_style import hsv


def bottle(k: Kit) -> Piece:
    """One to four bottles of a kind: body, shoulder, neck, cap, and a label."""
    r, h = k.u(0.035, 0.055), k.u(0.22, 0.36)
    glass = k.materials.add(
        k.draw.pick(((0.02, 0.12, 0.03), (0.16, 0.05, 0.01), (0.1, 0.35, 0.5), (0.4, 0.02, 0.03))),
        gloss=0.8,
    )
    cap, label = k.plain(0.8, 0.6), k.plain(0.3, 0.9)
    count = k.draw.pick((1, 1, 2, 2, 3, 4))
    piece = Piece(ID["bottle"], 2.3 * r * count, 2 * r, h)
    for i in range(count):
        x = (i - (count - 1) / 2) * 2.3 * r
        piece.pole(x, r, 0, 0.58 * h, r, glass)
        piece.ball(x, r, 0.58 * h, r * 0.999, glass)
        piece.pole(x, r, 0.58 * h, 0.94 * h, 0.36 * r, glass)
        piece.pole(x, r, 0.93 * h, h, 0.42 * r, cap)
        piece.pole(x, r, 0.18 * h, 0.45 * h, 1.03 * r, label)
    return piece


def chair(k: Kit) -> Piece:
    """Chair: seat on four legs with a slatted or solid back, sometimes on a swivel foot."""
    w, seat, top = k.u(0.42, 0.5) * k.style.scale, k.u(0.42, 0.48), k.u(0.82, 1.0)
    piece = Piece(ID["chair"], w, w, top)
    soft = k.draw.chance(0.5)
    cover = k.fabric if soft else k.wood
    frame = k.metal if k.draw.chance(0.3) else k.wood2
    r = k.style.leg
    if k.draw.chance(0.15):
        piece.pole(0, w / 2, 0.08, seat, 0.03, k.black)
        piece.rod(0, w / 2, 0.06, w, 0.025, k.black)
        piece.rod(0, w / 2, 0.06, w, 0.025, k.black, along="y")
    else:
        k.legs(piece, w / 2 - r, r, w - r, seat, frame)
    piece.box(-w / 2, w / 2, 0, w, seat - 0.03, seat + (0.04 if soft else 0.01), cover)
    if k.draw.chance(0.6):
        piece.box(-w / 2, w / 2, 0, 0.04, seat + 0.12, top, cover)
        for x in (-w / 2 + r, w / 2 - r):
            piece.box(x - r, x + r, 0.005, 0.035, seat, seat + 0.14, frame)
    else:
        piece.box(-w / 2, w / 2, 0, 0.035, top - 0.1, top, frame)
        for i in range(4):
            x = (i - 1.5) * (w - 0.05) / 3
            piece.box(x - 0.018, x + 0.018, 0.005, 0.03, seat, top - 0.08, frame)
    return piece


def couch(k: Kit) -> Piece:
    """Couch: base, back, two arms, seat cushions and a pillow."""
    w, d, h = k.u(1.5, 2.3), k.u(0.8, 0.95), k.u(0.75, 0.92)
    arm, seat = k.u(0.12, 0.22) * k.style.sturdy, k.u(0.4, 0.46)
    own = k.materials.add(k.colour(0.5, 0.6), k.style.fabric2, render.NOISE, 30.0, 0.25)
    cover = k.fabric if k.draw.chance(0.5) else own
    piece = Piece(ID["couch"], w, d, h)
    piece.box(-w / 2, w / 2, 0, d - 0.02, 0.08, seat - 0.14, cover)
    piece.box(-w / 2 + arm, w / 2 - arm, 0, 0.22, seat - 0.1, h, cover)
    for side in (-1, 1):
        x = side * (w - arm) / 2
        piece.box(x - arm / 2, x + arm / 2, 0, d, 0.06, seat + 0.1, cover)
        if k.style.round_legs:
            piece.rod(x, d / 2, seat + 0.1, d, arm / 2, cover, along="y")
    count = 2 if w < 1.8 else 3
    step = (w - 2 * arm) / count
    for i in range(count):
        x = -w / 2 + arm + i * step
        piece.box(x + 0.01, x + step - 0.01, 0.2, d - 0.05, seat - 0.13, seat + 0.02, cover)
        piece.rod(x + step / 2, d - 0.055, seat - 0.055, step - 0.02, 0.075, cover)
        if k.draw.chance(0.4):
            low, pillow = seat + 0.02, k.plain(0.7, 0.8)
            piece.box(x + 0.08, x + 0.4, 0.2, 0.32, low, low + 0.3, pillow)
    piece.box(-w / 2 + 0.05, w / 2 - 0.05, 0.05, d - 0.08, 0, 0.08, k.wood2)
    return piece


def plant(k: Kit) -> Piece:
    """Potted plant: pot, stem and round or drooping foliage."""
    big = k.draw.chance(0.6)
    h, r = (k.u(0.8, 1.5), k.u(0.13, 0.2)) if big else (k.u(0.3, 0.5), k.u(0.07, 0.11))
    green = k.materials.add(
        hsv(k.u(0.24, 0.38), k.u(0.6, 0.9), k.u(0.35, 0.65)),
        hsv(0.3, 0.8, 0.2), render.NOISE, 25.0, 0.9,
    )  # fmt: skip
    piece = Piece(ID["potted plant"], 3 * r, 3 * r, h)
    pot = k.plain(0.5, 0.75)
    soil = k.materials.add((0.03, 0.02, 0.01))
    y, top = 1.5 * r, 0.3 * h
    piece.pole(0, y, 0, top, r, pot, kind=render.TUBE)
    piece.pole(0, y, 0.01, top - 0.02, 0.98 * r, soil)
    piece.pole(0, y, top - 0.03, 0.8 * h, 0.1 * r, soil)
    for i in range(9 if big else 6):
        z = top + (h - top) * (0.25 + 0.65 * (i + 0.5) / (9 if big else 6))
        x, dy = k.u(-0.8, 0.8) * r, k.u(-0.8, 0.8) * r
        piece.ball(x, y + dy, z, k.u(0.45, 0.8) * r, green)
    return piece


def bed(k: Kit) -> Piece:
    """Bed: frame, mattress, headboard, pillows and a blanket."""
    w, d = k.u(1.0, 1.8) * k.style.scale, k.u(1.95, 2.1)
    piece = Piece(ID["bed"], w, d, 1.0)
    sheet = k.materials.add((0.8, 0.79, 0.76), (0.6, 0.6, 0.65), render.NOISE, 6.0, 0.4)
    own = k.materials.add(k.colour(0.5, 0.7), k.colour(0.3, 0.9), k.style.fabric_texture, 5.0, 0.7)
    h = k.u(0.45, 0.58)
    piece.box(-w / 2, w / 2, 0, d, 0.1, h - 0.2, k.wood)
    piece.box(-w / 2 + 0.02, w / 2 - 0.02, 0.05, d - 0.02, h - 0.2, h, sheet)
    piece.box(-w / 2 - 0.02, w / 2 + 0.02, k.u(0.55, 0.9), d + 0.02, h - 0.25, h + 0.03, own)
    piece.box(-w / 2, w / 2, 0, 0.05, 0, k.u(0.8, 1.2) * k.style.scale, k.wood2)
    for side in (-1, 1):
        x = side * 0.25 * w
        if k.style.round_legs:
            piece.rod(x, 0.25, h + 0.06, 0.4 * w, 0.13, sheet)
        else:
            piece.box(x - 0.2 * w, x + 0.2 * w, 0.08, 0.45, h, h + 0.11, sheet)
    piece.rod(0, d, h - 0.11, w + 0.04, 0.14, own)
    k.legs(piece, w / 2 - 0.05, 0.06, d - 0.06, 0.12, k.wood2)
    return piece


def table(k: Kit, round_: bool | None = None) -> Piece:
    """Dining table: a round top on a foot, or a rectangular one on four legs."""
    h = k.u(0.72, 0.78)
    if k.draw.chance(0.3) if round_ is None else round_:
        r = k.u(0.5, 0.75)
        piece = Piece(ID["dining table"], 2 * r, 2 * r, h)
        piece.pole(0, r, h - 0.04, h, r, k.wood)
        piece.pole(0, r, 0.03, h - 0.03, 0.06, k.wood2)
        piece.pole(0, r, 0, 0.04, 0.5 * r, k.wood2)
        piece.tops = [(-0.6 * r, 0.6 * r, 0.4 * r, 1.6 * r, h)]
        return piece
    w, d = k.u(1.1, 2.0), k.u(0.75, 1.0)
    piece = Piece(ID["dining table"], w, d, h)
    piece.box(-w / 2, w / 2, 0, d, h - 0.04, h, k.wood)
    k.legs(piece, w / 2 - 0.06, 0.06, d - 0.06, h - 0.03, k.wood2)
    piece.box(-w / 2 + 0.06, w / 2 - 0.06, 0.06, d - 0.06, h - 0.11, h - 0.03, k.wood2)
    piece.tops = [(-w / 2 + 0.1, w / 2 - 0.1, 0.1, d - 0.1, h)]
    return piece


def toilet(k: Kit) -> Piece:
    """Toilet: foot, bowl, seat with lid up or down, and cistern."""
    w, h = k.u(0.36, 0.42), k.u(0.76, 0.86)
    piece = Piece(ID["toilet"], w, 0.7, h)
    y, r = 0.44, 0.2
    piece.box(-0.1, 0.1, 0.12, 0.5, 0, 0.3, k.white)
    piece.ball(0, y, 0.39, r, k.white, kind=render.BOWL)
    piece.pole(0, y, 0, 0.22, 0.12, k.white)
    if k.draw.chance(0.5):
        piece.pole(0, y, 0.39, 0.43, r + 0.01, k.white)
    else:
        piece.rod(0, 0.22, 0.62, 0.03, r, k.white, along="y")
    piece.box(-w / 2, w / 2, 0, 0.19, 0.38, h, k.white)
    piece.box(-w / 2 - 0.01, w / 2 + 0.01, -0.0, 0.2, h, h + 0.03, k.white)
    piece.pole(0, 0.1, h + 0.03, h + 0.045, 0.02, k.metal)
    return piece


def tv(k: Kit) -> Piece:
    """Flat screen on a foot; dark or showing a picture."""
    w = k.u(0.55, 1.25)
    h = 0.58 * w
    piece = Piece(ID["tv"], w, 0.2, h + 0.06)
    piece.box(-w / 2, w / 2, 0.06, 0.1, 0.05, 0.05 + h, k.black)
    on = k.draw.chance(0.3)
    screen = (
        k.materials.add(k.colour(0.6, 0.7), k.colour(0.5, 0.8), render.NOISE, 5.0, glow=0.9)
        if on
        else k.materials.add((0.02, 0.025, 0.035), gloss=0.7)
    )
    e = 0.02
    piece.box(-w / 2 + e, w / 2 - e, 0.1, 0.104, 0.05 + e, 0.05 + h - e, screen)
    piece.box(-0.04, 0.04, 0.06, 0.1, 0, 0.06, k.black)
    piece.box(-0.2 * w, 0.2 * w, 0.0, 0.18, 0, 0.015, k.black)
    return piece


def microwave(k: Kit) -> Piece:
    """Microwave: box with a dark window, handle, and lit panel to its right."""
    w, d, h = k.u(0.46, 0.56), k.u(0.33, 0.4), k.u(0.27, 0.33)
    piece = Piece(ID["microwave"], w, d, h)
    piece.box(-w / 2, w / 2, 0, d, 0, h, k.appliance)
    split = 0.24 * w
    piece.box(-w / 2 + 0.03, split, d, d + 0.006, 0.04, h - 0.04, k.black)
    piece.box(split + 0.03, w / 2 - 0.015, d, d + 0.004, 0.03, h - 0.03, k.metal)
    clock_ = k.materials.add((0.05, 0.6, 0.25), glow=0.6)
    piece.box(split + 0.045, w / 2 - 0.03, d, d + 0.008, h - 0.085, h - 0.045, clock_)
    piece.pole(split + 0.015, d + 0.02, 0.04, h - 0.04, 0.01, k.metal)
    return piece


def oven(k: Kit, hood: bool = False) -> Piece:
    """Oven: hob with four rings above a door with a window, handle and knobs."""
    w, d, h = 0.6, 0.6, k.u(0.86, 0.92)
    piece = Piece(ID["oven"], w, d, h)
    piece.box(-w / 2, w / 2, 0, d, 0.05, h, k.appliance)
    piece.box(-w / 2, w / 2, 0.02, d, h, h + 0.012, k.black)
    for x in (-0.14, 0.14):
        for y in (0.17, 0.43):
            piece.pole(x, y, h + 0.012, h + 0.022, k.u(0.07, 0.1), k.metal)
    piece.box(-0.22, 0.22, d, d + 0.008, 0.28, 0.6, k.black)
    piece.rod(0, d + 0.035, 0.68, 0.48, 0.012, k.metal)
    for i in range(5):
        piece.rod(-0.2 + 0.1 * i, d + 0.015, 0.79, 0.03, 0.02, k.metal, along="y")
    if hood:
        piece.box(-w / 2, w / 2, 0, 0.45, 1.55, 1.62, k.metal, 0)
        piece.box(-0.13, 0.13, 0, 0.25, 1.62, 2.3, k.metal, 0)
    return piece


def toaster(k: Kit) -> Piece:
    """Toaster: rounded body with two slots, lever, and sometimes toast."""
    w, d, h = k.u(0.26, 0.34), k.u(0.16, 0.2), k.u(0.17, 0.21)
    piece = Piece(ID["toaster"], w, d, h)
    shell = k.metal if k.draw.chance(0.5) else k.plain(0.85, 0.75, 0.5)
    piece.box(-w / 2, w / 2, 0, d, 0.012, h - 0.4 * d, shell)
    for y in (0.4 * d, 0.6 * d):
        piece.rod(0, y, h - 0.4 * d, w, 0.4 * d, shell)
    toast = k.materials.add((0.45, 0.22, 0.06))
    for y in (0.35 * d, 0.65 * d):
        piece.box(-0.36 * w, 0.36 * w, y - 0.012, y + 0.012, h - 0.05, h + 0.004, k.black)
        if k.draw.chance(0.5):
            piece.box(-0.3 * w, 0.3 * w, y - 0.009, y + 0.009, h - 0.05, h + 0.05, toast)
    piece.box(w / 2, w / 2 + 0.02, 0.4 * d, 0.6 * d, 0.08, 0.1, k.black)
    piece.box(-w / 2 + 0.01, w / 2 - 0.01, 0.01, d - 0.01, 0, 0.02, k.black)
    return piece


def sink(k: Kit) -> Piece:
    """Wash-basin: round open basin with a tap; stands on a surface."""
    r = k.u(0.19, 0.24)
    piece = Piece(ID["sink"], 2 * r, 2 * r + 0.08, 0.3)
    shell = k.white if k.draw.chance(0.65) else k.metal
    y = r + 0.08
    if k.draw.chance(0.5):
        piece.pole(0, y, 0, 0.14, r, shell, kind=render.TUBE)
    else:
        piece.ball(0, y, r, r, shell, kind=render.BOWL)
    piece.pole(0, 0.04, 0, 0.3, 0.016, k.metal)
    piece.rod(0, 0.1, 0.29, 0.14, 0.013, k.metal, along="y")
    piece.pole(0, 0.165, 0.25, 0.295, 0.012, k.metal)
    piece.rod(0, 0.04, 0.2, 0.12, 0.01, k.metal)
    return piece


def refrigerator(k: Kit) -> Piece:
    """Refrigerator: tall box of two doors with handles."""
    w, d, h = k.u(0.6, 0.85), k.u(0.62, 0.72), k.u(1.6, 1.95)
    piece = Piece(ID["refrigerator"], w, d, h)
    piece.box(-w / 2, w / 2, 0, d - 0.05, 0.03, h, k.appliance)
    piece.box(-w / 2 + 0.01, w / 2 - 0.01, 0.02, d - 0.03, 0, h - 0.01, k.black)
    side = k.draw.pick((-1, 1))
    if w > 0.76:
        for s in (-1, 1):
            x0, x1 = sorted((s * 0.006, s * w / 2))
            piece.box(x0, x1, d - 0.04, d, 0.05, h, k.appliance)
            piece.pole(s * 0.05, d + 0.03, 0.7, 1.4, 0.012, k.metal)
    else:
        cut = h * k.u(0.35, 0.68)
        for z0, z1, a, b in ((0.05, cut - 0.006, -0.4, -0.08), (cut + 0.006, h, 0.08, 0.4)):
            piece.box(-w / 2, w / 2, d - 0.04, d, z0, z1, k.appliance)
            x = side * (w / 2 - 0.06)
            piece.pole(x, d + 0.03, max(z0, cut + a), min(z1, cut + b), 0.012, k.metal)
    return piece


def book(k: Kit) -> Piece:
    """A stack of books lying, or a few standing."""
    piece = Piece(ID["book"], 0.24, 0.3, 0.1)
    page = k.materials.add((0.8, 0.77, 0.66))
    z = 0.0
    for _ in range(1 + k.draw.integer(4)):
        t, w, d = k.u(0.02, 0.05), k.u(0.15, 0.24), k.u(0.2, 0.3)
        x, y = k.u(-0.02, 0.02), k.u(0.0, 0.03)
        cover = k.plain(0.75, 0.65)
        piece.box(x - w / 2, x + w / 2, y, y + d, z, z + 0.004, cover)
        piece.box(x - w / 2 + 0.008, x + w / 2 - 0.006, y + 0.006, y + d - 0.006, z, z + t, page)
        piece.box(x - w / 2, x + w / 2, y, y + d, z + t - 0.004, z + t, cover)
        piece.box(x - w / 2, x - w / 2 + 0.006, y, y + d, z, z + t, cover)
        z += t
    return piece


def clock(k: Kit) -> Piece:
    """Wall clock, back to the wall: rim, pale face, two hands, hour marks."""
    r = k.u(0.14, 0.24)
    piece = Piece(ID["clock"], 2 * r, 0.05, 2 * r)
    pale = k.materials.add((0.9, 0.89, 0.84))
    rim = k.draw.pick((k.black, k.wood2, k.metal, k.plain(0.7, 0.6)))
    piece.rod(0, 0.02, r, 0.04, r, rim, along="y")
    piece.rod(0, 0.022, r, 0.04, 0.86 * r, pale, along="y")
    up = k.draw.pick((1, -1))
    a, b = sorted((0.0, up * 0.7 * r))
    piece.box(-0.012, 0.012, 0.04, 0.047, r + a, r + b, k.black)
    a, b = sorted((0.0, k.draw.pick((1, -1)) * 0.45 * r))
    piece.box(a, b, 0.04, 0.049, r - 0.014, r + 0.014, k.black)
    for x, z in ((0, 0.75), (0, -0.75), (0.75, 0), (-0.75, 0)):
        e = 0.05 * r
        piece.box(x * r - e, x * r + e, 0.04, 0.046, r + z * r - e, r + z * r + e, k.black)
    return piece


def vase(k: Kit) -> Piece:
    """Vase: belly and open neck, sometimes with flowers."""
    r, h = k.u(0.06, 0.12), k.u(0.22, 0.4)
    piece = Piece(ID["vase"], 2 * r, 2 * r, h)
    glaze = k.materials.add(
        k.colour(0.6, 0.8), k.colour(0.5, 0.8),
        k.draw.pick((render.PLAIN, render.STRIPES, render.NOISE)), 12.0, 0.8, 0.6,
    )  # fmt: skip
    shape = k.draw.integer(3)
    if shape == 0:
        piece.pole(0, r, 0, h, 0.7 * r, glaze, kind=render.TUBE)
    else:
        piece.ball(0, r, r * 0.9, r, glaze)
        piece.pole(0, r, 1.5 * r, h, (0.4 if shape == 1 else 0.6) * r, glaze, kind=render.TUBE)
        piece.pole(0, r, 0, 0.25 * r, 0.6 * r, glaze)
    if k.draw.chance(0.5):
        stem = k.materials.add((0.04, 0.2, 0.04))
        petal = k.plain(0.85, 0.95)
        for _ in range(4):
            x, y, z = k.u(-0.8, 0.8) * r, r + k.u(-0.8, 0.8) * r, h + k.u(0.04, 0.16)
            piece.pole(x * 0.4, r + 0.4 * (y - r), 0.8 * h, z, 0.005, stem)
            piece.ball(x * 0.4, r + 0.4 * (y - r), z, k.u(0.02, 0.035), petal)
    return piece
