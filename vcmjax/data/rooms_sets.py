"""Sets of the procedural rooms: cabinets and shelves with objects in, on or before them.

Builders as in `vcmjax.data.rooms_furniture`; what is no object has segment id 0.
"""

from vcmjax.data import rooms_furniture as furniture
from vcmjax.data import rooms_render as render
from vcmjax.data.rooms_fittings import cabinet
from vcmjax.data.rooms_piece import ID, Kit, Piece
from vcmjax.data.rooms_style import hsv


def counter(k: Kit) -> Piece:
    """Kitchen run: base units, worktop, oven, basin, and wall units above."""
    w, d, h = k.u(2.2, 3.4), 0.62, 0.9
    piece = Piece(0, w, d, 2.2)
    body = k.draw.pick((k.wood, k.white, k.fabric, k.wood2))
    spot = k.u(-0.3, 0.3) * w
    with_oven = k.draw.chance(0.85)
    spans = [(-w / 2, spot - 0.3), (spot + 0.3, w / 2)] if with_oven else [(-w / 2, w / 2)]
    if with_oven:
        piece.put(furniture.oven(k, hood=k.draw.chance(0.6)), spot, 0.01, 0)
    for x0, x1 in spans:
        piece.box(x0, x1, 0.02, d - 0.04, 0.1, h - 0.04, body)
        piece.box(x0, x1, 0.05, d - 0.1, 0, 0.1, k.black)
        piece.box(x0, x1, 0, d, h - 0.04, h, k.stone)
        count = max(1, round((x1 - x0) / 0.5))
        for i in range(count):
            a = x0 + i * (x1 - x0) / count
            b = a + (x1 - x0) / count
            piece.box(a + 0.007, b - 0.007, d - 0.04, d - 0.02, 0.12, h - 0.06, body)
            piece.rod((a + b) / 2, d - 0.005, h - 0.12, 0.14, 0.008, k.metal)
        piece.tops.append((x0 + 0.06, x1 - 0.06, 0.08, d - 0.1, h))
        if k.draw.chance(0.7):
            piece.box(x0, x1, 0, 0.34, 1.5, 2.15, body)
            for i in range(count):
                a = x0 + i * (x1 - x0) / count
                b = a + (x1 - x0) / count
                piece.box(a + 0.007, b - 0.007, 0.34, 0.36, 1.51, 2.14, body)
    if k.draw.chance(0.85):
        x0, x1 = max(spans, key=lambda s: s[1] - s[0])
        x = k.u(x0 + 0.3, max(x0 + 0.31, x1 - 0.3))
        piece.put(furniture.sink(k), x, 0.02, h)
        # Split the surface around the basin.
        piece.tops = [t for t in piece.tops if not t[0] < x < t[1]]
        piece.tops += [
            (x0 + 0.06, x - 0.3, 0.08, d - 0.1, h),
            (x + 0.3, x1 - 0.06, 0.08, d - 0.1, h),
        ]
    piece.tops = [t for t in piece.tops if t[1] - t[0] > 0.15]
    return piece


def vanity(k: Kit) -> Piece:
    """Bathroom cabinet with a basin, and a mirror above."""
    w = k.u(0.7, 1.3)
    piece = cabinet(k, w, 0.5, k.u(0.74, 0.82))
    x = k.u(-0.1, 0.1) * w
    top = piece.height
    piece.put(furniture.sink(k), x, 0.0, top)
    glass = k.materials.add((0.55, 0.62, 0.66), (0.75, 0.8, 0.85), render.NOISE, 1.2, 1.0, 0.6)
    piece.box(-0.45 * w, 0.45 * w, 0, 0.02, 1.15, 1.85, glass)
    piece.tops = [
        (-w / 2 + 0.05, x - 0.26, 0.05, 0.42, top),
        (x + 0.26, w / 2 - 0.05, 0.05, 0.42, top),
    ]
    piece.tops = [t for t in piece.tops if t[1] - t[0] > 0.08]
    return piece


def tv_stand(k: Kit) -> Piece:
    """Low cabinet with a tv on it."""
    piece = cabinet(k, k.u(1.2, 1.7), 0.42, k.u(0.42, 0.6))
    screen = furniture.tv(k)
    piece.put(screen, 0, 0.08, piece.height)
    edge = screen.width / 2
    piece.tops = [(-piece.width / 2, -edge, 0.06, 0.36, piece.height)]
    piece.tops = [t for t in piece.tops if t[1] - t[0] > 0.12]
    return piece


def desk(k: Kit) -> Piece:
    """Desk with a screen, keyboard and chair."""
    w, d, h = k.u(1.2, 1.7), 0.7, 0.74
    piece = Piece(0, w, d + 0.35, h)
    piece.box(-w / 2, w / 2, 0, d, h - 0.03, h, k.draw.pick((k.wood, k.white, k.wood2)))
    k.legs(piece, w / 2 - 0.05, 0.05, d - 0.05, h - 0.02, k.metal)
    piece.box(w / 2 - 0.45, w / 2 - 0.08, 0.05, d - 0.05, 0.05, h - 0.03, k.white)
    if k.draw.chance(0.85):
        screen = furniture.tv(k)
        piece.put(screen, -0.1 * w, 0.08, h)
        piece.box(-0.1 * w - 0.2, -0.1 * w + 0.2, 0.4, 0.54, h, h + 0.02, k.black)
    if k.draw.chance(0.85):
        piece.put(furniture.chair(k), -0.1 * w + k.u(-0.1, 0.1), d + 0.35, 0, back=True)
    piece.tops = [(0.25 * w, w / 2 - 0.05, 0.06, d - 0.06, h)]
    return piece


