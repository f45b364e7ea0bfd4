"""What each type of procedural room holds."""

from collections.abc import Callable
from typing import NamedTuple

from vcmjax.data import rooms_fittings as fit
from vcmjax.data import rooms_furniture as furniture
from vcmjax.data import rooms_sets as sets
from vcmjax.data.rooms_piece import Kit, Piece

Builder = Callable[[Kit], Piece]
Chances = tuple[tuple[Builder, float], ...]
"""Builders, and how likely each is tried."""


class Recipe(NamedTuple):
    """What a type of room holds: builder and chance of each try, in order of placing."""

    sides: tuple[float, float, float, float]  # least and most length and width, metres
    walls: Chances
    middle: Chances
    small: Chances
    tiled: float = 0.0


_DECOR: Chances = (
    (fit.door, 0.7), (fit.window, 0.65), (fit.radiator, 0.5), (fit.picture, 0.5),
    (fit.picture, 0.3), (fit.pillar, 0.15),
)  # fmt: skip

RECIPES = {
    "bathroom": Recipe(
        (2.1, 3.2, 1.9, 2.8),
        ((furniture.toilet, 0.95), (sets.vanity, 0.95), (fit.bathtub, 0.7), (furniture.plant, 0.25),
         (fit.radiator, 0.5), (fit.door, 0.6), (fit.window, 0.4), (fit.bin_, 0.4),
         (sets.wall_clock, 0.1)),
        (),
        ((furniture.bottle, 0.7), (furniture.bottle, 0.5), (furniture.vase, 0.2)),
        0.8,
    ),
    "bedroom": Recipe(
        (3.0, 4.6, 2.8, 4.0),
        ((furniture.bed, 1.0), (sets.nightstand, 0.8), (sets.wardrobe, 0.7), (sets.nightstand, 0.4),
         (sets.tv_stand, 0.3), (furniture.chair, 0.3), (sets.desk, 0.15), (furniture.plant, 0.3),
         (sets.wall_clock, 0.25), *_DECOR),
        ((fit.rug, 0.5),),
        ((furniture.book, 0.5), (furniture.vase, 0.4), (furniture.book, 0.3),
         (furniture.bottle, 0.1)),
    ),
    "corridor": Recipe(
        (4.5, 8.0, 1.5, 2.2),
        ((fit.door, 0.9), (fit.door, 0.9), (fit.door, 0.8), (fit.door, 0.6), (furniture.plant, 0.7),
         (furniture.chair, 0.4), (sets.wall_clock, 0.5), (sets.sideboard, 0.5), (fit.picture, 0.6),
         (fit.radiator, 0.5), (fit.pillar, 0.4), (fit.picture, 0.5), (furniture.plant, 0.3),
         (fit.lamp, 0.2), (sets.shelf, 0.1)),
        ((fit.rug, 0.3),),
        ((furniture.vase, 0.8), (furniture.book, 0.4), (furniture.vase, 0.3)),
    ),
    "dining room": Recipe(
        (3.2, 4.8, 3.0, 4.2),
        ((sets.sideboard, 0.8), (furniture.plant, 0.45), (sets.wall_clock, 0.35), (fit.lamp, 0.2),
         (furniture.refrigerator, 0.08), (furniture.chair, 0.2), (sets.shelf, 0.12), *_DECOR),
        ((sets.dining_set, 1.0),),
        ((furniture.vase, 0.8), (furniture.bottle, 0.7), (furniture.bottle, 0.5),
         (furniture.vase, 0.4), (furniture.book, 0.15), (furniture.toaster, 0.05)),
    ),
    "kitchen": Recipe(
        (2.8, 4.4, 2.6, 3.8),
        ((sets.counter, 1.0), (furniture.refrigerator, 0.9), (sets.sideboard, 0.3),
         (furniture.plant, 0.15), (sets.wall_clock, 0.4), (fit.bin_, 0.3), (fit.radiator, 0.4),
         (fit.door, 0.5), (fit.window, 0.5)),
        ((sets.dining_set, 0.3),),
        ((furniture.microwave, 0.85), (furniture.toaster, 0.85), (furniture.bottle, 0.6),
         (furniture.bottle, 0.5), (furniture.vase, 0.2), (furniture.microwave, 0.1)),
        0.35,
    ),
    "library": Recipe(
        (3.5, 6.0, 3.0, 4.8),
        ((sets.shelf, 1.0), (sets.shelf, 1.0), (sets.shelf, 0.9), (sets.shelf, 0.8),
         (sets.shelf, 0.6), (furniture.couch, 0.15), (furniture.plant, 0.25), (sets.desk, 0.2),
         (sets.wall_clock, 0.35), (fit.pillar, 0.35), (fit.door, 0.5), (fit.window, 0.4)),
        ((sets.dining_set, 0.5), (fit.rug, 0.2)),
        ((furniture.book, 0.9), (furniture.book, 0.6), (furniture.vase, 0.3)),
    ),
    "living room": Recipe(
        (3.6, 5.6, 3.2, 4.6),
        ((furniture.couch, 1.0), (sets.tv_stand, 0.85), (furniture.couch, 0.3),
         (furniture.plant, 0.6), (sets.shelf, 0.35), (fit.lamp, 0.5), (sets.wall_clock, 0.25),
         (sets.sideboard, 0.2), *_DECOR),
        ((fit.coffee_table, 0.9), (fit.rug, 0.6)),
        ((furniture.vase, 0.6), (furniture.book, 0.6), (furniture.bottle, 0.3),
         (furniture.book, 0.3)),
    ),
    "office": Recipe(
        (3.0, 5.2, 2.8, 4.4),
        ((sets.desk, 1.0), (sets.desk, 0.6), (sets.shelf, 0.5), (furniture.plant, 0.5),
         (sets.desk, 0.25), (sets.wall_clock, 0.5), (fit.bin_, 0.6), (fit.boxes, 0.15),
         (furniture.chair, 0.2), (fit.radiator, 0.5), (fit.pillar, 0.2), (fit.door, 0.6),
         (fit.window, 0.6), (fit.picture, 0.3)),
        (),
        ((furniture.book, 0.7), (furniture.book, 0.5), (furniture.bottle, 0.4),
         (furniture.vase, 0.15)),
    ),
    "storage room": Recipe(
        (2.4, 4.0, 2.2, 3.2),
        ((lambda k: sets.shelf(k, 0.1, 0.6), 1.0), (lambda k: sets.shelf(k, 0.15, 0.5), 0.8),
         (fit.boxes, 0.9), (fit.boxes, 0.7), (furniture.refrigerator, 0.3), (furniture.oven, 0.2),
         (furniture.chair, 0.4), (fit.boxes, 0.4), (furniture.toilet, 0.06), (fit.radiator, 0.15),
         (fit.door, 0.5)),
        ((fit.boxes, 0.3),),
        ((furniture.bottle, 0.8), (furniture.microwave, 0.4), (furniture.toaster, 0.4),
         (furniture.bottle, 0.6), (furniture.vase, 0.4), (furniture.book, 0.4)),
    ),
    "waiting room": Recipe(
        (3.4, 5.6, 3.0, 4.6),
        ((sets.seat_row, 1.0), (sets.seat_row, 0.8), (sets.wall_tv, 0.55), (furniture.plant, 0.7),
         (sets.wall_clock, 0.6), (sets.seat_row, 0.4), (furniture.couch, 0.2),
         (furniture.plant, 0.3), *_DECOR),
        ((fit.coffee_table, 0.7),),
        ((furniture.book, 0.8), (furniture.vase, 0.2), (furniture.bottle, 0.15)),
    ),
}  # fmt: skip
