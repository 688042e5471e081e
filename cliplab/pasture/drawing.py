"""How a scene looks: pictures of any size, and exact labels for every pixel.

The same outlines are filled twice: with colours on a supersampled canvas that is then averaged
down, and with names on a canvas of the same size of which the middle sample of each pixel counts.
So a label never disagrees with what is drawn.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cliplab.pasture import landscape
from cliplab.pasture.anatomy import BUILDS, parts
from cliplab.pasture.landscape import RGB, blend, shade
from cliplab.pasture.scene import SPECIES, Animal, Dice, Prop, Scene
from cliplab.pasture.shapes import Points, ellipse, smooth

SEMANTIC_CLASSES = (
    "grass", "snow", "sky", "hill", "water", "tree", "barn", "fence", "trough", "hay", *SPECIES,
)  # fmt: skip
_CLASS_ID = {name: i for i, name in enumerate(SEMANTIC_CLASSES)}
_SUPERSAMPLE = 3  # odd, so that each pixel has a middle sample


@dataclass(frozen=True)
class Labels:
    """What is where, exactly."""

    semantic: NDArray[np.uint8]  # (H, W) index into SEMANTIC_CLASSES
    instance: NDArray[np.uint8]  # (H, W) 0 = no animal, i + 1 = scene.animals[i]
    boxes_xyxy: NDArray[np.int64]  # (A, 4) px, half-open, of the visible part; zeros if hidden
    visible: NDArray[np.float64]  # (A,) visible pixels over all pixels in the frame, 0 to 1


def draw(scene: Scene, size: int = 64, *, supersample: int = _SUPERSAMPLE) -> Image.Image:
    """Draw a scene `size` pixels high (and `size * aspect` wide) as an RGB picture.

    `supersample` are samples per pixel and direction.
    """
    brush = _ColourBrush(scene, size, supersample)
    _paint(brush, scene)
    image = brush.finish()
    return image.reduce(supersample) if supersample > 1 else image


def labels(scene: Scene, size: int = 64) -> Labels:
    """Semantic and instance labels, boxes and visibility of the picture `draw(scene, size)`."""
    names = _LabelBrush(scene, size, _SUPERSAMPLE)
    _paint(names, scene)
    middle = _middle_samples(names.image)
    instance = (middle >> 8).astype(np.uint8)
    boxes = np.zeros((len(scene.animals), 4), dtype=np.int64)
    visible = np.zeros(len(scene.animals))
    for i in range(len(scene.animals)):
        mine = instance == i + 1
        if mine.any():
            boxes[i] = box_of(mine)
            visible[i] = mine.sum() / max(_alone(scene, i, size), mine.sum())
    return Labels((middle & 255).astype(np.uint8), instance, boxes, visible)


def _alone(scene: Scene, index: int, size: int) -> int:
    """Pixels that one animal would cover were nothing in front of it."""
    brush = _LabelBrush(scene, size, _SUPERSAMPLE)
    _paint_animal(brush, scene.animals[index], index, scene)
    return int(((_middle_samples(brush.image) >> 8) == index + 1).sum())


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box of a mask (H, W) that is not empty, half-open."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _canvas(scene: Scene, size: int, supersample: int) -> tuple[int, int]:
    """Height and width in samples: whole pixels, so that a pixel is the same in both canvases."""
    return size * supersample, round(size * scene.aspect) * supersample


def _middle_samples(image: Image.Image) -> NDArray[np.int32]:
    return np.asarray(image)[_SUPERSAMPLE // 2 :: _SUPERSAMPLE, _SUPERSAMPLE // 2 :: _SUPERSAMPLE]


def _paint(brush: landscape.Brush, scene: Scene) -> None:
    dice = Dice("look", scene.kind, scene.split, scene.seed)
    landscape.paint_sky(brush, scene, dice)
    landscape.paint_ground(brush, scene, dice)
    # Far things first; what an animal feeds on is just behind its lips.
    things: list[tuple[float, int, Animal | Prop]] = [(p.y - 1e-3, -1, p) for p in scene.props]
    things += [(a.y, i, a) for i, a in enumerate(scene.animals)]
    for _, index, thing in sorted(things, key=lambda t: t[0]):
        if isinstance(thing, Animal):
            _paint_animal(brush, thing, index, scene)
        else:
            landscape.paint_prop(brush, thing, scene)


def _paint_animal(brush: landscape.Brush, animal: Animal, index: int, scene: Scene) -> None:
    width = 0.55 if animal.posture == "lying" else 0.48
    shadow = ellipse((animal.x, animal.y - 0.01), animal.size * width, animal.size * 0.055)
    brush.fill(shadow, (24, 30, 38), None, alpha=0.32)
    coat = _palette(animal.species, animal.colour, animal.tone, animal.look % 770)
    tag = f"{animal.species}/{index}"
    patches = _patches(animal) if animal.colour == "spotted" else []
    source = animal.source if animal.source in ("trough", "hay") else "ground"
    body = parts(animal.species, animal.posture, source, animal.look % 3)
    scale = np.array([animal.facing * animal.size * animal.stretch, -animal.size])
    foot = np.array([animal.x, animal.y])
    outlines = [part.points * scale + foot for part in body]
    # A thin dark rim keeps a white sheep visible on snow; only its outer half shows.
    for part, outline in zip(body, outlines, strict=True):
        if part.role not in _RIMLESS:
            brush.edge(outline, coat["rim"], tag, 0.022 * animal.size)
    for part, outline in zip(body, outlines, strict=True):
        if part.role == "neck":
            for patch in patches:
                brush.fill(patch * scale + foot, coat["patch"], tag)
        brush.fill(outline, coat[part.role], tag)


def _patches(animal: Animal) -> list[Points]:
    """Three or four blotches well inside the trunk and one on the neck, placed by the look."""
    build, dice = BUILDS[animal.species], Dice("patches", animal.look)
    belly = 0.03 if animal.posture == "lying" else build.leg
    middle = belly + 0.55 * build.depth
    blotches = []
    for x in (-0.30, -0.04, 0.24):
        centre = (
            (x + dice.uniform(-0.05, 0.05)) * build.length,
            middle + dice.uniform(-0.14, 0.16) * build.depth,
        )
        radius = dice.uniform(0.22, 0.30) * build.depth
        corners = [
            (centre[0] + 1.2 * radius * np.cos(t) * dice.uniform(0.75, 1.15),
             centre[1] + radius * np.sin(t) * dice.uniform(0.75, 1.15))
            for t in np.linspace(0, 2 * np.pi, 7)[:-1]
        ]  # fmt: skip
        blotches.append(smooth(corners, 3))
    return blotches


_RIMLESS = {"coat", "curl", "light", "patch", "eye", "glint", "muzzle", "collar", "udder", "hoof"}
_COATS: dict[str, RGB] = {
    "white": (240, 236, 228),
    "black": (50, 47, 52),
    "brown": (140, 86, 46),
    "spotted": (240, 234, 224),
}


@lru_cache(maxsize=4096)
def _palette(species: str, colour: str, tone: float, look: int) -> dict[str, RGB]:
    """The colour of every part of an animal: role -> RGB, 0 to 255."""
    base = shade(_COATS[colour], tone if colour != "black" else 0.8 + 0.3 * tone)
    if colour == "brown":
        base = blend(base, (172, 104, 52) if look % 2 else (104, 66, 42), (look % 11) / 22)
    patch: RGB = (54, 48, 50) if look % 5 < 3 else (126, 76, 44)
    dark_face = species == "sheep" and colour == "white" and look % 7 < 3
    face = (72, 62, 58) if dark_face else shade(base, 0.96)
    if colour == "spotted" and look % 2 and species != "horse":
        face = patch
    light_coat = colour in ("white", "spotted")
    muzzle = {"cow": (226, 168, 156), "dog": shade(face, 0.72)}.get(species, shade(face, 0.84))
    mane = {"white": (196, 190, 182), "black": (26, 24, 28), "brown": (58, 40, 32)}.get(
        colour, patch
    )
    return {
        "coat": base, "neck": base, "tail": base, "shade": shade(base, 0.78),
        "light": shade(base, 1.1), "curl": shade(base, 0.88),
        "leg": shade(face if species == "sheep" else base, 0.92),
        "far": shade(face if species == "sheep" else base, 0.66),
        "face": face, "muzzle": muzzle, "mane": mane, "patch": patch,
        "ear": shade(face, 0.8), "ear far": shade(face, 0.65),
        "horn": (214, 198, 160), "horn far": (170, 154, 120), "udder": (232, 176, 166),
        "hoof": (58, 50, 46), "eye": (22, 20, 22), "glint": (250, 250, 250),
        "collar": (196, 44, 52), "rim": shade(base, 0.52 if light_coat else 0.6),
    }  # fmt: skip


class _ColourBrush:
    """Fills outlines with colour, under the light of the scene's weather."""

    def __init__(self, scene: Scene, size: int, supersample: int) -> None:
        height, width = _canvas(scene, size, supersample)
        self.scene, self.scale = scene, height
        self.light = landscape.SKIES[scene.weather][2]
        dice = Dice("ground", scene.kind, scene.split, scene.seed)
        rows = landscape.backdrop_rows(scene, height, dice)  # (H, 3)
        sky = round(scene.horizon * height)
        rows[sky:] *= self.light
        field = np.repeat(rows[:, None].astype(np.int16), width, axis=1)  # (H, W, 3)
        grain = _grain(height, width)
        shift = dice.integer(grain.shape[1] - width + 1)
        strength = 13 if scene.ground == "grass" else 5
        field[sky:] += (grain[sky:, shift : shift + width, None] * strength) >> 7
        self.image = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
        self._opaque = ImageDraw.Draw(self.image)
        self._glass = ImageDraw.Draw(self.image, "RGBA")

    def fill(self, points: Points, rgb: RGB, tag: str | None, alpha: float = 1.0) -> None:
        lit = tag != "sky"
        colour = tuple(int(c * (w if lit else 1)) for c, w in zip(rgb, self.light, strict=True))
        corners = (points * self.scale).ravel().tolist()
        if alpha < 1:
            self._glass.polygon(corners, (*colour, int(255 * alpha)))
        else:
            self._opaque.polygon(corners, colour)

    def edge(self, points: Points, rgb: RGB, tag: str, width: float) -> None:
        colour = tuple(int(c * w) for c, w in zip(rgb, self.light, strict=True))
        corners = np.concatenate([points, points[:1]]) * self.scale
        self._opaque.line(corners.ravel().tolist(), colour, max(2, round(width * self.scale)))

    def finish(self) -> Image.Image:
        """Rain or flakes in front of everything."""
        scene, scale = self.scene, self.scale
        dice = Dice("weather", scene.kind, scene.split, scene.seed)
        if scene.weather == "rainy":
            for _ in range(26):
                x, y = dice.uniform(0, 1.05) * scene.aspect * scale, dice.uniform(-0.05, 1) * scale
                streak = (x, y, x - 0.02 * scale, y + 0.075 * scale)
                self._glass.line(streak, (226, 234, 246, 120), width=max(1, round(0.006 * scale)))
        if scene.weather == "snowy":
            for _ in range(30):
                x, y = dice.uniform(0, 1) * scene.aspect * scale, dice.uniform(0, 1) * scale
                r = dice.uniform(0.006, 0.013) * scale
                self._glass.ellipse((x - r, y - r, x + r, y + r), (255, 255, 255, 225))
        return self.image


