"""Placing furniture in a procedural room without collisions."""

import math

import numpy as np

from vcmjax.data.rooms_piece import Anchor, Kit, Piece


class Layout:
    """Pieces placed so far, in world coordinates."""

    def __init__(self, kit: Kit, room: tuple[float, float, float]) -> None:
        """Start with an empty room of a size in metres."""
        self.kit, self.room = kit, room
        self.rows: list[np.ndarray] = []
        self.spheres: list[tuple[float, float, float, float]] = []
        self.taken: list[tuple[float, float, float, float, float, float]] = []
        self.tops: list[tuple[Piece, float, float, float, tuple[float, ...]]] = []
        self.anchors: list[Anchor] = []

    def _stand(self, piece: Piece, x: float, y: float, z: float, yaw: float) -> None:
        """Append a piece with its back's middle at a world point, turned by yaw."""
        c, s = math.cos(yaw), math.sin(yaw)
        rows = np.array(piece.rows)
        turned = rows.copy()
        turned[:, 1] = x + c * rows[:, 1] - s * rows[:, 2]
        turned[:, 2] = y + s * rows[:, 1] + c * rows[:, 2]
        turned[:, 3] += z
        turned[:, 7:16:3] = c * rows[:, 7:16:3] - s * rows[:, 8:16:3]
        turned[:, 8:16:3] = s * rows[:, 7:16:3] + c * rows[:, 8:16:3]
        self.rows.append(turned)
        low, high = turned[:, 1:4].min(0), turned[:, 1:4].max(0)
        centre = (low + high) / 2
        reach = np.sqrt(((turned[:, 1:4] - centre) ** 2).sum(1))
        radius = float((reach + np.sqrt((turned[:, 4:7] ** 2).sum(1))).max())
        self.spheres.append((*centre.tolist(), radius))
        for a in piece.anchors:
            there = (x + c * a.x - s * a.y, y + s * a.x + c * a.y, z + a.z)
            self.anchors.append(Anchor(a.segment, *there, a.radius))
        for top in piece.tops:
            self.tops.append((piece, x, y, yaw, (*top[:4], top[4] + z)))

    def hang(self, piece: Piece) -> bool:
        """Hang a piece from the ceiling; always succeeds."""
        length, width, height = self.room
        x, y = self.kit.draw.uniform(0.25, 0.75) * length, self.kit.draw.uniform(0.25, 0.75) * width
        self._stand(piece, x, y, height, 0.0)
        return True

    def _free(self, box: tuple[float, float, float, float, float, float]) -> bool:
        x0, x1, y0, y1, z0, z1 = box
        return not any(
            x0 < b and a < x1 and y0 < d and c < y1 and z0 < f and e < z1
            for a, b, c, d, e, f in self.taken
        )

    def against_wall(self, piece: Piece) -> bool:
        """Place a piece with its back to a wall where there is room; whether it was placed."""
        draw, (length, width, _) = self.kit.draw, self.room
        low = min(row[3] - abs(row[6]) - 0.03 for row in piece.rows)
        gap = 0.05 if piece.depth < 0.15 else 0.02
        for _ in range(8):
            wall = draw.integer(4)
            side = length if wall < 2 else width
            spare = side - piece.width - 0.06
            if spare <= 0 or piece.depth > 0.6 * (width if wall < 2 else length):
                continue
            at = piece.width / 2 + 0.03 + draw.uniform(0, spare)
            half = piece.width / 2 + gap
            x, y, yaw, box = (
                (at, 0.0, 0.0, (at - half, at + half, 0.0, piece.depth)),
                (at, width, math.pi, (at - half, at + half, width - piece.depth, width)),
                (0.0, at, -math.pi / 2, (0.0, piece.depth, at - half, at + half)),
                (length, at, math.pi / 2, (length - piece.depth, length, at - half, at + half)),
            )[wall]
            space = (*box, max(low, 0.0), piece.height)
            if self._free(space):
                self._stand(piece, x, y, 0.0, yaw)
                self.taken.append(space)
                return True
        return False

    def in_middle(self, piece: Piece) -> bool:
        """Place a piece away from the walls; whether it was placed."""
        draw, (length, width, _) = self.kit.draw, self.room
        for _ in range(8):
            turn = draw.integer(4)
            w, d = (piece.width, piece.depth) if turn % 2 == 0 else (piece.depth, piece.width)
            if w > length - 0.6 or d > width - 0.6:
                continue
            cx = draw.uniform(w / 2 + 0.3, length - w / 2 - 0.3)
            cy = draw.uniform(d / 2 + 0.3, width - d / 2 - 0.3)
            space = (cx - w / 2, cx + w / 2, cy - d / 2, cy + d / 2, 0.0, piece.height)
            if piece.height < 0.05 or self._free(space):
                yaw = turn * math.pi / 2
                back = piece.depth / 2
                self._stand(piece, cx + back * math.sin(yaw), cy - back * math.cos(yaw), 0.0, yaw)
                if piece.height >= 0.05:
                    self.taken.append(space)
                return True
        return False

    def on_top(self, piece: Piece) -> bool:
        """Place a small piece on a free surface; whether it was placed."""
        draw = self.kit.draw
        for _ in range(5):
            if not self.tops:
                return False
            index = draw.integer(len(self.tops))
            _, x, y, yaw, (x0, x1, y0, y1, z) = self.tops[index]
            if x1 - x0 < piece.width or y1 - y0 < piece.depth - 0.12:
                continue
            left = draw.uniform(x0, x1 - piece.width)
            deep = draw.uniform(y0, max(y0 + 0.001, y1 - piece.depth))
            mid = left + piece.width / 2
            c, s = math.cos(yaw), math.sin(yaw)
            owner = self.tops.pop(index)[0]
            self._stand(piece, x + c * mid - s * deep, y + s * mid + c * deep, z, yaw)
            # What is left of the surface on either side can still be used.
            for a, b in ((x0, left - 0.04), (left + piece.width + 0.04, x1)):
                if b - a > 0.08:
                    self.tops.append((owner, x, y, yaw, (a, b, y0, y1, z)))
            return True
        return False
