"""Ray casting of a room of boxes, cylinders, spheres, open tubes and bowls, by numba loops.

World frame: metres, x and y along the walls, z up; the room is ``[0, X] x [0, Y] x [0, Z]``.
Camera frame: x right, y down, z along the optical axis. The ray of pixel (row, column) of an
``n x n`` picture has camera-frame direction ``(u, v, 1)``, ``u = ((2 column + 1) / n - 1) tan``,
``v = ((2 row + 1) / n - 1) tan`` with ``tan`` that of half the field of view, so that the ray
parameter of a hit *is* its depth along the optical axis.

Arrays passed around (all float64):

* camera (13,): position, right, down, forward, tan
* primitives (P, 18): kind, centre (3), half-size (3), local axes as rows (9), material, segment
  id. Half-size is (x, y, z) of a box, (r, r, half-height) of a cylinder or tube, (r, r, r) of a
  sphere or bowl. The first six materials of a scene are those of the room's faces.
* materials (M, 12): texture, colour (3), second colour (3), texels per metre, seed, amount of
  second colour, specular strength, emission
* lights (L, 7): position (3), colour (3), half-intensity distance in metres
* groups (G, 6): first primitive, end, bounding sphere; one per piece of furniture
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BOX, CYLINDER, SPHERE, TUBE, BOWL = range(5)
"""Kinds of primitive. A tube is a cylinder without lid, a bowl a lower half sphere without lid;
both are infinitely thin and seen from both sides."""

PLAIN, CHECKER, STRIPES, WOOD, NOISE, TILES, BRICK, SPECKLE, BOOKS, PANEL = range(10)
"""Kinds of texture."""

FACES = 6
"""Hits below this number are the room's faces: x=0, x=X, y=0, y=Y, floor, ceiling."""

NEAR = 0.05
"""Closest visible depth, metres."""

CURVATURE_HALF = 10.0
"""Curvature (1/m) that is mapped to 1/2."""

RESHADING_HALF = 8.0
"""Distance (m) at which reshading has fallen to half of its value close by."""


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile, caching on disk where any cache directory can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no writable place for its cache
        return numba.njit(**options)(function)


@_jit
def _intersect(kind, o, d, h, start):
    """Smallest ray parameter > start at which o + t d meets the primitive (local), or inf."""
    ox, oy, oz = o
    dx, dy, dz = d
    if abs(dx) < 1e-12:
        dx = 1e-12
    if abs(dy) < 1e-12:
        dy = 1e-12
    if abs(dz) < 1e-12:
        dz = 1e-12
    # The slab in z bounds boxes and cylinders alike.
    inverse = 1.0 / dz
    z0, z1 = (-h[2] - oz) * inverse, (h[2] - oz) * inverse
    if z0 > z1:
        z0, z1 = z1, z0
    if kind == BOX:
        inverse = 1.0 / dx
        x0, x1 = (-h[0] - ox) * inverse, (h[0] - ox) * inverse
        if x0 > x1:
            x0, x1 = x1, x0
        inverse = 1.0 / dy
        y0, y1 = (-h[1] - oy) * inverse, (h[1] - oy) * inverse
        if y0 > y1:
            y0, y1 = y1, y0
        near, far = max(x0, y0, z0), min(x1, y1, z1)
        return near if near <= far and near > start else np.inf
    a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - h[0] * h[0]
    if kind in (SPHERE, BOWL):
        a, b, c = a + dz * dz, b + oz * dz, c + oz * oz
    root = b * b - a * c
    if root < 0.0:
        return np.inf
    root = np.sqrt(root)
    t0, t1 = (-b - root) / a, (-b + root) / a
    if kind == SPHERE:
        return t0 if t0 > start else np.inf
    if kind == BOWL:
        if t0 > start and oz + t0 * dz <= 0.0:
            return t0
        return t1 if t1 > start and oz + t1 * dz <= 0.0 else np.inf
    if kind == CYLINDER:
        near, far = max(t0, z0), min(t1, z1)
        return near if near <= far and near > start else np.inf
    best = np.inf
    if t0 > start and abs(oz + t0 * dz) <= h[2]:
        best = t0
    elif t1 > start and abs(oz + t1 * dz) <= h[2]:
        best = t1
    bottom = (-h[2] - oz) / dz
    if bottom > start and bottom < best and bottom >= t0 and bottom <= t1:
        best = bottom
    return best


@_jit
def _local(p, x, y, z):
    """A world vector in the axes of primitive p."""
    return (
        p[7] * x + p[8] * y + p[9] * z,
        p[10] * x + p[11] * y + p[12] * z,
        p[13] * x + p[14] * y + p[15] * z,
    )


