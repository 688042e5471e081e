"""The detectors of `detect`: what they say, whose words they take, and what they refuse."""

import json
import re
from pathlib import Path

import pytest
import torch
from cliplab.cli.detect.words import read_words
from cliplab.detection.crops_detector import CropsDetector
from cliplab.detection.detectors import MODELS, Detector, Options, load_detector, parse_model
from cliplab.detection.regions import named, regions_of, to_pixels
from cliplab.detection.vild_detector import ViLDDetector
from detect_world import BASE, make_vild, world
from PIL import Image
from tiny_checkpoints import noise_images

from cliplab.classification.labels import Classes
from cliplab.classification.zero_shot import build_classifier, templates
from cliplab.detection.finding import find
from cliplab.encoders import load_encoder
from cliplab.models.vild import HEADS, ViLD, class_scores, load_vild

__all__ = ["world"]
LABELS = ["standing sheep", "lying sheep", "goat"]
BOXES = torch.tensor([[2.0, 3, 30, 40], [20, 10, 60, 50], [0, 0, 70, 60]])


@pytest.fixture
def image(world: Path) -> Image.Image:
    return noise_images(1, seed=3)[0].resize((80, 64))


def vild(labels: list[str] | Classes | None = None, **options: object) -> ViLDDetector:
    found = load_detector("vild", labels or LABELS, Options(device="cpu", **options))
    assert isinstance(found, ViLDDetector)
    return found


def crops(labels: list[str] | None = None, **options: object) -> CropsDetector:
    found = load_detector("crops", labels or LABELS, Options(device="cpu", **options))
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


@pytest.mark.parametrize("size", [(1, 1), (300, 2), (2, 300), (200, 150)])
def test_boxes_come_back_in_pixels_of_the_picture(world: Path, size: tuple[int, int]) -> None:
    detector = vild()
    found = detector.find(noise_images(1)[0].resize(size))
    limit = torch.tensor([*size, *size])
    assert bool((found.boxes_xyxy >= 0).all())
    assert bool((found.boxes_xyxy <= limit * 1.0001).all())
    if size == (200, 150):
        assert len(found) > 5
        assert float(found.boxes_xyxy.max()) > 100  # not pixels of the 32 px that the model saw
    given = torch.tensor([[0.0, 0, *size]])
    assert torch.equal(detector.find(Image.new("RGB", size), given).boxes_xyxy, given)


# ---- ViLD --------------------------------------------------------------------------------------


def test_given_boxes_are_used_as_they_are_in_parts(world: Path, image: Image.Image) -> None:
    model, pixels = load_vild(world / "vild" / "model.safetensors"), to_pixels(image, 32)
    scaled = BOXES * 0.5
    whole = model(pixels, [scaled])[0]
    parts = regions_of(model, pixels, scaled, batch_size=2)
    for name in ("boxes_xyxy", "objectness", "text_emb", "image_emb"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
    detector = vild(batch_size=2)
    expected = class_scores(model, whole, detector.text_emb, detector.base).max(1)
    order = expected.values.argsort(descending=True)
    found = detector.find(image, BOXES)
    assert torch.equal(found.boxes_xyxy, BOXES[order])
    torch.testing.assert_close(found.scores, expected.values[order])
    assert torch.equal(found.labels, expected.indices[order])


def test_five_thousand_boxes_are_pooled_in_parts(
    world: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    pooled = ViLD.pooled

    def counting(self: ViLD, maps: dict, boxes: list, size: tuple) -> torch.Tensor:
        sizes.append(sum(map(len, boxes)))
        return pooled(self, maps, boxes, size)

    monkeypatch.setattr(ViLD, "pooled", counting)
    corner = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)) * 30
    found = vild(batch_size=1000).find(image, torch.cat([corner, corner + 20], dim=1))
    assert len(found) == 5000
    assert max(sizes) == 1000
    assert len(sizes) == 5


def test_boxes_outside_or_without_area_are_dropped(world: Path, image: Image.Image) -> None:
    odd = torch.tensor([[90.0, 3, 99, 40], [5, 5, 5, 20], [-9, -9, 30, 30]])
    for detector in (vild(), crops(scales=(1.0,))):
        assert detector.find(image, odd).boxes_xyxy.tolist() == [[0, 0, 30, 30]]
        assert len(detector.find(image, odd[:2])) == 0
        assert len(detector.find(image, odd[:0])) == 0


def test_the_words_are_the_teachers(world: Path) -> None:
    teacher = load_encoder("pasture", device="cpu")
    own = build_classifier(teacher, LABELS, templates("pasture", "en"))
    torch.testing.assert_close(vild().text_emb, own)
    bare = build_classifier(teacher, LABELS, ["{}"])
    torch.testing.assert_close(vild(templates=("{}",)).text_emb, bare)
    torch.testing.assert_close(vild(["goat"], templates=("{}",)).text_emb, bare[2:])


