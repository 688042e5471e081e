"""From which score on boxes count, for the model cards: `python tools/choose_thresholds.py glip`.

The shipped detectors are asked about val herds, for things that are there and for things that are
not, as `python -m cliplab detect` asks them. A threshold is chosen for each language and each way
of asking. It goes into the card, with what boxes from there on are worth; `detect` reads it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import torch
import tyro
from PIL import Image

from cliplab import detection, pasture
from cliplab.detection import Detections, Query, Truth
from cliplab.pasture import Dice, grounding, say
from cliplab.runtime import checkpoint_dir, read_card
from cliplab.training import glip_dataset, glip_evaluation, vild_dataset
from cliplab.training.cards import save_card
from cliplab.training.failures import add_failures

T = TypeVar("T")

START = 3_000_000  # first seed of val, far from those of training
SCORES = tuple(step / 20 for step in range(6, 20))  # thresholds that are tried
RIGHT, HALF = 0.8, 0.5  # shares of the boxes that ought to be right, of things to be found
EMPTY = 0.05  # boxes on a picture where nothing is, at most
LISTS: dict[str, grounding.Parts] = {
    "species": ("kind",),
    "colour": ("colour",),
    "species, colour": ("kind", "colour"),
    "species, posture": ("kind", "posture"),
}
NOTHING = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


# ---- the choice ----------------------------------------------------------------------------


class Answer(NamedTuple):
    """To a question about one picture."""

    said: Detections
    truth: Truth
    query: Query


Answers = Mapping[str, Sequence[Answer]]  # to each kind of question


def choose(answers: Answers, empty: Sequence[Answer]) -> dict[str, Any]:
    """The score with the best F1 of those with which `RIGHT`, `HALF`, `EMPTY` hold; else of all.

    Args:
        answers: things that are not there are among what is asked.
        empty: about pictures in which none of it is.

    Returns:
        "score"; with it "precision" and "recall" of "n" things, also of each of the "kinds"; and
        how many "boxes where nothing is", a picture.
    """
    every = [one for some in answers.values() for one in some]

    def worth(score: float) -> tuple[bool, float]:
        found, right, true = counted(every, score)
        bare = counted(empty, score)[0]
        good = right >= max(RIGHT * found, HALF * true) and bare <= EMPTY * len(empty)
        return good, right / max(1, found + true)

    def told(some: Sequence[Answer]) -> dict[str, Any]:
        found, right, true = counted(some, score)
        shares = {"precision": right / max(1, found), "recall": right / max(1, true)}
        return {name: round(share, 4) for name, share in shares.items()} | {"n": true}

    score = max(SCORES, key=worth)
    return {
        "score": score,
        **told(every),
        "kinds": {kind: told(some) for kind, some in answers.items()},
        "boxes where nothing is": round(counted(empty, score)[0] / max(1, len(empty)), 4),
    }


def counted(some: Sequence[Answer], score: float) -> list[int]:
    """Boxes from a score on, those that are right, and how many there are."""
    counts = np.zeros(3, np.int64)
    for said, truth, query in some:
        found = detection.postprocess(said, score=score, nested=query.nested)
        hit, wrong = detection.hits(found, truth, frozenset(range(len(query.classes.names))))
        right = int(hit.sum())
        counts += (right + int(wrong.sum()), right, int((truth.labels >= 0).sum()))
    return counts.tolist()


# ---- the questions -------------------------------------------------------------------------


class Question(NamedTuple):
    """What is asked about a picture, and what would be right."""

    image: np.ndarray  # (H, W, 3)
    asked: Any  # list of labels, or a prompt
    truth: Truth  # of a relation its first thing only


def half_there(there: Sequence[T], absent: Sequence[T], dice: Dice) -> list[T]:
    """Up to two that are there, and as many that are not."""
    return dice.shuffled([*dice.shuffled(there)[:2], *dice.shuffled(absent)[:2]])


def empty_pastures(count: int) -> list[np.ndarray]:
    """Pictures (H, W, 3) without their animals."""
    seeds = range(START + 200_000, START + 200_000 + count)
    scenes = (replace(pasture.herd(seed, split="val"), animals=()) for seed in seeds)
    return [np.asarray(pasture.draw(one, glip_dataset.HEIGHT, supersample=2)) for one in scenes]


def lists(herds: glip_dataset.GLIPDataset, parts: grounding.Parts, x: str) -> Iterator[Question]:
    """Of each picture some descriptions that are true of something, and some that are not."""
    for index, annotated in enumerate(herds.annotations):
        known = grounding.universe(parts, glip_dataset.UNNAMED)
        there = [words for words in known if annotated.meant(words)]
        absent = [w for w in known if not annotated.meant(w) and annotated.is_clear(w)]
        asked = half_there(there, absent, Dice("threshold", *parts, x, index))
        boxes, labels, hidden = glip_evaluation.fitting(annotated, asked)
        if asked:
            truth = Truth(boxes, labels.where(~hidden, -1))
            yield Question(herds.images[index], [say(words, x) for words in asked], truth)


def relations(herds: glip_dataset.GLIPDataset, x: str, family: str) -> Iterator[Question]:
    """Each sentence twice: where it holds, and in the next picture without thing or landmark."""
    for one in glip_evaluation.ask_about(herds, x, family):
        words, prompt = one.said.words, glip_dataset.to_prompt(one.said)
        boxes = torch.tensor([one.annotated.things[i].box for i in one.said.things[0]])
        truth = Truth(boxes, torch.zeros(len(boxes), dtype=torch.long))
        yield Question(herds.images[one.picture], prompt, truth)
        for step in range(1, len(herds)):
            index = (one.picture + step) % len(herds)
            other = herds.annotations[index]
            if all(map(other.is_clear, words)) and not all(map(other.meant, words)):
                yield Question(herds.images[index], prompt, NOTHING)
                break


def other_side(herds: glip_dataset.GLIPDataset, x: str) -> Iterator[Question]:
    """Each sentence about a side, of the next picture in which such things are on the other."""
    for one in glip_evaluation.ask_about(herds, x, "relation"):
        words, prompt = one.said.words, glip_dataset.to_prompt(one.said)
        left = "left" in prompt.caption or "左" in prompt.caption
        for step in range(1, len(herds)):
            index = (one.picture + step) % len(herds)
            other = herds.annotations[index]
            (mark, *more), told = (*other.meant(words[1]), -1), other.meant(words[0])
            sides = [other.things[i].middle < other.things[mark].middle for i in told if i != mark]
            if len(more) == 1 and sides and all(map(other.is_clear, words)) and left not in sides:
                yield Question(herds.images[index], prompt, NOTHING)
                break


# ---- the detectors -------------------------------------------------------------------------


def answer(detector: detection.Detector, question: Question) -> Answer:
    """As `detect` gives it; of a relation what is said of its first phrase."""
    query = detector.read(question.asked)
    (said,) = detector.detect([Image.fromarray(question.image)], query)
    if getattr(query, "twice", False):
        said = said.select(said.labels == 0)
    return Answer(said, question.truth, query)


def of_glip(
    detector: detection.Detector, count: int
) -> Iterator[tuple[str, Answers, list[Answer]]]:
    """Lists and relations in each language: the card's name of it, answers, those to nothing."""
    herds = glip_dataset.draw_herds("val", count, start=START)
    few = glip_dataset.draw_few_kinds("val", 3 * count, start=START + 100_000)
    bare = empty_pastures(count)
    for x in glip_dataset.LANGUAGES:
        listed = {name: list(lists(herds, parts, x)) for name, parts in LISTS.items()}
        sides, near = relations(herds, x, "relation"), relations(few, x, "near")
        for form, kinds in (
            ("list", listed),
            ("relation", {"side": list(sides), "near": list(near)}),
        ):
            every = [one for some in kinds.values() for one in some]
            pairs = zip(bare, every[:: len(every) // count + 1], strict=False)
            empty = [Question(image, one.asked, NOTHING) for image, one in pairs]
            yield (
                f"{x}, {form}",
                {kind: [answer(detector, one) for one in some] for kind, some in kinds.items()},
                [answer(detector, one) for one in empty],
            )


def of_vild(
    detector: detection.Detector, count: int
) -> Iterator[tuple[str, Answers, list[Answer]]]:
    """The same of the head that answers a list, and of the one that answers a single label."""
    herds, bare = vild_dataset.draw_herds("val", count, start=START), empty_pastures(count)
    assert detector.teacher is not None
    x, crops = detector.teacher.languages[0], f"crops of {detector.teacher.name}"
    answers: dict[str, dict[str, list[Answer]]] = defaultdict(lambda: defaultdict(list))
    empty: dict[str, list[Answer]] = defaultdict(list)
    species = [pasture.class_phrase(species=one, language=x) for one in pasture.SPECIES]
    for level, names in (("species", species), ("species, posture", vild_dataset.phrases(x))):
        for i, image in enumerate(herds.images):
            kinds = herds.labels[i] // (len(vild_dataset.CATEGORIES) // len(names))
            seen = set(kinds[herds.visible[i] >= vild_dataset.LEAST_VISIBLE].tolist())
            absent = sorted(set(range(len(names))) - set(kinds.tolist()))
            asked = half_there(sorted(seen), absent, Dice("threshold", level, i))
            for some in (asked, asked[:1]):
                if len(some) < 2 and not hasattr(detector, "model"):
                    continue  # crops compare labels with one another
                rows = [a for a, kind in enumerate(kinds.tolist()) if kind in some]
                labels = [some.index(k) if k in seen else -1 for k in kinds[rows].tolist()]
                truth = Truth(herds.boxes[i][rows], torch.tensor(labels, dtype=torch.long))
                one = answer(detector, Question(image, [names[k] for k in some], truth))
                form = f"{x}, {getattr(one.query, 'head', '') or crops}"
                answers[form][level].append(one)
                if i % 5 == 0:
                    empty[form].append(answer(detector, Question(bare[i], one.query, NOTHING)))
    yield from ((form, kinds, empty[form]) for form, kinds in answers.items())


def main(
    models: Annotated[tuple[str, ...], tyro.conf.Positional] = ("vild", "glip", "glip-no-fusion"),
    pictures: int = 200,
) -> None:
    """Choose the thresholds of shipped models and write them into their cards."""
    torch.set_num_threads(1)  # sums of several threads differ in their last digits
    for name in models:
        folder = checkpoint_dir(name)
        model = f"{name.partition('-')[0]}:{folder}"
        detector = detection.load_detector(model, detection.Settings(device="cpu"))
        asked = of_vild(detector, pictures) if name == "vild" else of_glip(detector, pictures)
        chosen = {form: choose(answers, empty) for form, answers, empty in asked}
        if name == "vild":
            for teacher in ("pasture", "pasture-zh"):  # slowly, so that it is asked less
                settings = detection.Settings(device="cpu", teacher=teacher)
                asked = of_vild(detection.load_detector("crops", settings), pictures * 2 // 5)
                chosen |= {form: choose(answers, empty) for form, answers, empty in asked}
        else:
            herds = glip_dataset.draw_herds("val", pictures, start=START)
            for x in glip_dataset.LANGUAGES:
                row, some = chosen[f"{x}, relation"], list(other_side(herds, x))
                found, _, _ = counted([answer(detector, one) for one in some], row["score"])
                row["boxes where it is on the other side"] = round(found / max(1, len(some)), 4)
        command = f"python tools/choose_thresholds.py {name} --pictures {pictures}"
        about = {"command": command, "split": "val"}
        thresholds = {**about, "pictures": pictures, **chosen}
        save_card(folder, read_card(folder) | {"thresholds": thresholds})
        add_failures(name.partition("-")[0], folder)  # what counts as found has changed
        for form, row in chosen.items():
            print(name, form, {key: value for key, value in row.items() if key != "kinds"})


if __name__ == "__main__":
    tyro.cli(main)