class _LabelBrush:
    """Fills outlines with what they are: class in the low byte, animal in the next."""

    def __init__(self, scene: Scene, size: int, supersample: int) -> None:
        height, width = _canvas(scene, size, supersample)
        self.scale = height
        ids = np.full((height, width), _CLASS_ID[scene.ground], dtype=np.int32)
        ids[: round(scene.horizon * height)] = _CLASS_ID["sky"]
        self.image = Image.fromarray(ids)
        self._draw = ImageDraw.Draw(self.image)

    def fill(self, points: Points, rgb: RGB, tag: str | None, alpha: float = 1.0) -> None:
        if tag is not None:
            self._draw.polygon((points * self.scale).ravel().tolist(), _value(tag))

    def edge(self, points: Points, rgb: RGB, tag: str, width: float) -> None:
        corners = np.concatenate([points, points[:1]]) * self.scale
        self._draw.line(corners.ravel().tolist(), _value(tag), max(2, round(width * self.scale)))


def _value(tag: str) -> int:
    """What a pixel of an outline holds: "sheep/0" is the first animal, a sheep."""
    name, _, animal = tag.partition("/")
    return _CLASS_ID[name] + (int(animal) + 1 if animal else 0) * 256


@lru_cache(maxsize=8)
def _grain(height: int, width: int) -> NDArray[np.int16]:
    """Smooth noise, -127 to 127, twice as wide as the picture; the same for every scene."""
    generator = np.random.RandomState(7)
    coarse = generator.randint(0, 255, (90, 90 * 2 * width // height), dtype=np.uint8)
    wide = Image.fromarray(coarse).resize((2 * width, height), Image.Resampling.BILINEAR)
    return np.asarray(wide).astype(np.int16) - 127
