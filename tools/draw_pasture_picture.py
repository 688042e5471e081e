"""Draw the picture of the READMEs: python tools/draw_pasture_picture.py

A herd as drawn, the same herd as its labels and boxes, and a row of portraits.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from cliplab import pasture
from cliplab.viz import figures

TARGET = Path(__file__).resolve().parent.parent / "notebooks" / "figures" / "pasture.png"
HERD, PORTRAITS = 40, (3, 14, 21, 33, 58, 60)
COLOURS = {
    "grass": "#A8CF8E", "snow": "#F2F5FA", "sky": "#CFE6F7", "hill": "#9DB7A4", "water": "#4F9BD0",
    "tree": "#3C7A3C", "barn": "#B0413A", "fence": "#B99A72", "trough": "#7A6A58",
    "hay": "#E0B84F", "sheep": "#CC79A7", "goat": "#E69F00", "cow": "#D55E00", "dog": "#56B4E9",
    "horse": "#0072B2",
}  # fmt: skip


def main() -> None:
    """Draw the picture into notebooks/figures."""
    figures.use_style()
    fig = plt.figure(figsize=(9.6, 5.4))
    top, bottom = fig.add_gridspec(2, 1, height_ratios=[2.3, 1])
    left, right = top.subgridspec(1, 2)
    scene = pasture.herd(HERD, split="test")
    picture, truth = pasture.draw(scene, 360), pasture.labels(scene, 360)
    rgb = np.array([[int(COLOURS[c][i : i + 2], 16) for i in (1, 3, 5)]
                    for c in pasture.SEMANTIC_CLASSES], np.uint8)  # fmt: skip
    for cell, image in ((left, picture), (right, rgb[truth.semantic])):
        ax = fig.add_subplot(cell)
        ax.imshow(image)
        ax.axis("off")
    for animal, (x0, y0, x1, y1) in zip(scene.animals, truth.boxes_xyxy, strict=True):
        ax.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="#1B2733", lw=1.2))
        name = f"{animal.colour} {animal.species}, {animal.posture}"
        ax.text(min(x0, 380), y0 - 4, name, size=7, color="#1B2733", va="bottom")
    row = bottom.subgridspec(1, len(PORTRAITS))
    for cell, seed in zip(row, PORTRAITS, strict=True):
        ax = fig.add_subplot(cell)
        portrait = pasture.portrait(seed, split="test")
        ax.imshow(pasture.draw(portrait, 180))
        ax.axis("off")
        kind = portrait.animals[0].combo._asdict()
        names = [pasture.class_phrase(**kind, language=language) for language in ("en", "zh")]
        ax.set_title("\n".join(names), size=7, weight="normal", loc="center", pad=3)
    fig.savefig(TARGET, pil_kwargs={"optimize": True})
    print(TARGET.name, f"{TARGET.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
