"""Draw the architectures of the lessons as SVG: python tools/draw_diagrams.py [FOLDER]

Numbers in black are read from the shipped models while it draws. It prints the line of Markdown
that shows each picture. Numbers of the papers, in purple:

clip, zero_shot: ViT-B/32, arXiv:2103.00020, sections 2.5 and 3.1.4, appendix F.
vild: the official projects/vild/configs/vild_ensemble_resnet.yaml; arXiv:2104.13921, section 3.
glip: `GLIP_T`, from the released configuration; arXiv:2112.03857, section 3.
groupvit: the defaults of `GroupViTConfig`; arXiv:2202.11094, section 3.
"""

import re
import sys
from collections.abc import Callable
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cliplab import detection, pasture
from cliplab.classification import templates
from cliplab.models import glip
from cliplab.models.clip import load_openai
from cliplab.models.groupvit import GroupViTConfig, load_groupvit
from cliplab.models.vild import load_vild
from cliplab.runtime import checkpoint_dir, read_card
from cliplab.training.vild_dataset import phrases

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / "notebooks" / "figures"
WIDTH, SIZE, SMALL, LINE = 1200, 18, 17, 23  # units; SMALL is 14 px where the picture is 1,000 wide
INK, MUTED, PAPER = "#1B2733", "#5C6B7A", "#8A2F7A"
LINES = f'fill="none" stroke="{INK}" stroke-width="2"'
KINDS = {  # of boxes: fill, edge, name in the legend
    "data": ("#FFFFFF", MUTED, ""),
    "image": ("#DCEAF6", "#0072B2", "picture"),
    "text": ("#FDEBD2", "#B86E00", "text"),
    "both": ("#DFF2EA", "#009E73", "both"),
    "loss": ("#E6EAEE", INK, "loss"),
    "frozen": ("#FFFFFF", MUTED, "frozen"),
}


# ---- the vocabulary: box, arrow with labels, frame, text --------------------------------------


class Box(NamedTuple):
    """A rectangle; a point is one without width and height."""

    x: float
    y: float
    w: float = 0
    h: float = 0

    def joint(self, other: "Box") -> tuple[float, float]:
        """Where a straight line, level or upright, from here to another box leaves this one."""
        x = min((b.w, b.x + b.w / 2) for b in (self, other))[1]
        if all(b.x <= x <= b.x + b.w for b in (self, other)):
            return x, self.y + self.h * (other.y > self.y)
        y = min((b.h, b.y + b.h / 2) for b in (self, other))[1]
        if not all(b.y <= y <= b.y + b.h for b in (self, other)):
            raise ValueError(f"no level or upright line between {self} and {other}")
        return self.x + self.w * (other.x > self.x), y