def dining_set(k: Kit) -> Piece:
    """Dining table with chairs at its long sides."""
    round_ = k.draw.chance(0.3)
    top = furniture.table(k, round_)
    piece = Piece(0, top.width, top.depth + 0.7, top.height)
    piece.put(top, 0, 0.35, 0)
    piece.tops = [(a, b, c + 0.35, d + 0.35, h) for a, b, c, d, h in top.tops]
    count = 1 if round_ else max(1, int(top.width / 0.62))
    for i in range(count):
        x = (i - (count - 1) / 2) * 0.62
        near, far = k.u(0.0, 0.12), top.depth + 0.7 - k.u(0.0, 0.12)
        if k.draw.chance(0.85):
            piece.put(furniture.chair(k), x, near, 0)
        if k.draw.chance(0.85):
            piece.put(furniture.chair(k), x, far, 0, back=True)
    return piece


def seat_row(k: Kit) -> Piece:
    """Row of equal chairs, as in waiting rooms."""
    one = furniture.chair(k)
    count = 2 + k.draw.integer(3)
    step = one.width + 0.08
    piece = Piece(0, count * step, one.depth, one.height)
    for i in range(count):
        piece.put(one, (i - (count - 1) / 2) * step, 0, 0)
    return piece


def nightstand(k: Kit) -> Piece:
    """Small cabinet with a lamp."""
    piece = cabinet(k, k.u(0.42, 0.55), 0.42, k.u(0.48, 0.6))
    if k.draw.chance(0.7):
        h = piece.height
        shade = k.materials.add((0.9, 0.8, 0.6), glow=0.35)
        piece.pole(-0.08, 0.2, h, h + 0.25, 0.02, k.metal)
        piece.pole(-0.08, 0.2, h + 0.22, h + 0.42, 0.12, shade)
        piece.tops = [(0.06, piece.width / 2 - 0.04, 0.06, 0.36, h)]
    return piece


def wall_tv(k: Kit) -> Piece:
    """A tv hung on the wall."""
    screen, z = furniture.tv(k), k.u(1.2, 1.5)
    piece = Piece(0, screen.width, 0.1, z + screen.height)
    piece.put(screen, 0, -0.05, z)
    return piece


def wall_clock(k: Kit) -> Piece:
    """A clock hung on the wall."""
    face, z = furniture.clock(k), k.u(1.55, 1.9)
    piece = Piece(0, face.width, 0.05, z + face.height)
    piece.put(face, 0, 0, z)
    return piece


def shelf(k: Kit, books: float = 0.85, boxes: float = 0.0) -> Piece:
    """Open shelves against a wall with rows of books, boxes or bottles."""
    w, d, h = k.u(0.8, 1.8), k.u(0.26, 0.34), k.u(1.5, 2.15)
    piece = Piece(0, w, d, h)
    frame = k.draw.pick((k.wood, k.wood2, k.white, k.metal))
    piece.box(-w / 2, w / 2, 0, 0.015, 0, h, frame)
    for x in (-w / 2, w / 2 - 0.03):
        piece.box(x, x + 0.03, 0, d, 0, h, frame)
    count = k.draw.pick((4, 5, 6))
    gap = (h - 0.05) / count
    first, second = k.colour(0.7, 0.6), k.colour(0.7, 0.7)
    for i in range(count + 1):
        piece.box(-w / 2, w / 2, 0, d, 0.03 + i * gap, 0.05 + i * gap, frame)
        if i == count:
            break
        z, roll = 0.05 + i * gap, k.draw.uniform()
        if roll < books:
            full = w / 2 - 0.035
            length = k.u(0.55, 1.0) * 2 * full
            spine = k.materials.add(first, second, render.BOOKS, k.u(18.0, 30.0))
            a = -full if k.draw.chance(0.5) else full - length
            top = z + gap * k.u(0.65, 0.85)
            piece.box(a, a + length, 0.03, d - k.u(0.02, 0.07), z, top, spine, ID["book"])
            piece.look(ID["book"], a + length / 2, d, (z + top) / 2, 0.45)
        elif roll < books + boxes:
            _carton(k, piece, w, d, z, gap)
        else:
            piece.tops.append((-w / 2 + 0.06, w / 2 - 0.06, 0.04, d - 0.02, z))
    return piece


def _carton(k: Kit, piece: Piece, w: float, d: float, z: float, gap: float) -> None:
    """Cardboard boxes on a board of a shelf."""
    x = -w / 2 + 0.06
    while x < w / 2 - 0.3:
        size = k.u(0.2, 0.42)
        card = k.materials.add(hsv(k.u(0.06, 0.1), k.u(0.4, 0.6), k.u(0.5, 0.8)))
        piece.box(x, min(x + size, w / 2 - 0.05), 0.03, d, z, z + gap * k.u(0.4, 0.85), card)
        x += size + k.u(0.02, 0.15)


def wardrobe(k: Kit) -> Piece:
    """Tall cabinet."""
    piece = cabinet(k, k.u(1.0, 1.8), 0.58, k.u(1.9, 2.2))
    piece.tops = []
    return piece


def sideboard(k: Kit) -> Piece:
    """Cabinet of table height."""
    return cabinet(k, k.u(1.0, 1.7), 0.42, k.u(0.75, 0.95))
