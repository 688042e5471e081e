"""Where the shipped models fail: what their cards say and show, recounted on another path."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cliplab import detection, pasture, segmentation
from cliplab.classification import templates
from cliplab.data import Sample
from cliplab.encoders import load_encoder
from cliplab.runtime import checkpoint_dir, read_card, verify_checkpoint
from cliplab.training import (
    clip_evaluation,
    failures,
    glip_dataset,
    glip_evaluation,
    groupvit_evaluation,
    vild_dataset,
    vild_evaluation,
)

SPECS = {"clip-openai": "pasture", "clip-chinese": "pasture-zh"}
FEW = 20  # pictures that are asked about once more


def of_clip(name: str, _: Path) -> dict[str, int]:
    """By the evaluation that made the card's rates."""
    encoder, language, wrong = load_encoder(SPECS[name]), "zh" if "chinese" in name else "en", {}
    for some in clip_evaluation.SETS:
        pictures = clip_evaluation.held_out_pictures(some, FEW)
        emb = encoder.encode_image(pictures.pil())
        how = {"language": language, "wording": templates("pasture", language)}
        rate = clip_evaluation.classify(encoder, emb, pictures, **how)["joint"]["value"]
        wrong[some] = round(FEW * (1 - rate))
    return wrong


def of_detector(name: str, folder: Path) -> dict[str, int]:
    """By files and the command's own way: `find`, `judge`."""
    pictures = []
    for i, (image, rows) in enumerate(vild_rows() if name == "vild" else glip_rows()):
        Image.fromarray(image).save(path := folder / f"{i}.png")
        boxes = tuple(Sample(path, label, tuple(map(float, box))) for box, label in rows)
        pictures.append(Sample(path, regions=boxes, judged=True))
    names = vild_dataset.phrases() if name == "vild" else [pasture.say(w, "en") for w in ASKED]
    detector = detection.load_detector(f"{name.partition('-')[0]}:{checkpoint_dir(name)}")
    found = detection.find(detector, pictures, names)
    judged = detection.judge(found, detector.read(names))
    assert judged is not None
    return {"herds": sum(bool(len(judged.missed[i]) or judged.wrong[i].any()) for i in range(FEW))}


ASKED = glip_evaluation.LEVELS["species, posture"]


def vild_rows():
    herds = vild_dataset.draw_herds("test", FEW, start=vild_evaluation.STARTS["known"])
    for image, boxes, labels, visible in zip(
        herds.images, herds.boxes, herds.labels, herds.visible, strict=True
    ):
        told = zip(boxes, labels, visible >= vild_dataset.LEAST_VISIBLE, strict=True)
        yield image, [(box, vild_dataset.phrases()[k] if sure else None) for box, k, sure in told]


def glip_rows():
    herds = glip_dataset.draw_herds("test", FEW, start=glip_evaluation.STARTS["seen"])
    for image, (things, hidden) in zip(herds.images, herds.annotations, strict=True):
        sure = [(t.box, pasture.say(w, "en")) for t in things for w in ASKED if t.fits(w)]
        yield image, sure + [(t.box, None) for t in hidden if any(map(t.fits, ASKED))]


def of_groupvit(name: str, _: Path) -> dict[str, int]:
    """By the evaluation, one picture at a time."""
    card = read_card(checkpoint_dir(name))
    how = groupvit_evaluation.InferenceSettings(**card["metrics"]["en"]["balanced"]["reading"])
    segmenter, wrong = segmentation.load_segmenter(), 0
    scenes = groupvit_evaluation.draw_scenes("test", FEW)
    for i in range(FEW):
        one = replace(scenes, images=scenes.images[i : i + 1], truth=scenes.truth[i : i + 1])
        judged = groupvit_evaluation.judge(segmentation.Features(segmenter, one.pil()), one, how)
        wrong += judged.miou < failures.LEAST
    return {"pictures": wrong}


RECOUNT = {
    "clip-openai": of_clip, "clip-chinese": of_clip, "vild": of_detector, "glip": of_detector,
    "glip-no-fusion": of_detector, "groupvit": of_groupvit,
}  # fmt: skip


@pytest.mark.parametrize("name", RECOUNT)
def test_a_card_shows_where_the_model_fails(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint_dir(name), tmp_path / name))
    card = read_card(folder)
    shown, text = card["where it fails"], (folder / "model_card.md").read_text("utf-8")
    assert f"## Where it fails\n\n{shown['rule']}\n\n![" in text
    assert f"]({shown['picture']})" in text
    picture = folder / shown["picture"]
    assert picture.stat().st_size <= 120_000
    with Image.open(picture) as image:
        assert 900 <= image.width <= 1200
    assert all(str(n) in shown["rule"] for n in shown["failed"].values())

    rule = failures.add_failures(name.partition("-")[0], folder, FEW)
    again = read_card(folder)
    assert again.pop("where it fails") == {
        "picture": picture.name, "rule": rule, "of": FEW, "failed": RECOUNT[name](name, tmp_path)
    }  # fmt: skip
    assert again == {key: value for key, value in card.items() if key != "where it fails"}
    assert verify_checkpoint(folder)
    assert picture.read_bytes() != (checkpoint_dir(name) / picture.name).read_bytes()


def test_what_is_drawn_is_furthest_from_right(monkeypatch, tmp_path: Path) -> None:
    folder, drawn = Path(shutil.copytree(checkpoint_dir("vild"), tmp_path / "vild")), []
    plain = failures.viz.plot_boxes
    monkeypatch.setattr(
        failures.viz, "plot_boxes",
        lambda ax, *given, **how: drawn.append(len(given[1])) or plain(ax, *given, **how),
    )  # fmt: skip
    failures.add_failures("vild", folder, 12)
    both = [missed + false for missed, false in zip(drawn[::2], drawn[1::2], strict=True)]
    assert len(both) == 3
    assert both == sorted(both, reverse=True)
    assert both[0] > 1