class Card:
    """A white card that a description is drawn on; see `diagrams/*.txt`.

    A description has three paragraphs: height, title and whose numbers are purple; the words for
    those who cannot see it, with {names} of facts; and a row for everything drawn:

        NAME X Y WIDTH HEIGHT KIND! TEXT / SECOND LINE < FROM POINTS | LABEL | PAPER'S LABEL
        > FROM POINTS TO | LABEL | PAPER'S LABEL
        frame X Y WIDTH HEIGHT TEXT
        table X Y WIDTH HEIGHT CELLS
        - X Y ANCHOR TEXT

    ! is a dashed edge. FROM and TO are names or points; so is what lies between. Labels stand on
    the longest piece: ours above, the paper's below; right of an upright one, left with @.
    Text: *italic*, **bold**, _[index], ^[power]; what follows ~ is the paper's, in purple.
    """

    def __init__(self, description: str, facts: dict[str, Any]) -> None:
        head, words, rows = description.split("\n\n", 2)
        self.height, title, paper = (part.strip() for part in head.split("|"))
        self.alt = " ".join(words.split()).format_map(facts)
        self.parts, self.boxes, self.used = list[str](), dict[str, Box](), set[str]()
        self.text(30, 48, f"**{title}**", "start", size=24)
        for row in rows.format_map(facts).splitlines():
            self.row(row)
        self.legend(float(self.height) - 24, paper)

    def row(self, row: str) -> None:
        """Draw a row of the description."""
        row, *labels = (part.strip() for part in row.split("|"))
        box, _, start = row.partition(" < ")
        name, *words = [word for word in box.split(" ") if word] or [""]
        if name == ">":
            self.arrow(words, labels)
        elif name == "-":
            self.text(float(words[0]), float(words[1]), " ".join(words[3:]), words[2])
        elif name == "frame":
            x, y, w, h = map(float, words[:4])
            self.rect(Box(x, y, w, h), "none", MUTED, width=1)
            self.text(x + 14, y + 26, " ".join(words[4:]), "start")
        elif name == "table":
            x, y, w, h, n = map(int, words)
            for k in range(n * n):
                cell = Box(x + k % n * w, y + k // n * h, w, h)
                self.box("", cell, *("both", "pair") if k % (n + 1) == 0 else ("data", ""))
        elif name:
            self.box(name, Box(*map(float, words[:4])), words[4], " ".join(words[5:]))
            if start:
                self.arrow([*start.split(), name], labels)

    def box(self, name: str, box: Box, kind: str, text: str) -> None:
        """A box with lines of text in its middle."""
        self.boxes[name], lines = box, text.split(" / ") if text else []
        self.used |= {kind.rstrip("!")} | ({"frozen"} if kind.endswith("!") else set())
        fill, edge, _ = KINDS[kind.rstrip("!")]
        self.rect(box, fill, edge, dashed=kind.endswith("!"))
        for i, line in enumerate(lines):
            y = box.y + box.h / 2 + LINE * (i - (len(lines) - 1) / 2) + 6
            self.text(box.x + box.w / 2, y, line, "middle")

    def rect(self, b: Box, fill: str, edge: str, *, dashed: bool = False, width: int = 2) -> None:
        """A rectangle with round corners."""
        dash = ' stroke-dasharray="7 5"' if dashed else ""
        self.parts.append(
            f'<rect x="{b.x:g}" y="{b.y:g}" width="{b.w:g}" height="{b.h:g}" rx="6" fill="{fill}" '
            f'stroke="{edge}" stroke-width="{width}"{dash}/>'
        )

    def arrow(self, names: list[str], labels: list[str]) -> None:
        """A line through boxes and points, with labels on its longest piece."""
        stops = [self.boxes.get(n) or Box(*map(float, n.split(","))) for n in names]
        points = [stops[0].joint(stops[1]), *((b.x, b.y) for b in stops[1:-1])]
        points.append(stops[-1].joint(stops[-2]))
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path d="{path}" {LINES} marker-end="url(#head)"/>')
        pieces = pairwise(points)
        (x0, y0), (x1, y1) = max(pieces, key=lambda p: abs(p[0][0] - p[1][0] + p[0][1] - p[1][1]))
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        ours, theirs = ([*labels, "", ""])[:2]
        left, lines = ours.startswith("@"), [ours.removeprefix("@"), theirs and f"~{theirs}"]
        lines = [line for line in lines if line]
        for i, line in enumerate(lines):
            if y0 == y1:
                y = y0 + 22 if line.startswith("~") else y0 - 9
                self.text(x - 4, y, line, "middle", size=SMALL)
            else:
                low = y + 4 + 21 * (i - (len(lines) - 1) / 2)
                self.text(x - 9 if left else x + 9, low, line, "end" if left else "start", SMALL)

    def text(self, x: float, y: float, text: str, anchor: str, size: int = SIZE) -> None:
        """A line of marked up text whose start, middle or end is at (x, y)."""
        body, level = "", 0
        for words, style, low in _runs(text):
            style += f' dy="{low - level}"' * (low != level) + f' font-size="{SMALL}"' * (low != 0)
            body, level = body + f"<tspan{style}>{escape(words)}</tspan>", low
        body = re.sub(r"<tspan>(.*?)</tspan>", r"\1", body)
        at = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"'
        self.parts.append(f"<text {at}>{body}</text>")

    def legend(self, y: float, paper: str) -> None:
        """What the colours mean, of those that were used."""
        x = 30
        for kind, (fill, edge, name) in KINDS.items():
            if name and kind in self.used:
                self.rect(Box(x, y - 15, 24, 18), fill, edge, dashed=kind == "frozen")
                self.text(x + 32, y, name, "start")
                x += 115
        self.text(WIDTH - 30, y, f"black: shipped model · ~purple: {paper}", "end")

    def svg(self) -> str:
        """The whole file."""
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}" '
            f'viewBox="0 0 {WIDTH} {self.height}" role="img" fill="{INK}" '
            'font-family="Verdana, DejaVu Sans, Arial, sans-serif">',
            f"<title>{escape(self.alt)}</title>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" '
            f'markerHeight="6" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="{INK}"/></marker>',
            "</defs>",
            f'<rect x="1" y="1" width="{WIDTH - 2}" height="{float(self.height) - 2:g}" rx="14" '
            'fill="#FFFFFF" stroke="#D5DCE3" stroke-width="2"/>',
            *self.parts, "</svg>\n",
        ])  # fmt: skip


