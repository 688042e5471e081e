"""ViLD and crops as detectors: what they say, whose words they take, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch
from detect_world import make_vild
from PIL import Image
from tiny_checkpoints import noise_images
from torchvision.ops import box_iou

from cliplab.classification import build_classifier, templates
from cliplab.detection import (
    CropsDetector,
    Cut,
    Settings,
    ViLDDetector,
    embed_boxes,
    load_detector,
    name_boxes,
    propose,
    read_labels,
    to_pixels,
)
from cliplab.encoders import load_encoder
from cliplab.models.vild import class_scores, load_vild

LABELS = ["standing sheep", "lying sheep", "goat"]
BOXES = torch.tensor([[2.0, 3, 30, 40], [20, 10, 60, 50], [0, 0, 70, 60]])


@pytest.fixture
def image(world: Path) -> Image.Image:
    return noise_images(1, seed=3)[0].resize((80, 64))


def vild(where: Path | str = "vild", **settings: object) -> ViLDDetector:
    name = "vild" if where == "vild" else f"vild:{where}"
    found = load_detector(name, Settings(device="cpu", **settings))
    assert isinstance(found, ViLDDetector)
    return found


def crops(**settings: object) -> CropsDetector:
    found = load_detector("crops", Settings(device="cpu", **settings))
    assert isinstance(found, CropsDetector)
    return found


# ---- pictures of any size ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [((80, 64), (32, 40)), ((1, 1), (32, 32)), ((3000, 2), (1, 256)), ((2, 3000), (32, 1)),
     ((33, 99), (32, 11))],
)  # fmt: skip
def test_pictures_get_the_models_height(size: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels = to_pixels(Image.new("RGB", size, "red"), 32)
    assert pixels.shape == (1, 3, *expected)
    assert pixels[0, :, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (200, 150)])
def test_boxes_come_back_in_pixels_of_the_picture(world: Path, size: tuple[int, int]) -> None:
    detector = vild()
    (found,) = detector.detect([noise_images(1)[0].resize(size)], LABELS)
    limit = torch.tensor([*size, *size])
    assert bool((found.boxes_xyxy >= 0).all())
    assert bool((found.boxes_xyxy <= limit * 1.0001).all())
    if size == (200, 150):
        assert len(found) > 5
        assert float(found.boxes_xyxy.max()) > 100  # not pixels of the 32 px that the model saw
    given = torch.tensor([[0.0, 0, *size]])
    (named,) = detector.detect([Image.new("RGB", size)], LABELS, [given])
    assert torch.equal(named.boxes_xyxy, given)


# ---- ViLD --------------------------------------------------------------------------------------


def test_given_boxes_are_named_as_they_are(world: Path, image: Image.Image) -> None:
    model, query = load_vild(world / "vild" / "model.safetensors"), vild().read(LABELS)
    (regions,) = model(to_pixels(image, 32), [BOXES * 0.5])
    best = class_scores(model, regions, query.text_emb, query.base).max(1)
    order = best.values.argsort(descending=True)
    (found,) = vild().detect([image], query, [BOXES])
    assert torch.equal(found.boxes_xyxy, BOXES[order])
    torch.testing.assert_close(found.scores, best.values[order])
    assert torch.equal(found.labels, best.indices[order])


def test_boxes_outside_or_without_area_are_dropped(world: Path, image: Image.Image) -> None:
    odd = torch.tensor([[90.0, 3, 99, 40], [5, 5, 5, 20], [-9, -9, 30, 30]])
    for detector in (vild(), crops()):
        answers = detector.detect([image] * 3, LABELS, [odd, odd[:2], odd[:0]])
        assert [one.boxes_xyxy.tolist() for one in answers] == [[[0, 0, 30, 30]], [], []]


def test_the_words_are_the_teachers(world: Path) -> None:
    teacher = load_encoder("pasture", device="cpu")
    own = build_classifier(teacher, LABELS, templates("pasture", "en"))
    torch.testing.assert_close(vild().read(LABELS).text_emb, own)
    bare = build_classifier(teacher, LABELS, ["{}"])
    torch.testing.assert_close(vild(template=("{}",)).read(LABELS).text_emb, bare)
    torch.testing.assert_close(vild(template=("{}",)).read("goat").text_emb[:1], bare[2:])


def test_the_card_says_what_counts_and_what_was_never_learned(world: Path) -> None:
    detector = vild()
    learned = {"words never learned": ["lying sheep"], "thresholds": {"en, text": {"score": 0.35}}}
    detector.card = {**detector.card, **learned}
    query = detector.read(["a lying sheep"])
    assert "never learned 'lying sheep': boxes of that name are guesses" in query.remarks[0]
    assert query.score == 0.35
    assert detector.read(LABELS[::2]).score == 0.5  # another head, of which the card says nothing
    assert detector.read(["standing sheep", "goat"]).remarks == []


def test_base_and_novel_are_as_the_card_says(world: Path) -> None:
    query = vild().read(read_labels(["站着的羊=Standing Sheep", "lying sheep", "goat"]))
    assert query.base.tolist() == [True, False, True]
    assert query.groups == {"base": (0, 2), "novel": (1,)}
    assert query.notes[0].startswith("2 of the 3 labels had boxes in the detector's training")


def test_one_label_is_judged_against_the_background(world: Path, image: Image.Image) -> None:
    query = vild().read(["goat"])
    assert query.head == "text"
    assert "one label: the text head decides" in query.notes[-1]
    assert float(vild().detect([image], query, [BOXES])[0].scores.max()) < 1


@pytest.mark.parametrize(("variant", "head"), [("image", "image"), ("vild", "text")])
def test_a_single_head_answers_as_it_was_trained(
    world: Path, tmp_path: Path, variant: str, head: str
) -> None:
    card = json.loads((world / "vild" / "model_card.json").read_text(encoding="utf-8"))
    card["recipe"] = {"variant": variant}
    found = vild(make_vild(tmp_path / variant, card, separate_heads=False))
    assert (found.read(LABELS).head, found.name) == (head, "ViLD")


# ---- the teacher -------------------------------------------------------------------------------


def test_the_teacher_is_the_one_it_learned_from(world: Path, tmp_path: Path) -> None:
    """The checkpoint's own word counts more than the card."""
    card = json.loads((world / "vild" / "model_card.json").read_text(encoding="utf-8"))
    other = {"name": "pasture", "fingerprint": "0"}
    with pytest.raises(ValueError, match=r"another one \(0\).* the model crops"):
        vild(make_vild(tmp_path / "other", card, other))
    teacher = load_encoder("pasture", device="cpu")
    weights = {k: v for k, v in teacher.provenance.items() if k.startswith("sha256")}
    same = make_vild(tmp_path / "same", None, other | weights)  # libraries of another version
    assert vild(same).teacher.name == "pasture"
    query = vild(make_vild(tmp_path / "bare", None)).read(LABELS)  # says nothing
    assert query.groups == {"novel": (0, 1, 2)}


