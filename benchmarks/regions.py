"""How long does a teacher take that looks at every box, beside a ViLD that looks once?

From a picture in memory to named boxes, all threads that torch takes. Both are given the same
boxes, which are as large as animals are; where it says so, they find them first, with one proposal
network. The crops are what a teacher sees: 1x and 1.5x of each box, in batches, preprocessed at
once. The contenders take turns; figures are medians, of fewer rounds the longer they take.
"""

import statistics
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from _shared import VIT_B_32, Work, verdicts
from PIL import Image
from torch import Tensor

from cliplab.classification import build_classifier, templates
from cliplab.detection import (
    SCALES,
    Detections,
    clip_boxes,
    crop_boxes,
    crop_scores,
    embed_boxes,
    name_boxes,
    propose,
    to_pixels,
)
from cliplab.encoders import Encoder, load_encoder, openai_preprocess
from cliplab.models.clip import CLIP
from cliplab.models.vild import ViLD, ViLDConfig, class_scores, load_vild
from cliplab.pasture import draw, herd
from cliplab.runtime import checkpoint_dir
from cliplab.training.vild_dataset import HEIGHT, members, phrases

BATCH = 64  # crops encoded at a time
COUNTS = (1, 10, 100, 300, 1000)
MEANT = 20  # times faster at 100 boxes
SECONDS, ROUNDS = 2.0, 9  # that a contender may take in all, at most this often


def milliseconds(work: dict[str, Work]) -> dict[str, float]:
    """name -> work: the median time of some rounds; short ones get one more, to warm up."""
    took: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(ROUNDS + 1):
        for name, do in work.items():
            if turn < 2 or sum(took[name]) < SECONDS:
                if turn == 1 and took[name][0] > SECONDS:
                    continue  # so long that its first call is as good as any
                start = time.perf_counter()
                do()
                took[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(t[1:] or t) for name, t in took.items()}


# ---- contenders ------------------------------------------------------------------------------


def random_vit_b_32() -> Encoder:
    """An encoder of that shape; time does not depend on what it has learned."""
    torch.manual_seed(0)
    return Encoder(
        "ViT-B/32", CLIP(VIT_B_32), tokenizer=lambda texts, **_: torch.zeros(len(texts), 77).long(),
        preprocess=openai_preprocess(224), languages=("en",), device=torch.device("cpu"),
    )  # fmt: skip


