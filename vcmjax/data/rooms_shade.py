"""Colour of ray-cast rooms: procedural textures, Lambert and Phong light, one hard shadow.

Arrays are those of `vcmjax.data.rooms_render`.
"""

import numpy as np

from vcmjax.data.rooms_render import (
    BOOKS,
    BOX,
    BRICK,
    CHECKER,
    FACES,
    NOISE,
    PANEL,
    PLAIN,
    SPECKLE,
    STRIPES,
    TILES,
    WOOD,
    _face_normal,
    _intersect,
    _jit,
    _local,
    _surface,
)


@_jit
def _hash(i, j, seed):
    """A fixed pseudo-random number in [0, 1) of three integers."""
    h = (i * 374761393 + j * 668265263 + seed * 974634541) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 668265263) & 0xFFFFFFFF
    return (h ^ (h >> 16)) / 4294967296.0


@_jit
def _noise(u, v, seed):
    """Smooth value noise in [0, 1) with unit cells."""
    i, j = int(np.floor(u)), int(np.floor(v))
    x, y = u - i, v - j
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    low = _hash(i, j, seed) * (1 - x) + _hash(i + 1, j, seed) * x
    high = _hash(i, j + 1, seed) * (1 - x) + _hash(i + 1, j + 1, seed) * x
    return low * (1 - y) + high * y


@_jit
def _pattern(texture, u, v, seed):
    """Share of the second colour in [0, 1] at texture coordinates."""
    i, j = int(np.floor(u)), int(np.floor(v))
    x, y = u - i, v - j
    if texture == CHECKER:
        return float((i + j) & 1)
    if texture == STRIPES:
        return 1.0 if x < 0.5 else 0.0
    if texture == WOOD:  # planks along u, each of its own tone, with grain
        if y < 0.03:
            return 1.0
        tone = _hash(j, 7, seed)
        grain = _noise(0.7 * u + 31 * tone, 7 * v, seed)
        return 0.45 * tone + 0.4 * grain
    if texture == NOISE:
        return 0.6 * _noise(u, v, seed) + 0.4 * _noise(3.1 * u, 3.1 * v, seed + 1)
    if texture == TILES:
        if x < 0.06 or y < 0.06:
            return 1.0
        return 0.15 * _hash(i, j, seed)
    if texture == BRICK:
        x = u / 2 + 0.5 * (j & 1)
        i = int(np.floor(x))
        if x - i < 0.05 or y < 0.1:
            return 1.0
        return 0.4 * _hash(i, j, seed)
    if texture == SPECKLE:
        return _hash(i, j, seed)
    if texture == PANEL:  # inset frame, for doors
        edge = min(x, 1 - x, y, 1 - y)
        return 1.0 if 0.1 < edge < 0.14 else 0.0
    return 0.0


@_jit
def _albedo(material, u, v):
    """Colour of a material at coordinates in metres."""
    texture, seed = int(material[0]), int(material[8])
    u, v = u * material[7], v * material[7]
    r, g, b = material[1], material[2], material[3]
    if texture == PLAIN:
        return r, g, b
    if texture == BOOKS:  # spines of many colours, standing side by side along u
        i, j = int(np.floor(u)), int(np.floor(v * 0.13))
        edge = u - i
        tone = 0.25 if edge < 0.12 else 0.45 + 0.75 * _hash(i, j, seed + 3)
        mix = _hash(i, j, seed)
        band = 0.6 if 0.70 < v * 0.4 - np.floor(v * 0.4) < 0.8 and mix > 0.4 else 1.0
        red = (1 - mix) * r + mix * material[4] + 0.35 * (_hash(i, j, seed + 4) - 0.5)
        green = (1 - mix) * g + mix * material[5] + 0.35 * (_hash(i, j, seed + 5) - 0.5)
        blue = (1 - mix) * b + mix * material[6] + 0.35 * (_hash(i, j, seed + 6) - 0.5)
        tone *= band
        return max(0.02, red) * tone, max(0.02, green) * tone, max(0.02, blue) * tone
    w = material[9] * _pattern(texture, u, v, seed)
    return (
        r + w * (material[4] - r),
        g + w * (material[5] - g),
        b + w * (material[6] - b),
    )


