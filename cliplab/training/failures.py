"""Where a model fails: test pictures that a rule chooses, and nobody's hand, drawn for its card.

Models are asked as the commands ask them. What is drawn is furthest from right.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cliplab import classification, detection, pasture, segmentation, viz
from cliplab.encoders import load_encoder
from cliplab.runtime import atomic_write, read_card
from cliplab.training import glip_dataset, glip_evaluation, vild_dataset, vild_evaluation
from cliplab.training.cards import FAILURES, save_card
from cliplab.training.clip_evaluation import SETS, held_out_pictures
from cliplab.training.groupvit_evaluation import draw_scenes, plain
from cliplab.viz import figures

COUNT = 200  # test pictures; of a CLIP in each of its sets
LEAST = 0.5  # mean IoU of a picture that is no failure
_WIDTH = 9.2  # inches
Said = tuple[str, dict[str, int], Figure]  # the rule, how many fail in each set, the worst


def add_failures(stem: str, folder: Path, count: int = COUNT) -> str:
    """Draw the worst answers of the checkpoint in `folder`, say so in its card -> the sentence.

    Args:
        stem: "clip", "vild", "glip" or "groupvit".
        folder: weights and their card, which gets one section more.
        count: pictures that are asked about, at most 200.
    """
    card, count = read_card(folder), min(count, COUNT)
    with plt.rc_context():
        viz.use_style()
        if stem == "clip":
            rule, failed, figure = _of_clip(folder, card["language"], count)
        elif stem == "groupvit":
            rule, failed, figure = _of_groupvit(folder, count)
        else:
            rule, failed, figure = _of_detector(stem, folder, count)
        with atomic_write(folder / FAILURES) as file:
            light = {"quality": 80, "method": 6}  # and as wide as a page
            figure.savefig(file, format="webp", dpi=110, bbox_inches="tight", pil_kwargs=light)
        plt.close(figure)
    said = {"picture": FAILURES, "rule": rule, "of": count, "failed": failed}
    save_card(folder, card | {"where it fails": said})
    return rule


def _of_clip(folder: Path, language: str, count: int) -> Said:
    spec = f"modelscope:{folder}" if language == "zh" else f"openai:{folder / 'model.pt'}"
    encoder = load_encoder(spec, device="cpu")
    names = [pasture.class_phrase(**kind._asdict(), language=language) for kind in pasture.COMBOS]
    wording = classification.templates("pasture", language)
    classifier = classification.build_classifier(encoder, names, wording)
    failed, images, titles = {}, [], []
    for name in SETS:
        pictures = held_out_pictures(name, count)
        scores = classification.classify(encoder, pictures.pil(), classifier, class_names=names)
        true = [names[pasture.COMBOS.index(one.combo)] for one in pictures.examples]
        said, sure = scores.predicted_names, scores.probability.amax(dim=1).tolist()
        wrong = [i for i in range(count) if said[i] != true[i]]
        failed[name] = len(wrong)
        for i in sorted(wrong, key=lambda i: -sure[i])[:2]:
            images.append(pictures.images[i])
            titles.append(f"{name}, {sure[i]:.0%} sure\nsaid: {said[i]}\nis: {true[i]}")
    rule = (
        f"Of the first {count} pictures of each test set the model takes so many for another "
        f"of the {len(names)} kinds: {', '.join(f'{k} {n}' for k, n in failed.items())}. "
        "Drawn are the two wrong answers of each set that it is surest of."
    )
    return rule, failed, figures.show_images(images, titles, columns=4, width=_WIDTH)[0, 0].figure


def _of_detector(stem: str, folder: Path, count: int) -> Said:
    herds: Any
    known: Iterable[tuple[Tensor, Tensor, Tensor]]  # boxes, labels, whether they hardly show
    if stem == "vild":
        herds = vild_dataset.draw_herds("test", count, start=vild_evaluation.STARTS["known"])
        names, hardly = vild_dataset.phrases(), vild_dataset.LEAST_VISIBLE
        known = zip(herds.boxes, herds.labels, (v < hardly for v in herds.visible), strict=True)
    else:
        herds = glip_dataset.draw_herds("test", count, start=glip_evaluation.STARTS["seen"])
        asked = glip_evaluation.LEVELS["species, posture"]
        names = [pasture.say(words, "en") for words in asked]
        known = (glip_evaluation.fitting(one, asked) for one in herds.annotations)
    detector = detection.load_detector(f"{stem}:{folder}", detection.Settings(device="cpu"))
    query, judged = detector.read(names), []
    for image, (boxes, labels, hidden) in zip(herds.images, known, strict=True):
        (said,) = detector.detect([Image.fromarray(image)], query)
        found = detection.postprocess(said, score=query.score, nested=query.nested)
        true = detection.Truth(boxes, labels.where(~hidden, -1))  # -1: may be found or not
        hit, wrong = detection.hits(found, true, frozenset(range(len(names))))
        judged.append((true.select(~hit & (true.labels >= 0)), found.select(wrong)))
    faults = [len(missed) + len(false) for missed, false in judged]
    failed = [i for i in range(count) if faults[i]]
    axes = plt.subplots(2, 3, figsize=(_WIDTH, 5.4))[1]
    for column, i in zip(axes.T, sorted(failed, key=lambda i: -faults[i]), strict=False):
        missed, false = judged[i]
        called = [names[k] for k in missed.labels.tolist()]
        for ax, boxes, tags, colour, what in (
            (column[0], missed.boxes_xyxy, called, figures.BLUE, "missed"),
            (column[1], false.boxes_xyxy, false.names, figures.VERMILION, "false"),
        ):
            viz.plot_boxes(ax, herds.images[i], boxes, tags, colours=dict.fromkeys(names, colour))
            ax.set_title(f"herd {i}: {len(boxes)} {what}")
    rule = (
        f"Asked for {len(names)} pairs of species and posture, the model misses an animal or adds "
        f"a false box in {len(failed)} of the first {count} test herds. Drawn are the three with "
        "most of both: above what it missed, below what it said that is not there."
    )
    return rule, {"herds": len(failed)}, axes[0, 0].figure


def _of_groupvit(folder: Path, count: int) -> Said:
    segmenter = segmentation.load_segmenter(str(folder), device="cpu")
    how = segmentation.Settings(**segmentation.tuned_settings(folder, "en"))
    scenes, words, judged = draw_scenes("test", count), plain().words(), []
    for image, true in zip(scenes.pil(), scenes.truth, strict=True):
        (one,) = segmenter.segment([image], words, how)
        said = one.labels_at()
        counts = segmentation.confusion(said, true, len(words.names))
        judged.append((float(segmentation.iou_per_class(counts).nanmean()), said))
    failed = sum(miou < LEAST for miou, _ in judged)
    colours = viz.class_colours(words.names)
    axes = viz.label_panels(3, ("picture", "truth", "prediction"), colours, width=_WIDTH)
    for row, i in zip(axes, sorted(range(count), key=lambda i: judged[i][0]), strict=False):
        row[0].imshow(scenes.images[i])
        row[0].set_ylabel(f"picture {i}: mean IoU {judged[i][0]:.2f}")
        for ax, labels in zip(row[1:], (scenes.truth[i], judged[i][1]), strict=True):
            viz.plot_labels(ax, scenes.images[i], labels, colours)
    rule = (
        f"The mean IoU of a picture's classes is below {LEAST} in {failed} of the first {count} "
        "test pictures. Drawn are the three where it is lowest."
    )
    return rule, {"pictures": failed}, axes[0, 0].figure