def random_texts(count: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def some_boxes(count: int, size: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) of 12 to 70 px, inside the picture for the most part."""
    generator = torch.Generator().manual_seed(count)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor(size)
    half = 6 + torch.rand(count, 2, generator=generator) * 29
    boxes, left = clip_boxes(torch.cat([centre - half, centre + half], dim=1), size)
    return boxes[left]


@torch.inference_mode()
def one_pass(
    model: ViLD, image: Image.Image, text_emb: Tensor, boxes_xyxy: Tensor | None = None
) -> Detections:
    """A picture to named boxes; without `boxes_xyxy` it finds some."""
    pixels = to_pixels(image, model.config.height)
    (regions,) = model(pixels, None if boxes_xyxy is None else [boxes_xyxy])
    scores = class_scores(model, regions, text_emb, members("base"))
    return name_boxes(regions.boxes_xyxy, scores, phrases())


@dataclass(frozen=True)
class Judge:
    """A teacher, the classes in its words, and the pixels that it takes in."""

    teacher: Encoder
    text_emb: Tensor  # (K, D)
    size: int

    def __call__(
        self, image: Image.Image, boxes: Tensor, objectness: Tensor | None = None
    ) -> Detections:
        """Boxes of a picture named by what is in them."""
        emb = embed_boxes(self.teacher, [image], [boxes], size=self.size, batch_size=BATCH)
        return self.name(boxes, emb, objectness)

    def name(self, boxes: Tensor, emb: Tensor, objectness: Tensor | None = None) -> Detections:
        """The boxes by what the teacher saw in them."""
        scores = crop_scores(self.teacher, emb, self.text_emb, objectness)
        return name_boxes(boxes, scores, phrases())


def shipped_or_random(dim: int) -> tuple[ViLD, str]:
    """The shipped ViLD if its teacher has `dim` dimensions, else one drawn at random."""
    path = checkpoint_dir("vild") / "model.safetensors"
    if path.is_file() and (model := load_vild(path)).config.embed_dim == dim:
        return model, "the shipped ViLD"
    torch.manual_seed(0)
    return ViLD(ViLDConfig(embed_dim=dim)).eval(), "a ViLD of random weights"


# ---- measurements ----------------------------------------------------------------------------


def by_count(
    image: Image.Image, detectors: dict[str, Judge], models: dict[str, ViLD]
) -> dict[int, dict[str, float]]:
    """count -> name of a contender -> milliseconds."""
    table = {}
    for count in COUNTS:
        boxes = some_boxes(count, image.size)
        work: dict[str, Work] = {}
        for name, judge in detectors.items():
            work[f"{name} crops"] = lambda j=judge, b=boxes: j(image, b)
            model, text_emb = models[name], judge.text_emb
            work[f"{name} pass"] = lambda m=model, t=text_emb, b=boxes: one_pass(m, image, t, b)
        table[count] = milliseconds(work)
    return table


def finding_too(image: Image.Image, judge: Judge, model: ViLD) -> dict[str, float]:
    """Both find their boxes first: the crops with the pass's own proposal network."""

    def crops() -> object:
        return judge(image, *propose(model, image))

    return milliseconds({"crops": crops, "pass": lambda: one_pass(model, image, judge.text_emb)})


@torch.inference_mode()
def parts_of_a_pass(model: ViLD, image: Image.Image, text_emb: Tensor) -> dict[str, float]:
    """Where the time of one pass goes, with the boxes that it finds."""
    pixels = to_pixels(image, model.config.height)
    maps, size = model.maps(pixels)
    boxes = model.propose(maps, size)[0]
    pooled = model.pooled(maps, boxes, size)
    (regions,) = model(pixels)
    heads = [head for head in (model.head, model.image_head) if head is not None]
    scores = class_scores(model, regions, text_emb, members("base"))
    return milliseconds(
        {
            "picture to pixels": lambda: to_pixels(image, model.config.height),
            "backbone and pyramid": lambda: model.maps(pixels),
            "proposals": lambda: model.propose(maps, size),
            "pooling": lambda: model.pooled(maps, boxes, size),
            "heads": lambda: [head(pooled) for head in heads],
            "names": lambda: class_scores(model, regions, text_emb, members("base")),
            "suppression": lambda: name_boxes(regions.boxes_xyxy, scores, phrases()),
        }
    )


def parts_of_crops(judge: Judge, image: Image.Image, boxes: Tensor) -> dict[str, float]:
    """Where the time of the crops goes."""
    teacher, size = judge.teacher, judge.size
    crops = [c for s in SCALES for c in crop_boxes(image, boxes, scale=s, size=size)]
    emb = embed_boxes(teacher, [image], [boxes], size=size)
    return milliseconds(
        {
            "cutting out": lambda: [
                list(crop_boxes(image, boxes, scale=scale, size=size)) for scale in SCALES
            ],
            "preprocessing and the teacher": lambda: teacher.encode_image(crops, batch_size=BATCH),
            "names and suppression": lambda: judge.name(boxes, emb),
        }
    )


# ---- the report ------------------------------------------------------------------------------


def print_counts(table: dict[int, dict[str, float]], names: list[str]) -> None:
    columns = [f"{name}, crops | one pass | times faster" for name in names]
    print(f"| boxes | {' | '.join(columns)} |\n|---:|{'---:|' * 3 * len(names)}")
    for count, row in table.items():
        cells = []
        for name in names:
            slow, quick = row[f"{name} crops"], row[f"{name} pass"]
            cells += [f"{slow:,.1f} ms", f"{quick:,.1f} ms", f"{slow / quick:,.1f}"]
        print(f"| {count:,} | {' | '.join(cells)} |")


def print_parts(parts: dict[str, dict[str, float]]) -> None:
    print("\n| at 100 boxes | part | ms | share |\n|---|---|---:|---:|")
    for what, each in parts.items():
        for part, took in each.items():
            print(f"| {what} | {part} | {took:.2f} | {took / sum(each.values()):.0%} |")


def beside_goals(
    table: dict[int, dict[str, float]], found: dict[str, float]
) -> list[tuple[str, float, float]]:
    """What, what was meant, at least, and measured."""
    ratio = {
        (name, count): row[f"{name} crops"] / row[f"{name} pass"]
        for count, row in table.items()
        for name in ("pasture", "ViT-B/32")
    }
    grown = ratio["pasture", COUNTS[-1]] / ratio["pasture", 100]
    return [
        ("crops / one pass, the same 100 boxes", MEANT, ratio["pasture", 100]),
        ("crops / one pass, both find 100 boxes first", MEANT, found["crops"] / found["pass"]),
        ("crops of a ViT-B/32 / one pass, the same 100 boxes", MEANT, ratio["ViT-B/32", 100]),
        (f"ratio at {COUNTS[-1]:,} boxes / ratio at 100", 1, grown),
    ]


def main() -> None:
    image = draw(herd(3, split="test"), HEIGHT)
    pasture, large = load_encoder("pasture", device="cpu"), random_vit_b_32()
    words = tuple(phrases())
    texts = build_classifier(pasture, words, templates("pasture", "en"))
    detectors = {
        "pasture": Judge(pasture, texts, 64),
        "ViT-B/32": Judge(large, random_texts(len(words), large.dim), 224),
    }
    model, what = shipped_or_random(pasture.dim)
    models = {"pasture": model, "ViT-B/32": shipped_or_random(large.dim)[0]}
    table = by_count(image, detectors, models)
    found = finding_too(image, detectors["pasture"], model)
    width, height = image.size
    print(f"A picture of {width} x {height} px, {what}, {torch.get_num_threads()} threads:\n")
    print_counts(table, list(detectors))
    print(f"\nBoth find their boxes first: crops {found['crops']:.1f} ms, one pass "
          f"{found['pass']:.1f} ms.")  # fmt: skip
    boxes = some_boxes(100, image.size)
    print_parts(
        {
            "one pass": parts_of_a_pass(model, image, texts),
            "crops": parts_of_crops(detectors["pasture"], image, boxes),
        }
    )
    verdicts(beside_goals(table, found))


if __name__ == "__main__":
    main()
