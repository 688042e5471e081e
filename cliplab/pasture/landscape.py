"""Sky, hills, ground and props: everything in a picture but the animals.

Each function asks a brush to fill outlines; a brush is `fill(points, rgb, tag)` with points in
frame units (x right, y down) and a tag that says what the outline is (see `drawing.py`).
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from cliplab.pasture.scene import Dice, Prop, Scene
from cliplab.pasture.shapes import Points, cloud, ellipse, limb, rectangle, smooth

RGB = tuple[float, float, float]


class Brush(Protocol):
    """Something that outlines can be given to."""

    def fill(self, points: Points, rgb: RGB, tag: str | None, alpha: float = 1.0) -> None:
        """Fill one outline; a tag of None leaves the labels as they are."""

    def edge(self, points: Points, rgb: RGB, tag: str, width: float) -> None:
        """Draw a line `width` frame units wide around an outline."""


# Top of the sky, foot of the sky, and the light that falls on everything.
SKIES: dict[str, tuple[RGB, RGB, RGB]] = {
    "sunny": ((74, 148, 222), (196, 227, 246), (1.0, 1.0, 0.98)),
    "cloudy": ((150, 164, 178), (206, 212, 218), (0.93, 0.94, 0.96)),
    "rainy": ((92, 104, 120), (150, 160, 170), (0.86, 0.88, 0.91)),
    "dusk": ((82, 66, 120), (250, 158, 92), (0.97, 0.88, 0.82)),
    "snowy": ((182, 192, 204), (222, 228, 234), (0.96, 0.97, 1.0)),
}
# Ground far away and near.
GROUNDS_RGB: dict[str, tuple[RGB, RGB]] = {
    "grass": ((158, 190, 98), (74, 134, 52)),
    "snow": ((222, 230, 240), (246, 249, 252)),
}


def blend(a: RGB, b: RGB, share: float) -> RGB:
    """From a (share 0) to b (share 1)."""
    red, green, blue = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return red, green, blue


def shade(rgb: RGB, factor: float) -> RGB:
    """Darker (factor < 1) or brighter (> 1), at most 255."""
    red, green, blue = (min(255.0, c * factor) for c in rgb)
    return red, green, blue


def backdrop_rows(scene: Scene, rows: int, dice: Dice) -> np.ndarray:
    """Colour of each row of sky and ground: -> (rows, 3) float, before the light falls on it."""
    top, foot, _ = SKIES[scene.weather]
    far, near = GROUNDS_RGB[scene.ground]
    if scene.ground == "grass":
        dry, lush = (196, 176, 88), (70, 150, 70)
        target, share = (dry if dice.chance(0.5) else lush), dice.uniform(0, 0.38)
        far, near = blend(far, target, share), blend(near, target, share)
    y = (np.arange(rows) + 0.5)[:, None] / rows
    depth = np.clip((y - scene.horizon) / max(1 - scene.horizon, 1e-6), 0, 1) ** 0.7
    ground = np.array(far) + (np.array(near) - np.array(far)) * depth
    height = np.clip(y / max(scene.horizon, 1e-6), 0, 1)
    sky = np.array(top) + (np.array(foot) - np.array(top)) * height**1.2
    return np.where(y < scene.horizon, sky, ground)


def paint_sky(brush: Brush, scene: Scene, dice: Dice) -> None:
    """Sun, clouds and hills; nothing when the camera sees only ground."""
    if scene.backdrop == "none":
        return
    x = dice.uniform(0.1, 0.9) * scene.aspect
    if scene.weather in ("sunny", "dusk"):
        low = scene.horizon * (0.85 if scene.weather == "dusk" else 0.3)
        glow = (255, 236, 170) if scene.weather == "sunny" else (255, 206, 120)
        brush.fill(ellipse((x, low), 0.085, 0.085, n=28), glow, "sky", alpha=0.35)
        brush.fill(ellipse((x, low), 0.055, 0.055, n=28), glow, "sky")
    clouds = {"sunny": 3, "cloudy": 5, "rainy": 5, "dusk": 2, "snowy": 3}[scene.weather]
    for _ in range(1 + dice.integer(clouds)):
        _paint_cloud(brush, scene, dice)
    if scene.backdrop.startswith("hills"):
        _paint_hills(brush, scene, dice)


def _paint_cloud(brush: Brush, scene: Scene, dice: Dice) -> None:
    cx, cy = dice.uniform(0, 1) * scene.aspect, dice.uniform(0.03, 0.75) * scene.horizon
    w = dice.uniform(0.09, 0.2)
    base = {"sunny": (255, 255, 255), "dusk": (246, 178, 150)}.get(scene.weather, (232, 236, 240))
    rgb = shade(base, 0.72 if scene.weather == "rainy" else 1.0)
    brush.fill(cloud((cx, cy + 0.008), w, w * 0.30, 9, 0.16), shade(rgb, 0.93), "sky", alpha=0.8)
    brush.fill(cloud((cx, cy), w * 0.95, w * 0.25, 9, 0.16), rgb, "sky", alpha=0.9)


def _paint_hills(brush: Brush, scene: Scene, dice: Dice) -> None:
    full = scene.backdrop == "hills only"
    rgb: RGB = (112, 142, 118) if scene.ground == "grass" else (150, 164, 186)
    haze = SKIES[scene.weather][1]
    x = np.linspace(-0.02, scene.aspect + 0.02, 40)
    for layer in range(2):
        # The far ridge of a "hills only" picture leaves no sky above it.
        rise = dice.uniform(0.25, 0.55) * (1 - 0.4 * layer) * (1.5 if full else 1)
        phase, waves = dice.uniform(0, 6.28), dice.uniform(3, 6)
        ridge = rise * (0.78 + 0.22 * np.sin(x * waves + phase) + 0.08 * np.sin(x * 13 + phase))
        ridge = np.full_like(x, 1.05) if full and layer == 0 else np.minimum(ridge, 0.95)
        y = scene.horizon * (1 - ridge)
        bottom = np.array([(x[-1], scene.horizon + 0.004), (x[0], scene.horizon + 0.004)])
        colour = blend(rgb, haze, (0.25 if full else 0.45) - 0.2 * layer)
        brush.fill(np.concatenate([np.stack([x, y], 1), bottom]), colour, "hill")


def paint_ground(brush: Brush, scene: Scene, dice: Dice) -> None:
    """Tufts and flowers on grass; drifts and the odd dry blade on snow."""
    for _ in range(12):
        depth = dice.uniform(0, 1)
        y = scene.horizon + (1 - scene.horizon) * depth
        x, size = dice.uniform(0, 1) * scene.aspect, 0.012 + 0.03 * depth
        if scene.ground == "snow":
            rgb = (206, 217, 233) if dice.chance(0.6) else (255, 255, 255)
            brush.fill(ellipse((x, y), size * 4, size * 0.5, n=14), rgb, "snow", alpha=0.7)
        elif dice.chance(0.25):
            rgb = dice.choice(((250, 244, 210), (244, 208, 70), (232, 150, 160)))
            brush.fill(ellipse((x, y), size * 0.28, size * 0.22, n=8), rgb, "grass")
        else:
            paint_tuft(brush, x, y, size, (62, 122, 44) if dice.chance(0.6) else (132, 176, 78))


def paint_tuft(brush: Brush, x: float, y: float, size: float, rgb: RGB, tag: str = "grass") -> None:
    """Five blades of grass, `size` high."""
    blades = [(-0.9, 0), (-0.8, -0.6), (-0.45, -0.1), (-0.35, -0.95), (-0.05, -0.15), (0.1, -1.0),
              (0.25, -0.15), (0.5, -0.85), (0.5, -0.1), (0.9, -0.55), (0.8, 0)]  # fmt: skip
    brush.fill(np.array(blades) * size + (x, y), rgb, tag)


# In a prop's own frame (foot at 0, y up, height 1), each with its colour and its tag.
Outlines = Iterator[tuple[Points, RGB, str]]
_ALONE = {"trough": 2.6, "pond": 3.0, "hay": 1.35}  # how much larger where no animal feeds


def paint_prop(brush: Brush, prop: Prop, scene: Scene) -> None:
    """One prop, by its kind; a star after the kind means an animal feeds there."""
    if prop.kind == "grass*":
        _paint_fodder(brush, prop, scene)
        return
    outlines = {"tree": _tree, "pine": _pine, "barn": _barn, "fence": _fence,
                "trough": _trough, "pond": _pond, "hay": _hay}[prop.kind.rstrip("*")]  # fmt: skip
    unit = prop.size * _ALONE.get(prop.kind, 1.0)
    for points, rgb, tag in outlines(prop, scene):
        brush.fill(points * (unit, -unit) + (prop.x, prop.y), rgb, tag)


def _tree(prop: Prop, scene: Scene) -> Outlines:
    leaf: RGB = blend((52, 112, 46), (96, 138, 52), prop.variant)
    yield limb([(0, 0), (0.01, 0.3), (0, 0.55)], (0.12, 0.09, 0.07)), (98, 70, 46), "tree"
    crown = [((0, 0.70), 0.30, 0.24), ((-0.2, 0.60), 0.2, 0.17), ((0.21, 0.62), 0.19, 0.17)]
    for centre, rx, ry in crown:
        yield cloud(centre, rx, ry, 9, 0.12), shade(leaf, 0.8), "tree"
    for (cx, cy), rx, ry in crown:
        yield cloud((cx - 0.02, cy + 0.04), rx * 0.8, ry * 0.74, 8, 0.12), leaf, "tree"
    yield cloud((-0.08, 0.80), 0.13, 0.09, 7, 0.12), shade(leaf, 1.22), "tree"
    if scene.ground == "snow":
        yield cloud((0, 0.88), 0.2, 0.05, 7), (244, 247, 250), "tree"


def _pine(prop: Prop, scene: Scene) -> Outlines:
    leaf: RGB = blend((30, 84, 58), (50, 100, 52), prop.variant)
    yield rectangle(-0.04, 0, 0.04, 0.2), (88, 62, 42), "tree"
    for i, (low, high, half) in enumerate(((0.14, 0.56, 0.3), (0.36, 0.78, 0.24), (0.6, 1, 0.17))):
        tier = np.array([(-half, low), (-half * 0.5, low + 0.03), (0, low - 0.02),
                         (half * 0.5, low + 0.03), (half, low), (0, high)])  # fmt: skip
        yield tier, shade(leaf, 0.85 + 0.1 * i), "tree"
        side = np.array([(0, low - 0.02), (half * 0.5, low + 0.03), (half, low), (0, high)])
        yield side, shade(leaf, 0.7 + 0.1 * i), "tree"
        if scene.ground == "snow":
            cap = np.array([(-half * 0.36, high - 0.27), (0, high - 0.19),
                            (half * 0.3, high - 0.26), (0, high)])  # fmt: skip
            yield cap, (244, 247, 250), "tree"


def _barn(prop: Prop, scene: Scene) -> Outlines:
    wall: RGB = blend((168, 50, 42), (142, 66, 44), prop.variant)
    trim: RGB = (240, 232, 220)
    gable = np.array([(-0.46, 0), (0.46, 0), (0.46, 0.52), (0.26, 0.84), (0, 0.97), (-0.26, 0.84),
                      (-0.46, 0.52)])  # fmt: skip
    yield gable, wall, "barn"
    yield rectangle(0.2, 0, 0.46, 0.55), shade(wall, 0.86), "barn"
    for x in (-0.36, -0.27, 0.27, 0.36):
        yield rectangle(x, 0, x + 0.012, 0.56), shade(wall, 0.78), "barn"
    roof_rgb: RGB = (92, 84, 84) if scene.ground == "grass" else (236, 240, 246)
    roof = np.array([(-0.54, 0.46), (-0.47, 0.42), (-0.25, 0.78), (0, 0.9), (0.25, 0.78),
                     (0.47, 0.42), (0.54, 0.46), (0.31, 0.89), (0, 1.03),
                     (-0.31, 0.89)])  # fmt: skip
    yield roof, roof_rgb, "barn"
    yield rectangle(-0.19, 0, 0.19, 0.42), trim, "barn"
    yield rectangle(-0.16, 0, 0.16, 0.39), shade(wall, 0.62), "barn"
    for a, b in (((-0.16, 0.0), (0.16, 0.39)), ((0.16, 0.0), (-0.16, 0.39))):
        yield limb([a, b], (0.03, 0.03)), trim, "barn"
    yield rectangle(-0.08, 0.58, 0.08, 0.74), trim, "barn"
    yield rectangle(-0.055, 0.605, 0.055, 0.715), (60, 52, 54), "barn"


def _fence(prop: Prop, scene: Scene) -> Outlines:
    wood: RGB = (240, 236, 228) if prop.variant < 0.4 else (146, 108, 70)
    left, step, count = -4.0, 0.9, 9
    for rail in (0.38, 0.74):
        end = left + step * count
        yield rectangle(left - 0.2, rail, end, rail + 0.12), shade(wood, 0.9), "fence"
    for i in range(count):
        x = left + step * i
        post = np.array([(x, 0), (x + 0.16, 0), (x + 0.16, 0.95), (x + 0.08, 1.03), (x, 0.95)])
        yield post, wood, "fence"


def _trough(prop: Prop, scene: Scene) -> Outlines:
    wood: RGB = blend((120, 92, 66), (124, 126, 132), round(prop.variant))
    box = np.array([(-0.30, 0.13), (-0.24, -0.05), (0.24, -0.05), (0.30, 0.13)])
    yield box, wood, "trough"
    yield rectangle(-0.26, 0.02, 0.26, 0.035), shade(wood, 0.75), "trough"
    yield ellipse((0, 0.135), 0.31, 0.055), shade(wood, 1.18), "trough"
    yield ellipse((0, 0.135), 0.265, 0.04), (70, 140, 196), "water"
    yield ellipse((-0.06, 0.142), 0.10, 0.012), (176, 214, 238), "water"


def _pond(prop: Prop, scene: Scene) -> Outlines:
    shore: RGB = (150, 134, 92) if scene.ground == "grass" else (188, 206, 224)
    outline = smooth([(-0.46, 0), (-0.25, 0.09), (0.1, 0.10), (0.42, 0.06), (0.50, -0.02),
                      (0.25, -0.10), (-0.15, -0.10)])  # fmt: skip
    water: RGB = blend((66, 136, 192), (92, 156, 190), prop.variant)
    yield outline, shore, scene.ground
    yield outline * 0.9, water, "water"
    yield ellipse((-0.1, 0.03), 0.2, 0.018), (182, 218, 240), "water"
    if prop.kind == "pond*":
        yield ellipse((0.0, 0.02), 0.13, 0.035), (200, 228, 244), "water"
        yield ellipse((0.0, 0.02), 0.10, 0.024), water, "water"


def _hay(prop: Prop, scene: Scene) -> Outlines:
    straw: RGB = blend((222, 184, 88), (204, 160, 66), prop.variant)
    if prop.kind == "hay*":
        yield cloud((0.02, 0.04), 0.24, 0.10, 11, 0.16), shade(straw, 0.8), "hay"
        yield cloud((0.02, 0.06), 0.19, 0.07, 9, 0.16), straw, "hay"
        return
    bale = (0, 0.48)
    yield ellipse(bale, 0.52, 0.48, n=28), shade(straw, 0.82), "hay"
    for i, ring in enumerate((0.44, 0.32, 0.2, 0.09)):
        rgb = straw if i % 2 == 0 else shade(straw, 0.86)
        yield ellipse(bale, ring, ring * 0.94, n=24), rgb, "hay"


def _paint_fodder(brush: Brush, prop: Prop, scene: Scene) -> None:
    """The tall green tuft that a grazing animal bites into."""
    for dx, h, rgb in ((-0.10, 0.15, (48, 122, 40)), (0.09, 0.17, (58, 134, 46)),
                       (0.0, 0.20, (88, 160, 58))):  # fmt: skip
        paint_tuft(brush, prop.x + dx * prop.size, prop.y, h * prop.size, rgb, scene.ground)