def test_chinese_labels_end_in_a_remark_with_the_remedy(world: Path) -> None:
    unread, remedy = vild().read(["躺着的羊", "站立的羊"]).remarks
    assert "pasture cannot read the prompt" in unread
    assert '躺着的羊="sheep lying down"' in remedy
    assert vild().read(read_labels(["躺着的羊=lying sheep", "羊=goat"])).remarks == []
    chinese = crops(teacher="pasture-zh", template=("{}",))
    assert chinese.read(["躺着的羊", "站立的羊"]).remarks == ()


# ---- crops -------------------------------------------------------------------------------------


def test_crops_of_given_boxes_get_clips_probability(world: Path, image: Image.Image) -> None:
    (found,) = crops(template=("{}",)).detect([image], LABELS, [BOXES])
    teacher = load_encoder("pasture", device="cpu")
    emb = embed_boxes(teacher, [image], [BOXES], size=64)
    best = (teacher.logit_scale * emb @ build_classifier(teacher, LABELS).T).softmax(1).max(1)
    for box, score, label in zip(BOXES.tolist(), *best, strict=True):
        row = found.boxes_xyxy.tolist().index(box)
        assert float(found.scores[row]) == pytest.approx(float(score), abs=1e-5)
        assert int(found.labels[row]) == int(label)