_MARKS = re.compile(r"(~)|\*\*(.+?)\*\*|\*(.+?)\*|_\[(.+?)\]|\^\[(.+?)\]")


def _runs(text: str) -> list[tuple[str, str, int]]:
    """Marked up text -> pieces: words, attributes, and how far they are lowered."""
    runs, end, colour = list[tuple[str, str, int]](), 0, ""
    for match in _MARKS.finditer(text):
        paper, bold, italic, low, high = match.groups()
        runs.append((text[end : match.start()], colour, 0))
        colour = f' fill="{PAPER}"' if paper else colour
        style = ' font-weight="bold"' if bold else ' font-style="italic"' if italic else ""
        low_by = 6 if low else -8 if high else 0
        runs.append((bold or italic or low or high or "", style + colour, low_by))
        end = match.end()
    return [run for run in [*runs, (text[end:], colour, 0)] if run[0]]


# ---- facts: what the descriptions say in {braces} -----------------------------------------------


@torch.no_grad()
def seen(model: nn.Module, call: Callable[[], Any]) -> dict[str, Any]:
    """Name of every part of a model -> shape of what it gives while `call` runs."""
    found: dict[str, Any] = {}

    def shape(x: Any) -> Any:
        if isinstance(x, Tensor):
            return tuple(x.shape)
        parts = x.values() if isinstance(x, dict) else x if isinstance(x, tuple | list) else ()
        return [shape(part) for part in parts]

    hooks = [
        part.register_forward_hook(lambda _, __, out, name=name: found.update({name: shape(out)}))
        for name, part in model.named_modules()
    ]
    call()
    for hook in hooks:
        hook.remove()
    return found


def clip_facts() -> dict[str, Any]:
    """Of the shipped CLIP and of notebook 02's three classes."""
    folder = checkpoint_dir("clip-openai")
    model = load_openai(folder / "model.pt")
    batch = read_card(folder)["recipe"]["batch"]
    names = [
        pasture.class_phrase(species="sheep", posture=p) for p in ("lying", "eating", "standing")
    ]
    side, length = model.config.image_resolution, model.config.context_length
    pixels, ids = torch.zeros(1, 3, side, side), torch.ones(1, length, dtype=torch.long)
    got = seen(model, lambda: (model.encode_image(pixels), model.encode_text(ids)))
    sentences = templates("pasture", "en")
    return {
        "batch": batch, "side": side, "L": got["transformer"][1], "C": got["transformer"][2],
        "map": got["visual.layer4"], "D": got["visual"][1], "scale": model.logit_scale.exp().item(),
        "layers": model.config.transformer_layers, "names": names, "K": len(names),
        "T": len(sentences), "KT": len(names) * len(sentences), "sentence": sentences[0],
    }  # fmt: skip