@_jit
def shadows(camera, primitives, groups, light, depth, hit):
    """Share of the first light that reaches each pixel of a `cast`.

    Args:
      camera: (13,), see `rooms_render`.
      primitives: (P, 18), see `rooms_render`.
      groups: (G, 6), see `rooms_render`.
      light: (3,) position, metres.
      depth: (n, n) from `cast`.
      hit: (n, n) from `cast`.

    Returns:
      float64 (n, n): 0 in shadow, else 1.
    """
    n = depth.shape[0]
    tan = camera[12]
    lit = np.ones((n, n))
    reach = np.empty(primitives.shape[0])  # squared radius of bounding spheres
    for k in range(primitives.shape[0]):
        p = primitives[k]
        reach[k] = p[4] * p[4] + p[5] * p[5] + p[6] * p[6] + 1e-9
    last = -1
    for i in range(n):
        v = (2 * i + 1) * tan / n - tan
        for j in range(n):
            u = (2 * j + 1) * tan / n - tan
            t = depth[i, j]
            dx = camera[3] * u + camera[6] * v + camera[9]
            dy = camera[4] * u + camera[7] * v + camera[10]
            dz = camera[5] * u + camera[8] * v + camera[11]
            x, y, z = camera[0] + t * dx, camera[1] + t * dy, camera[2] + t * dz
            if hit[i, j] < FACES:
                nx, ny, nz = _face_normal(hit[i, j])
            else:
                p = primitives[hit[i, j] - FACES]
                nx, ny, nz, _, _ = _surface(p, int(p[0]), x, y, z, dx, dy, dz)
            # Leave the surface, or it would shadow itself.
            x, y, z = x + 2e-3 * nx, y + 2e-3 * ny, z + 2e-3 * nz
            lx, ly, lz = light[0] - x, light[1] - y, light[2] - z
            if lx * nx + ly * ny + lz * nz <= 0.0:
                continue  # unlit whatever stands between
            square = lx * lx + ly * ly + lz * lz
            done = False
            if last >= 0:  # what shaded the pixel before probably shades this one
                p = primitives[last]
                o = _local(p, x - p[1], y - p[2], z - p[3])
                d = _local(p, lx, ly, lz)
                done = _intersect(int(p[0]), o, d, (p[4], p[5], p[6]), 1e-4) < 1.0
            if done:
                lit[i, j] = 0.0
                continue
            last = -1
            for g in range(groups.shape[0]):
                gx, gy, gz = groups[g, 2] - x, groups[g, 3] - y, groups[g, 4] - z
                along = (gx * lx + gy * ly + gz * lz) / square
                along = min(1.0, max(0.0, along))
                gx, gy, gz = gx - along * lx, gy - along * ly, gz - along * lz
                if gx * gx + gy * gy + gz * gz > groups[g, 5] * groups[g, 5]:
                    continue
                for k in range(int(groups[g, 0]), int(groups[g, 1])):
                    p = primitives[k]
                    gx, gy, gz = p[1] - x, p[2] - y, p[3] - z
                    along = min(1.0, max(0.0, (gx * lx + gy * ly + gz * lz) / square))
                    gx, gy, gz = gx - along * lx, gy - along * ly, gz - along * lz
                    if gx * gx + gy * gy + gz * gz > reach[k]:
                        continue
                    o = _local(p, x - p[1], y - p[2], z - p[3])
                    d = _local(p, lx, ly, lz)
                    if _intersect(int(p[0]), o, d, (p[4], p[5], p[6]), 1e-4) < 1.0:
                        done = True
                        last = k
                        break
                if done:
                    break
            if done:
                lit[i, j] = 0.0
    return lit