@_jit
def _bounds(o, h, right, down, ahead):
    """Range of u and of v that the box of half-size h about -o takes in front of `NEAR`."""
    u0, u1, v0, v1 = np.inf, -np.inf, np.inf, -np.inf
    for corner in range(8):
        x = (h[0] if corner & 1 else -h[0]) - o[0]
        y = (h[1] if corner & 2 else -h[1]) - o[1]
        z = (h[2] if corner & 4 else -h[2]) - o[2]
        r = right[0] * x + right[1] * y + right[2] * z
        d = down[0] * x + down[1] * y + down[2] * z
        away = ahead[0] * x + ahead[1] * y + ahead[2] * z
        if away > NEAR:
            u, v = r / away, d / away
            u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
            continue
        for axis in range(3):  # cut the edges that lead from behind to the front
            span = -2 * h[axis] if corner >> axis & 1 else 2 * h[axis]
            if away + span * ahead[axis] > NEAR:
                part = (NEAR - away) / ahead[axis]
                u, v = (r + part * right[axis]) / NEAR, (d + part * down[axis]) / NEAR
                u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
    return u0, u1, v0, v1


@_jit
def cast(camera, room, primitives, n):
    """First surface seen by each pixel.

    Args:
      camera: (13,), see the module.
      room: (3,) size of the room, metres.
      primitives: (P, 18), see the module.
      n: Rows and columns.

    Returns:
      Depth along the optical axis, float64 (n, n), metres; and what was hit, int32 (n, n): a face
      of the room below `FACES`, else `FACES` + row of `primitives`.
    """
    depth = np.empty((n, n))
    hit = np.empty((n, n), np.int32)
    tan = camera[12]
    step = 2.0 * tan / n
    first = step / 2 - tan
    for i in range(n):
        v = first + i * step
        for j in range(n):
            u = first + j * step
            best, face = np.inf, 0
            for axis in range(3):
                d = camera[3 + axis] * u + camera[6 + axis] * v + camera[9 + axis]
                if d < 0.0:
                    t = -camera[axis] / d
                    if t < best:
                        best, face = t, 2 * axis
                elif d > 0.0:
                    t = (room[axis] - camera[axis]) / d
                    if t < best:
                        best, face = t, 2 * axis + 1
            depth[i, j] = best
            hit[i, j] = face
    # Nearest first, so that most of what is hidden is never intersected.
    nearest = np.empty(primitives.shape[0])
    for k in range(primitives.shape[0]):
        p = primitives[k]
        ahead = _local(p, camera[9], camera[10], camera[11])
        centre = 0.0
        for axis in range(3):
            centre += camera[9 + axis] * (p[1 + axis] - camera[axis])
        extent = abs(ahead[0]) * p[4] + abs(ahead[1]) * p[5] + abs(ahead[2]) * p[6]
        nearest[k] = centre - extent - 1e-9
    for k in np.argsort(nearest, kind="mergesort"):
        p = primitives[k]
        kind = int(p[0])
        closest = nearest[k]
        h = (p[4], p[5], p[6])
        o = _local(p, camera[0] - p[1], camera[1] - p[2], camera[2] - p[3])
        right = _local(p, camera[3], camera[4], camera[5])
        down = _local(p, camera[6], camera[7], camera[8])
        ahead = _local(p, camera[9], camera[10], camera[11])
        u0, u1, v0, v1 = _bounds(o, h, right, down, ahead)
        if u0 >= tan or u1 <= -tan or v0 >= tan or v1 <= -tan:
            continue
        i0 = max(0, int(np.floor((max(v0, -tan) - first) / step)))
        i1 = min(n, int(np.ceil((min(v1, tan) - first) / step)) + 1)
        j0 = max(0, int(np.floor((max(u0, -tan) - first) / step)))
        j1 = min(n, int(np.ceil((min(u1, tan) - first) / step)) + 1)
        for i in range(i0, i1):
            v = first + i * step
            bx, by, bz = ahead[0] + v * down[0], ahead[1] + v * down[1], ahead[2] + v * down[2]
            for j in range(j0, j1):
                if depth[i, j] <= closest:
                    continue
                u = first + j * step
                d = (bx + u * right[0], by + u * right[1], bz + u * right[2])
                t = _intersect(kind, o, d, h, NEAR)
                if t < depth[i, j]:
                    depth[i, j] = t
                    hit[i, j] = FACES + k
    return depth, hit