def test_base_and_novel_are_as_the_card_says_or_as_told(world: Path) -> None:
    detector = vild(read_words(["站着的羊=Standing Sheep", "lying sheep", "goat"], ()))
    assert detector.base.tolist() == [True, False, True]
    assert detector.groups == {"base": (0, 2), "novel": (1,)}
    assert detector.notes[0].startswith("2 of the 3 labels had boxes in the detector's training")
    assert vild(head="text").notes == []
    told = vild(base=("lying sheep",), novel=("Goat",))
    assert told.base.tolist() == [True, True, False]
    assert BASE == ["standing sheep", "goat"]
    with pytest.raises(ValueError, match="--novel: unknown label 'gaot'; did you mean 'goat'"):
        vild(novel=("gaot",))
    with pytest.raises(ValueError, match="--base and --novel both name 'goat'"):
        vild(base=("goat",), novel=("GOAT",))


def test_what_is_base_changes_the_ensemble_only(world: Path, image: Image.Image) -> None:
    for head in HEADS:
        scores = [vild(head=head, base=b, novel=n).find(image, BOXES).scores
                  for b, n in (((*LABELS,), ()), ((), (*LABELS,)))]  # fmt: skip
        assert torch.equal(*scores) == (head != "ensemble")


def test_one_label_is_judged_against_the_background(world: Path, image: Image.Image) -> None:
    one = vild(["goat"])
    assert one.head == "text"
    assert "one label: the text head decides" in one.notes[-1]
    assert float(one.find(image, BOXES).scores.max()) < 1
    assert vild(["goat"], head="image").head == "image"


def test_a_single_head_answers_as_it_was_trained(world: Path, tmp_path: Path) -> None:
    card = json.loads((world / "vild" / "model_card.json").read_text(encoding="utf-8"))
    for variant, head in (("image", "image"), ("vild", "text"), ("text", "text")):
        card["recipe"] = {"variant": variant}
        folder = make_vild(tmp_path / variant, card, separate_heads=False)
        found = load_detector(str(folder), LABELS, Options(device="cpu"))
        assert isinstance(found, ViLDDetector)
        assert (found.head, found.name) == (head, "ViLD")


# ---- the teacher -------------------------------------------------------------------------------


def test_a_teacher_of_another_space_is_refused(world: Path) -> None:
    with pytest.raises(ValueError, match=r"learned from another one, pasture .*crops --teacher pa"):
        vild(teacher="pasture-zh")


def test_a_teacher_of_other_dimensions_is_refused(world: Path, tmp_path: Path) -> None:
    folder = make_vild(tmp_path / "wide", None, embed_dim=48)
    with pytest.raises(ValueError, match="has 32 dimensions; the detector's regions have 48"):
        load_detector(str(folder), LABELS, Options(device="cpu"))


def test_an_unknown_teacher_is_taken_on_trust_and_said(world: Path, tmp_path: Path) -> None:
    folder = make_vild(tmp_path / "bare", None)
    found = load_detector(f"vild:{folder}", LABELS, Options(device="cpu"))
    assert found.notes[0] == "the checkpoint does not say who taught it; taken to be pasture"
    assert "no card says which labels had boxes" in found.notes[1]
    assert found.groups == {"novel": (0, 1, 2)}


def test_the_checkpoints_own_word_counts_more_than_the_card(world: Path, tmp_path: Path) -> None:
    card = json.loads((world / "vild" / "model_card.json").read_text(encoding="utf-8"))
    other = {"name": "somebody", "fingerprint": "0"}
    folder = make_vild(tmp_path / "other", card, other)
    with pytest.raises(ValueError, match=r"learned from another one, somebody \(fingerprint 0"):
        load_detector(str(folder), LABELS, Options(device="cpu"))
    teacher = load_encoder("pasture", device="cpu")
    weights = {k: v for k, v in teacher.provenance.items() if k.startswith("sha256")}
    folder = make_vild(tmp_path / "same", None, other | weights)  # libraries of another version
    found = load_detector(str(folder), LABELS, Options(device="cpu"))
    assert isinstance(found, ViLDDetector)
    assert found.teacher.name == "pasture"


def test_chinese_labels_end_in_a_remark_with_the_remedy(world: Path) -> None:
    unread, remedy = vild(["躺着的羊", "站立的羊"]).remarks
    assert "pasture cannot read the prompt" in unread
    assert '--labels 躺着的羊="sheep lying down"' in remedy
    assert "--model crops --teacher pasture-zh" in remedy
    assert vild(read_words(["躺着的羊=lying sheep", "羊=goat"], ())).remarks == []
    own = {"teacher": "pasture-zh", "templates": ("{}",)}
    assert crops(["躺着的羊", "站立的羊"], **own).remarks == ()


# ---- crops -------------------------------------------------------------------------------------