@_jit
def shade(camera, room, primitives, materials, lights, ambient, depth, hit, lit):
    """Linear-light picture at half the resolution of a `cast`.

    Args:
      camera: (13,), see `rooms_render`.
      room: (3,) size of the room, metres.
      primitives: (P, 18), see `rooms_render`.
      materials: (M, 12), see `rooms_render`.
      lights: (L, 7), see `rooms_render`.
      ambient: (3,) colour of the light from everywhere.
      depth: (2n, 2n) from `cast`.
      hit: (2n, 2n) from `cast`.
      lit: (n, n), share of the first light received.

    Returns:
      float64 (n, n, 3), >= 0, each pixel the mean of its four samples.
    """
    n = depth.shape[0]
    tan = camera[12]
    out = np.zeros((n // 2, n // 2, 3))
    for i in range(n):
        v = (2 * i + 1) * tan / n - tan
        for j in range(n):
            u = (2 * j + 1) * tan / n - tan
            t = depth[i, j]
            dx = camera[3] * u + camera[6] * v + camera[9]
            dy = camera[4] * u + camera[7] * v + camera[10]
            dz = camera[5] * u + camera[8] * v + camera[11]
            length = np.sqrt(dx * dx + dy * dy + dz * dz)
            x, y, z = camera[0] + t * dx, camera[1] + t * dy, camera[2] + t * dz
            if hit[i, j] < FACES:
                face = hit[i, j]
                nx, ny, nz = _face_normal(face)
                material = materials[face]
                s, q = (y, z) if face < 2 else ((x, z) if face < 4 else (x, y))
                # Corners receive less of the light that bounces about.
                edge = 9.0
                for axis, where in enumerate((x, y, z)):
                    if axis != face // 2:
                        edge = min(edge, where, room[axis] - where)
                open_ = 1.0 - 0.35 / (1.0 + (edge / 0.2) ** 2)
            else:
                p = primitives[hit[i, j] - FACES]
                kind = int(p[0])
                nx, ny, nz, _, _ = _surface(p, kind, x, y, z, dx, dy, dz)
                material = materials[int(p[16])]
                a, b, c = _local(p, x - p[1], y - p[2], z - p[3])
                if material[0] == PLAIN:
                    s, q = 0.0, 0.0
                elif kind == BOX:
                    na, _, nc = _local(p, nx, ny, nz)
                    s, q = (a, b) if abs(nc) > 0.5 else ((b, c) if abs(na) > 0.5 else (a, c))
                else:
                    s, q = np.arctan2(b, a) * p[4], c
                open_ = 1.0 - 0.3 / (1.0 + (z / 0.15) ** 2)
            r, g, b_ = _albedo(material, s, q)
            sky = open_ * (0.8 + 0.2 * nz)
            er, eg, eb = ambient[0] * sky, ambient[1] * sky, ambient[2] * sky
            gloss = 0.0
            for k in range(lights.shape[0]):
                light = lights[k]
                lx, ly, lz = light[0] - x, light[1] - y, light[2] - z
                square = lx * lx + ly * ly + lz * lz
                root = np.sqrt(square)
                cosine = (lx * nx + ly * ny + lz * nz) / root
                if cosine <= 0.0:
                    continue
                power = 1.0 / (1.0 + square / (light[6] * light[6]))
                if k == 0:
                    power *= 0.15 + 0.85 * lit[i // 2, j // 2]
                w = power * cosine * (0.5 + 0.5 * open_)
                er, eg, eb = er + w * light[3], eg + w * light[4], eb + w * light[5]
                if material[10] > 0.0:
                    hx, hy, hz = lx / root - dx / length, ly / root - dy / length, lz / root
                    hz -= dz / length
                    shine = (hx * nx + hy * ny + hz * nz) / np.sqrt(hx * hx + hy * hy + hz * hz)
                    if shine > 0.0:
                        shine *= shine
                        shine *= shine
                        shine *= shine
                        shine *= shine
                        gloss += material[10] * power * shine * shine
            glow = material[11]
            out[i // 2, j // 2, 0] += 0.25 * (r * (er + glow) + gloss)
            out[i // 2, j // 2, 1] += 0.25 * (g * (eg + glow) + gloss)
            out[i // 2, j // 2, 2] += 0.25 * (b_ * (eb + glow) + gloss)
    return out
