"""Outlines: closed polygons made of few numbers. Plain NumPy, y up, any unit.

Every function returns an array (n, 2) of float64 points, in order around the shape.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
XY = ArrayLike  # (2,): x, y


def smooth(corners: ArrayLike, per_side: int = 6) -> Points:
    """A closed curve through the corners (Catmull-Rom spline): (k, 2) -> (k * per_side, 2)."""
    path = np.asarray(corners, dtype=float)
    return _spline(np.concatenate([path[-1:], path, path[:2]]), per_side)


def _spline(points: Points, per_side: int) -> Points:
    """From the second point to the last but one, smoothly: (k + 3, 2) -> (k * per_side, 2)."""
    p0, p1, p2, p3 = points[:-3], points[1:-2], points[2:-1], points[3:]
    t = (np.arange(per_side) / per_side)[None, :, None]  # (1, s, 1)
    a, b = 2 * p1, p2 - p0
    c, d = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3
    curve = a[:, None] + b[:, None] * t + c[:, None] * t**2 + d[:, None] * t**3
    return (curve / 2).reshape(-1, 2)


def ellipse(centre: XY, rx: float, ry: float, angle: float = 0.0, n: int = 20) -> Points:
    """An ellipse turned by `angle` radians: -> (n, 2)."""
    flat = _circle(n) * (rx, ry)
    if angle:
        cos, sin = np.cos(angle), np.sin(angle)
        flat = flat @ np.array([[cos, sin], [-sin, cos]])
    return flat + np.asarray(centre)


@lru_cache(maxsize=64)
def _circle(n: int) -> Points:
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def limb(joints: ArrayLike, widths: ArrayLike) -> Points:
    """A tapering band along the joints, with a round end: a leg, a neck, a tail, a horn."""
    path, half = np.asarray(joints, dtype=float), np.asarray(widths, dtype=float) / 2
    steps = np.gradient(path, axis=0)
    normal = np.stack([-steps[:, 1], steps[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    left, right = path + normal * half[:, None], path - normal * half[:, None]
    tip = path[-1] + steps[-1] / (np.linalg.norm(steps[-1]) + 1e-9) * half[-1] * 0.7
    return np.concatenate([left, tip[None], right[::-1]])


def curl(joints: ArrayLike, widths: ArrayLike) -> Points:
    """A `limb` whose path bends smoothly through the joints (an open quadratic-like spline)."""
    path, wide = np.asarray(joints, dtype=float), np.asarray(widths, dtype=float)
    padded = np.concatenate([2 * path[:1] - path[1:2], path, 2 * path[-1:] - path[-2:-1]])
    thick = wide[:-1, None] + np.diff(wide)[:, None] * (np.arange(4) / 4)
    joints = np.concatenate([_spline(padded, 4), path[-1:]])
    return limb(joints, np.concatenate([thick.ravel(), wide[-1:]]))


def cloud(centre: XY, rx: float, ry: float, bumps: int, depth: float = 0.09) -> Points:
    """An ellipse with a scalloped edge of `bumps` bumps: wool, leaves, clouds."""
    return _unit_cloud(bumps, depth) * (rx, ry) + np.asarray(centre)


@lru_cache(maxsize=64)
def _unit_cloud(bumps: int, depth: float) -> Points:
    t = np.linspace(0, 2 * np.pi, bumps * 7, endpoint=False)
    radius = 1 - depth + depth * 1.6 * np.abs(np.sin(t * bumps / 2))
    # A little squareness makes a body rather than an egg.
    square = (np.abs(np.cos(t)) ** 2.6 + np.abs(np.sin(t)) ** 2.6) ** (-1 / 2.6)
    return np.stack([np.cos(t), np.sin(t)], axis=1) * (radius * square)[:, None]


def grow(points: Points, sx: float, sy: float, shift: XY = (0.0, 0.0)) -> Points:
    """Scale a shape about the middle of its bounding box, then shift it."""
    middle = (points.min(0) + points.max(0)) / 2
    return (points - middle) * (sx, sy) + middle + np.asarray(shift)


def rectangle(left: float, bottom: float, right: float, top: float) -> Points:
    """An upright rectangle."""
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)], dtype=float)