def vild_facts() -> dict[str, Any]:
    """Of the shipped ViLD; pictures are of the shape 4:3."""
    folder = checkpoint_dir("vild")
    model = load_vild(folder / "model.safetensors")
    card = read_card(folder)
    config, views, step = model.config, *(card["recipe"][k] for k in ("views", "view_batch"))
    wide = round(config.height * 4 / 3)
    got = seen(model, lambda: model(torch.zeros(1, 3, config.height, wide)))
    _, channels, cells, _ = got["roi_align"]
    return {
        "H": config.height, "W": wide, "C": channels, "S": cells, "D": got["image_head.embed"][1],
        "levels": len(got["backbone"]), "K": len(phrases()), "R": config.proposals,
        "R2": 2 * config.proposals, "some": config.train_regions, "views": views,
        "views2": 2 * views, "step": step, "weight": card["recipe"]["distill_weight"],
        "side": clip_facts()["side"],
    }  # fmt: skip


def glip_facts() -> dict[str, Any]:
    """Of the shipped GLIP with notebook 04's prompt, and of GLIP-T."""
    model, theirs = glip.load_glip("pasture"), glip.GLIP_T
    prompt = detection.read_prompt("black sheep drinking. black cow lying down. barn")
    (chunk,) = glip.chunks_of(prompt, model.tokenizer, model.config.max_tokens)
    ids = chunk.token_ids[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    got = seen(model, lambda: model(torch.zeros(1, 3, 128, 192), ids, mask))
    (_, cells, length), words = got["rpn.head"][0], got["language_backbone.body.model"]
    return {
        "A": cells, "L": length, "D": words[2], "C": got["backbone"][0][1],
        "h": model.config.fusion_heads, "levels": len(got["backbone"]), "K": len(prompt.phrases),
        "blocks": model.config.blocks, "layers": model.config.text_layers, "theirs": theirs,
        "theirA": sum(rows * columns for rows, columns in theirs.cells(800, 1344)),
    }  # fmt: skip


def groupvit_facts() -> dict[str, Any]:
    """Of the shipped GroupViT, and of the official one."""
    model, theirs = load_groupvit(checkpoint_dir("groupvit")), GroupViTConfig()
    card = read_card(checkpoint_dir("groupvit"))
    side = model.config.image_resolution
    got = seen(model, lambda: model.encode_image(torch.zeros(1, 3, side, side)))
    _, patches, width = got["img_encoder.patch_embed"][0]
    return {
        "side": side, "P": patches, "C": width, "G": got["img_encoder"][0][1],
        "D": got["img_projector"][1], "layers": model.config.depths[-1], "theirs": theirs,
        "theirP": (theirs.image_resolution // theirs.patch_size) ** 2,
        "weight": card["recipe"]["caption_weight"], "text_layers": model.config.text_layers,
    }  # fmt: skip


FACTS = {
    "clip": clip_facts, "zero_shot": clip_facts, "vild": vild_facts, "glip": glip_facts,
    "groupvit": groupvit_facts,
}  # fmt: skip


def card_of(name: str) -> Card:
    """The picture of this name, with the numbers of today's models."""
    description = (HERE / "diagrams" / f"{name}.txt").read_text(encoding="utf-8")
    return Card(description, FACTS[name]())


def main(folder: Path = FOLDER) -> None:
    """Draw all pictures, and print how Markdown shows them."""
    for name in FACTS:
        card = card_of(name)
        (folder / f"{name}.svg").write_text(card.svg(), encoding="utf-8", newline="\n")
        print(f"![{card.alt}](figures/{name}.svg)\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