def test_crops_find_boxes_by_the_proposals_of_a_vild(world: Path, image: Image.Image) -> None:
    detector = crops()
    (found,) = detector.detect([image], LABELS)
    model = load_vild(world / "vild" / "model.safetensors")
    boxes, objectness = propose(model, image)
    small = model.propose(*model.maps(to_pixels(image, 32)))[0][0]
    torch.testing.assert_close(boxes, small * 2)  # pixels of the picture, 64 high
    assert 0 < len(found) <= 100
    known = {tuple(box): float(o) for box, o in zip(boxes.tolist(), objectness, strict=True)}
    for box, score in zip(found.boxes_xyxy.tolist(), found.scores.tolist(), strict=True):
        assert score <= known[tuple(box)] ** 0.5 + 1e-6
    assert detector.describe(LABELS)["proposals"]["file"].endswith("vild/model.safetensors")


def test_what_is_found_twice_is_said_once(world: Path, image: Image.Image) -> None:
    for detector in (vild(), crops()):
        (found,) = detector.detect([image], LABELS)
        overlap = box_iou(found.boxes_xyxy, found.boxes_xyxy).fill_diagonal_(0)
        doubles = overlap * (found.labels[:, None] == found.labels)
        assert 0 < float(doubles.max()) <= Cut().overlap


# ---- what is refused ---------------------------------------------------------------------------


def test_settings_of_another_model_are_refused_here_too(world: Path) -> None:
    """The rest of what cannot be meant is in test_bad_inputs."""
    with pytest.raises(ValueError, match=r"teacher: means nothing to .*, or use the model crops"):
        vild(teacher="pasture-zh")
    with pytest.raises(ValueError, match="score: got nan; expected 0 to 1"):
        vild(score=float("nan"))


def test_a_missing_checkpoint_names_the_remedy(
    world: Path, tmp_path: Path, image: Image.Image
) -> None:
    detector = load_detector(f"crops:{tmp_path}", Settings(device="cpu"))
    assert len(detector.detect([image], LABELS, [BOXES])[0]) == 3  # nobody has to propose anything
    with pytest.raises(FileNotFoundError, match="make it with `python -m cliplab train vild`"):
        detector.detect([image], LABELS)


def test_a_damaged_checkpoint_is_refused(world: Path, tmp_path: Path) -> None:
    path = make_vild(tmp_path / "v", {}) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="the file is damaged or another one"):
        vild(path.parent)


# ---- scores become boxes -----------------------------------------------------------------------


def test_suppression_is_within_a_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10]])
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.6], [0.3, 0.0]])
    found = name_boxes(boxes, scores, ["a", "b"])
    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.3])
    assert found.names == ["a", "b", "a"]
    assert found.boxes_xyxy[:, 0].tolist() == [0, 1, 30]
    assert len(name_boxes(boxes, scores, ["a", "b"], top=2)) == 2
    assert len(name_boxes(boxes[:0], scores[:0], ["a", "b"])) == 0
    every = name_boxes(boxes, scores, ["a", "b"], iou=None)
    assert every.boxes_xyxy.tolist() == boxes.tolist()
    assert every.names == ["a", "a", "a"]
    assert len(name_boxes(boxes[:0], scores[:0], ["a", "b"], iou=None)) == 0


def test_5000_regions_are_named_within_bounds() -> None:
    corner = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)) * 500
    scores = torch.rand(5000, 20, generator=torch.Generator().manual_seed(1))
    found = name_boxes(torch.cat([corner, corner + 20], dim=1), scores, [*map(str, range(20))])
    assert len(found) == 100
    assert found.scores[0] == scores.max()
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
