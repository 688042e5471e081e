"""How each species is built: parts of an animal as outlines, once per species and posture.

Local frame: x forward, y up, the ground at y = 0, the unit about the length of the trunk. Every
part names the colour it takes (`role`), never a colour: `drawing.py` mixes the coats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from cliplab.pasture.scene import REACH
from cliplab.pasture.shapes import Points, cloud, curl, ellipse, grow, limb, smooth


class Part(NamedTuple):
    """One outline of an animal and the name of its colour."""

    points: Points  # (n, 2) body units
    role: str


@dataclass(frozen=True)
class Build:
    """Proportions of one species, in body units."""

    leg: float  # ground to belly
    length: float
    depth: float  # belly to back
    leg_width: float
    neck: tuple[float, float]  # shoulder to poll when the head is up
    neck_width: tuple[float, float]  # at the shoulder, at the poll
    head: tuple[float, float]  # length, depth
    head_drop: float  # slope of the face when the head is up: 0 level, 1 steep
    trunk: tuple[tuple[float, float], ...]  # outline, x in lengths, y in depths


BUILDS = {
    "sheep": Build(0.27, 0.92, 0.50, 0.085, (0.15, 0.12), (0.30, 0.20), (0.27, 0.17), 0.55, ()),
    "goat": Build(
        0.38, 0.84, 0.33, 0.07, (0.17, 0.27), (0.22, 0.14), (0.28, 0.14), 0.55,
        ((-0.5, 0.55), (-0.47, 0.92), (-0.25, 0.98), (0.0, 0.92), (0.3, 1.0), (0.48, 0.9),
         (0.52, 0.5), (0.4, 0.12), (0.05, 0.0), (-0.22, 0.06), (-0.42, 0.22)),
    ),
    "cow": Build(
        0.32, 1.08, 0.47, 0.11, (0.21, 0.10), (0.36, 0.25), (0.34, 0.24), 0.45,
        ((-0.5, 0.45), (-0.5, 0.9), (-0.4, 1.0), (0.0, 0.96), (0.32, 1.0), (0.49, 0.88),
         (0.53, 0.42), (0.42, 0.06), (0.1, 0.0), (-0.25, 0.03), (-0.45, 0.18)),
    ),
    "dog": Build(
        0.33, 0.74, 0.25, 0.07, (0.13, 0.19), (0.19, 0.15), (0.27, 0.15), 0.15,
        ((-0.5, 0.6), (-0.45, 0.95), (-0.2, 0.93), (0.2, 0.95), (0.45, 1.05), (0.54, 0.6),
         (0.42, 0.05), (0.2, -0.06), (-0.1, 0.26), (-0.35, 0.34)),
    ),
    "horse": Build(
        0.50, 0.98, 0.36, 0.09, (0.27, 0.40), (0.31, 0.16), (0.36, 0.16), 0.75,
        ((-0.5, 0.45), (-0.48, 0.88), (-0.36, 1.0), (-0.1, 0.86), (0.2, 0.9), (0.42, 1.02),
         (0.53, 0.6), (0.45, 0.12), (0.15, 0.02), (-0.15, 0.08), (-0.4, 0.22)),
    ),
}  # fmt: skip


@lru_cache(maxsize=256)
def parts(species: str, posture: str, source: str, variant: int) -> tuple[Part, ...]:
    """All parts of one animal in drawing order, facing right; `variant` is 0, 1 or 2."""
    build = BUILDS[species]
    belly = 0.03 if posture == "lying" else build.leg
    shoulder = np.array([0.40 * build.length, belly + 0.72 * build.depth])
    lowered = posture in ("eating", "drinking")
    poll, lips = _head_position(species, build, shoulder, source if lowered else "", variant)
    legs = _folded_legs if posture == "lying" else _standing_legs
    far, near = legs(build, variant)
    trunk = _trunk(species, build, belly)
    return tuple(
        far
        + _tail(species, build, belly, posture)
        + _mane(species, shoulder, poll)
        + trunk
        + _neck(species, build, shoulder, poll)
        + near
        + _head(species, build, poll, lips)
    )


def _head_position(species, build, shoulder, source, variant):
    """Poll (between the ears) and lips, head up or reaching what it eats or drinks."""
    length = build.head[0]
    if not source:
        poll = shoulder + build.neck + np.array([0.0, 0.02 * variant])
        face = np.array([1.0, -build.head_drop])
        return poll, poll + length * face / np.linalg.norm(face)
    height = {"trough": 0.17, "hay": 0.10}.get(source, 0.035)
    lips = np.array([REACH[species], height])
    face = np.array([0.55 + 0.08 * variant, -1.0])
    return lips - length * face / np.linalg.norm(face), lips


def _standing_legs(build: Build, variant: int) -> tuple[list[Part], list[Part]]:
    stride = (0.0, 0.05, -0.04)[variant]
    far: list[Part] = []
    near: list[Part] = []
    for side, shift in ((far, stride), (near, -stride)):
        role, inward = ("far", 0.10) if side is far else ("leg", 0.0)
        front, hind = (0.37 - inward) * build.length, (-0.39 + inward) * build.length
        side += _leg(build, front, front + shift, bend=0.0, role=role)
        side += _leg(build, hind, hind - shift, bend=-0.035, role=role)
    return far, near


def _leg(build: Build, top: float, foot: float, bend: float, role: str) -> list[Part]:
    w, hip, knee = build.leg_width, build.leg + 0.42 * build.depth, 0.45 * build.leg
    middle = (top + foot) / 2 + bend
    joints = [(top, hip), (middle, knee), (foot, 0.03)]
    hoof = smooth([(foot - w * 0.5, 0.0), (foot - w * 0.42, 0.06), (foot + w * 0.42, 0.06),
                   (foot + w * 0.66, 0.0)], 3)  # fmt: skip
    return [Part(limb(joints, (w * 1.9, w * 0.95, w * 0.8)), role), Part(hoof, "hoof")]


def _folded_legs(build: Build, variant: int) -> tuple[list[Part], list[Part]]:
    w, chest, rump = build.leg_width, 0.40 * build.length, -0.36 * build.length
    reach = 0.20 + 0.04 * variant
    foreleg = limb(
        [(chest - 0.12, 0.12), (chest + 0.05, 0.055), (chest + reach, 0.04)], (w * 1.6, w, w * 0.8)
    )
    far = grow(foreleg, 0.9, 0.9, (0.07, 0.035))
    haunch = ellipse((rump + 0.03, 0.03 + 0.34 * build.depth), 0.20, 0.10 + 0.16 * build.depth, 0.4)
    shank = limb([(rump + 0.02, 0.06), (rump + 0.30, 0.04)], (w * 1.2, w * 0.8))
    return [Part(far, "far")], [Part(shank, "leg"), Part(haunch, "leg"), Part(foreleg, "leg")]


def _trunk(species: str, build: Build, belly: float) -> list[Part]:
    if species == "sheep":
        middle = (0.0, belly + build.depth / 2)
        wool = cloud(middle, build.length * 0.56, build.depth * 0.60, bumps=15)
        curls = [
            ellipse((x, belly + build.depth * y), 0.085, 0.06, 0.2, 12)
            for x, y in ((-0.30, 0.62), (-0.05, 0.78), (0.2, 0.55), (-0.18, 0.35), (0.08, 0.28))
        ]
        lit = [Part(grow(c, 0.74, 0.62, (0.015, 0.015)), "coat") for c in curls]
        dim = [Part(c, "curl") for c in curls]
        body = [Part(wool, "shade"), Part(grow(wool, 0.97, 0.88, (0.01, 0.035)), "coat")]
        return body + [part for pair in zip(dim, lit, strict=True) for part in pair]
    outline = smooth(np.array(build.trunk) * (build.length, build.depth) + (0.0, belly))
    belly_up = grow(outline, 0.96, 0.80, (0.0, 0.075 * build.depth))
    shine = grow(outline, 0.78, 0.22, (0.0, 0.30 * build.depth))
    extra = []
    if species == "cow":
        extra = [Part(ellipse((-0.17, belly + 0.01), 0.10, 0.075), "udder")]
    return [*extra, Part(outline, "shade"), Part(belly_up, "coat"), Part(shine, "light")]


def _neck(species: str, build: Build, shoulder: np.ndarray, poll: np.ndarray) -> list[Part]:
    root = shoulder - np.array([0.06, 0.06])
    middle = (root + poll) / 2 + np.array([0.03, 0.0])
    wide, thin = build.neck_width
    neck = curl([root, middle, poll], (wide, (wide + thin) / 2, thin))
    if species == "sheep":
        ruff = cloud(root + 0.45 * (poll - root), 0.19, 0.17, bumps=9)
        return [Part(ruff, "shade"), Part(grow(ruff, 0.93, 0.86, (0.01, 0.02)), "neck")]
    collar = []
    if species == "dog":
        along, across = poll - root, np.array([root[1] - poll[1], poll[0] - root[0]])
        across = across / np.linalg.norm(across) * 0.085
        band = root + 0.72 * along
        collar = [Part(limb([band - across, band + across], (0.055, 0.055)), "collar")]
    return [Part(neck, "neck"), *collar]


def _mane(species: str, shoulder: np.ndarray, poll: np.ndarray) -> list[Part]:
    if species != "horse":
        return []
    root = shoulder + np.array([-0.13, 0.10])
    middle = (root + poll) / 2 + np.array([-0.05, 0.07])
    return [Part(curl([root, middle, poll + np.array([0.02, 0.06])], (0.10, 0.15, 0.12)), "mane")]


def _tail(species: str, build: Build, belly: float, posture: str) -> list[Part]:
    x, top = -0.47 * build.length, belly + 0.86 * build.depth
    low = 0.05 if posture == "lying" else 0.0
    if species == "sheep":
        return [Part(ellipse((x - 0.03, top - 0.12), 0.07, 0.11, 0.3, 12), "shade")]
    if species == "goat":
        return [Part(limb([(x + 0.03, top - 0.02), (x - 0.07, top + 0.12)], (0.08, 0.04)), "tail")]
    if species == "dog":
        tail = [(x + 0.04, top - 0.03), (x - 0.12, top + 0.10), (x - 0.13, top + 0.28)]
        return [Part(curl(tail, (0.08, 0.07, 0.03)), "tail")]
    if species == "cow":
        end = (x - 0.06, max(top - 0.48, 0.07))
        rope = curl([(x + 0.03, top), (x - 0.07, top - 0.15), end], (0.05, 0.04, 0.035))
        return [Part(rope, "leg"), Part(ellipse((end[0], end[1] - 0.03), 0.04, 0.075), "mane")]
    end = (x - 0.16, max(top - 0.55, 0.06) + low)
    tail = [(x + 0.05, top + 0.01), (x - 0.11, top - 0.08), end]
    return [Part(curl(tail, (0.09, 0.17, 0.06)), "mane")]


def _head(species: str, build: Build, poll: np.ndarray, lips: np.ndarray) -> list[Part]:
    """The head in its own frame: u along the face from poll (0) to lips (1), v across, up is +."""
    face = lips - poll
    length, depth = np.linalg.norm(face), build.head[1]
    u = face / length
    v = np.array([-u[1], u[0]])

    def place(points: list[tuple[float, float]], per_side: int = 4) -> Points:
        along, across = np.array(points, dtype=float).T
        return smooth(poll + np.outer(along * length, u) + np.outer(across * depth, v), per_side)

    def at(a: float, b: float) -> np.ndarray:
        return poll + a * length * u + b * depth * v

    skull = [(-0.12, 0.0), (-0.02, 0.48), (0.3, 0.52), (0.7, 0.34), (1.0, 0.26), (1.06, -0.05),
             (0.95, -0.33), (0.6, -0.38), (0.2, -0.52), (-0.08, -0.4)]  # fmt: skip
    nose = [(0.74, 0.36), (1.0, 0.30), (1.09, -0.04), (0.97, -0.38), (0.76, -0.34)]
    eye = [Part(ellipse(at(0.34, 0.20), 0.034, 0.034, n=10), "eye"),
           Part(ellipse(at(0.36, 0.26), 0.012, 0.012, n=6), "glint")]  # fmt: skip
    back, front = _ears_and_horns(species, at)
    beard = []
    if species == "goat":
        chin = at(0.72, -0.35)
        beard = [Part(limb([chin, chin + np.array([-0.01, -0.15])], (0.09, 0.02)), "mane")]
    return [*back, *beard, Part(place(skull), "face"), Part(place(nose), "muzzle"), *front, *eye]


def _ears_and_horns(
    species: str, at: Callable[[float, float], Points]
) -> tuple[list[Part], list[Part]]:
    """Parts behind the head and parts in front of it; `at(along, across)` places a point."""

    def ear(tip: tuple[float, float], width: float, role: str = "ear") -> Part:
        root, end = at(0.04, 0.30), at(*tip)
        return Part(curl([root, (root + end) / 2, end], (width * 0.7, width, width * 0.3)), role)

    if species == "sheep":
        tuft = cloud(at(-0.02, 0.42), 0.10, 0.08, bumps=7)
        return [], [ear((-0.38, -0.05), 0.08), Part(tuft, "coat")]
    if species == "goat":
        path = [at(0.10, 0.5), at(-0.02, 1.45), at(-0.45, 2.0)]
        far = [p + np.array([0.035, 0.01]) for p in path]
        horns = [Part(curl(far, (0.055, 0.045, 0.015)), "horn far"),
                 Part(curl(path, (0.06, 0.05, 0.015)), "horn")]  # fmt: skip
        return horns, [ear((-0.45, 0.35), 0.06)]
    if species == "cow":
        horn = curl([at(0.05, 0.4), at(0.02, 0.95), at(0.22, 1.25)], (0.06, 0.05, 0.015))
        return [Part(horn, "horn")], [ear((-0.42, 0.45), 0.09)]
    if species == "dog":
        return [ear((-0.02, 1.25), 0.09, "ear far")], [ear((-0.22, 1.1), 0.10)]
    forelock = curl([at(-0.08, 0.5), at(0.12, 0.62), at(0.32, 0.5)], (0.08, 0.08, 0.02))
    return [ear((-0.20, 1.15), 0.06)], [Part(forelock, "mane")]