def test_crops_of_given_boxes_get_clips_probability(world: Path, image: Image.Image) -> None:
    detector = crops(scales=(1.0,), templates=("{}",))
    found = detector.find(image, BOXES)
    teacher = load_encoder("pasture", device="cpu")
    images = [image.crop(tuple(box)) for box in BOXES.int().tolist()]
    squeezed = [one.resize((64, 64), Image.Resampling.BICUBIC) for one in images]
    cosine = teacher.encode_image(squeezed) @ build_classifier(teacher, LABELS).T
    best = (teacher.logit_scale * cosine).softmax(1).max(1)
    for box, score, label in zip(BOXES.tolist(), *best, strict=True):
        row = found.boxes_xyxy.tolist().index(box)
        assert float(found.scores[row]) == pytest.approx(float(score), abs=1e-5)
        assert int(found.labels[row]) == int(label)
    assert not torch.equal(crops(scales=(1.5,)).find(image, BOXES).scores, found.scores)


def test_crops_find_boxes_by_the_proposals_of_a_vild(world: Path, image: Image.Image) -> None:
    detector = crops(scales=(1.0,))
    found = detector.find(image)
    boxes, objectness = detector.propose(image)
    assert 0 < len(found) <= 100
    known = {tuple(box): float(o) for box, o in zip(boxes.tolist(), objectness, strict=True)}
    for box, score in zip(found.boxes_xyxy.tolist(), found.scores.tolist(), strict=True):
        assert score <= known[tuple(box)] ** 0.5 + 1e-6
    assert detector.describe()["proposals"]["file"].endswith("vild/model.safetensors")


def test_crops_need_two_labels(world: Path) -> None:
    with pytest.raises(ValueError, match="got only 'goat', which would always get 100 %"):
        crops(["goat"])


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("crop", {}, "unknown model 'crop'; did you mean 'crops'"),
        ("vild:", {}, "nothing after the colon"),
        ("crops", {"head": "text"}, "--head: means nothing to the model crops; .*--model vild"),
        ("vild", {"scales": (1.0,)}, "--scales: means nothing to the model vild"),
        ("crops", {"scales": (0.0,)}, "--scales: got 0; expected numbers above 0"),
        ("vild", {"head": "both"}, "--head: unknown head 'both'"),
        ("vild", {"templates": ("a photo",)}, "has no {}"),
    ],
)
def test_options_that_cannot_be_meant(world: Path, model: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_detector(model, LABELS, Options(device="cpu", **options))


def test_a_missing_checkpoint_names_the_remedy(
    world: Path, tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="python -m cliplab train vild"):
        load_detector(str(tmp_path / "absent.safetensors"), LABELS)
    detector = load_detector(f"crops:{tmp_path}", LABELS, Options(device="cpu", scales=(1.0,)))
    assert len(detector.find(image, BOXES)) == 3  # nobody has to propose anything
    with pytest.raises(FileNotFoundError, match="--model crops --boxes FILE"):
        detector.find(image)


def test_a_damaged_checkpoint_is_refused(world: Path, tmp_path: Path) -> None:
    folder = make_vild(tmp_path / "v", {})
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="the file is damaged or another one"):
        load_detector(str(folder), LABELS)


def test_a_path_is_a_vild(tmp_path: Path) -> None:
    assert parse_model("crops:x/y") == ("crops", "x/y")
    file = tmp_path / "model.safetensors"
    file.touch()
    for spec in (str(tmp_path), str(file)):
        assert parse_model(spec) == ("vild", spec)


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.pth", "a folder"])
def test_weights_that_are_not_there_are_missed_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Whatever else is wrong: it was said to be a ViLD, or not the name of a model."""
    from detect_world import picture, run

    (tmp_path / "a folder").mkdir()
    sought = tmp_path / name / ("model.safetensors" if name == "a folder" else "")
    with pytest.raises(FileNotFoundError, match=rf"file, {re.escape(str(sought))}; expected"):
        parse_model(str(tmp_path / name))
    frames = picture(tmp_path / "a.png")
    assert run(frames, "--phrases", "goat", "--model", tmp_path / name) == 2
    assert f"no such file, {sought}; expected the weights" in capsys.readouterr().err


def test_suppression_is_asked_for_where_boxes_are_given() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11]])
    scores, classes = torch.tensor([[0.9, 0.1], [0.8, 0.2]]), Classes(("a", "b"), ("a", "b"))
    both = named(boxes, scores, classes, Options(), given=True)
    assert both.names == ["a", "a"]
    assert named(boxes, scores, classes, Options(iou=0.5), given=True).names == ["a", "b"]
    assert named(boxes, scores, classes, Options(), given=False).names == ["a", "b"]


def test_a_new_model_is_one_entry(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliplab.detection.detectors import Model
    from detect_world import Oracle, picture

    from cliplab.detection.pictures import read_pictures

    def load(where: str, classes: Classes, options: Options) -> Detector:
        return Oracle(list(classes.names), [[(0, 0.9, [0.0, 0, 5, 5])]])

    entry = Model(load, frozenset(), takes_boxes=False, help="says what it was told")
    monkeypatch.setitem(MODELS, "oracle", entry)
    picture(tmp_path / "a.png")
    detector = load_detector("oracle", ["a sheep on the left"])
    assert find(detector, read_pictures(tmp_path)).found[0].names == ["a sheep on the left"]
    with pytest.raises(ValueError, match="--teacher: means nothing to the model oracle"):
        load_detector("oracle", ["sheep"], Options(teacher="pasture"))