@_jit
def _outward(kind, x, y, z, h):
    """Outward normal and the two principal curvatures (convex > 0) of a surface point (local)."""
    if kind == BOX:
        ax, ay, az = abs(x) - h[0], abs(y) - h[1], abs(z) - h[2]
        if ax >= ay and ax >= az:
            return (1.0 if x > 0 else -1.0), 0.0, 0.0, 0.0, 0.0
        if ay >= az:
            return 0.0, (1.0 if y > 0 else -1.0), 0.0, 0.0, 0.0
        return 0.0, 0.0, (1.0 if z > 0 else -1.0), 0.0, 0.0
    r = h[0]
    if kind in (SPHERE, BOWL):
        return x / r, y / r, z / r, 1.0 / r, 1.0 / r
    radius = np.sqrt(x * x + y * y)
    if abs(abs(z) - h[2]) < abs(radius - r):
        return 0.0, 0.0, (1.0 if z > 0 else -1.0), 0.0, 0.0
    return x / r, y / r, 0.0, 1.0 / r, 0.0


@_jit
def _surface(p, kind, x, y, z, dx, dy, dz):
    """World normal facing against d, and curvatures k1 >= k2, at a world point on primitive p."""
    lx, ly, lz = _local(p, x - p[1], y - p[2], z - p[3])
    a, b, c, k1, k2 = _outward(kind, lx, ly, lz, (p[4], p[5], p[6]))
    nx = p[7] * a + p[10] * b + p[13] * c
    ny = p[8] * a + p[11] * b + p[14] * c
    nz = p[9] * a + p[12] * b + p[15] * c
    if nx * dx + ny * dy + nz * dz > 0.0:  # the inside of a tube or bowl
        return -nx, -ny, -nz, 0.0 - k2, 0.0 - k1
    return nx, ny, nz, k1, k2


@_jit
def _face_normal(face):
    sign = 1.0 if face % 2 == 0 else -1.0
    return (
        sign if face < 2 else 0.0,
        sign if face == 2 or face == 3 else 0.0,
        sign if face > 3 else 0.0,
    )


@_jit
def labels(camera, primitives, depth, hit):
    """Per-pixel labels of what `cast` saw.

    Args:
      camera: (13,), see the module.
      primitives: (P, 18), see the module.
      depth: (n, n) from `cast`.
      hit: (n, n) from `cast`.

    Returns:
      Segment ids uint8 (n, n); normals float32 (n, n, 3), camera frame, facing the camera (negative
      product with the ray); reshading float32 (n, n, 1), ``-n . ray / (1 + (distance /
      RESHADING_HALF)**2)`` for the unit ray; principal curvatures k1 >= k2, convex positive, as
      ``k / (|k| + CURVATURE_HALF)``, float32 (n, n, 2).
    """
    n = depth.shape[0]
    segment = np.zeros((n, n), np.uint8)
    normal = np.empty((n, n, 3), np.float32)
    reshading = np.empty((n, n, 1), np.float32)
    curvature = np.empty((n, n, 2), np.float32)
    tan = camera[12]
    for i in range(n):
        v = (2 * i + 1) * tan / n - tan
        for j in range(n):
            u = (2 * j + 1) * tan / n - tan
            t = depth[i, j]
            dx = camera[3] * u + camera[6] * v + camera[9]
            dy = camera[4] * u + camera[7] * v + camera[10]
            dz = camera[5] * u + camera[8] * v + camera[11]
            k1, k2 = 0.0, 0.0
            if hit[i, j] < FACES:
                nx, ny, nz = _face_normal(hit[i, j])
            else:
                p = primitives[hit[i, j] - FACES]
                x, y, z = camera[0] + t * dx, camera[1] + t * dy, camera[2] + t * dz
                nx, ny, nz, k1, k2 = _surface(p, int(p[0]), x, y, z, dx, dy, dz)
                segment[i, j] = int(p[17])
            length = np.sqrt(dx * dx + dy * dy + dz * dz)
            normal[i, j, 0] = nx * camera[3] + ny * camera[4] + nz * camera[5]
            normal[i, j, 1] = nx * camera[6] + ny * camera[7] + nz * camera[8]
            normal[i, j, 2] = nx * camera[9] + ny * camera[10] + nz * camera[11]
            facing = -(nx * dx + ny * dy + nz * dz) / length
            far = t * length / RESHADING_HALF
            reshading[i, j, 0] = max(0.0, facing) / (1.0 + far * far)
            curvature[i, j, 0] = k1 / (abs(k1) + CURVATURE_HALF)
            curvature[i, j, 1] = k2 / (abs(k2) + CURVATURE_HALF)
    return segment, normal, reshading, curvature
