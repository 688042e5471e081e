"""Proposals: what they are, a ViLD's, COCO files of others, and torchvision's detectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cliplab.detection.proposals import (
    DETECTORS,
    Proposals,
    coco_detector,
    coco_detector_proposals,
    read_proposals,
    region_proposals,
    vild_proposals,
)
from cliplab.models.vild import ViLD, ViLDConfig

SMALL = "ssdlite320_mobilenet_v3_large"


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


# ---- what they are -------------------------------------------------------------------------


def test_the_best_come_first() -> None:
    some = boxes((0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 3, 3))
    best = Proposals(some, torch.tensor([0.2, 0.9, 0.2])).best(2)
    assert best.boxes_xyxy.tolist() == some[[1, 0]].tolist()
    assert best.objectness.tolist() == pytest.approx([0.9, 0.2])
    assert Proposals(some).best(2).boxes_xyxy.tolist() == some[:2].tolist()
    assert len(Proposals(some).best(9)) == 3


def test_inside_cuts_off_and_drops() -> None:
    some = boxes((-5, 2, 30, 9), (20, 0, 25, 5), (3, 3, 3, 8), (1, 1, 2, 2))
    inside = Proposals(some, torch.tensor([0.1, 0.2, 0.3, 0.4])).inside((20, 8))
    assert inside.boxes_xyxy.tolist() == [[0, 2, 20, 8], [1, 1, 2, 2]]
    assert inside.objectness.tolist() == pytest.approx([0.1, 0.4])
    assert Proposals(some).inside((20, 8)).objectness is None
    assert len(Proposals(boxes()).inside((20, 8))) == 0


@pytest.mark.parametrize(
    ("score", "match"),
    [
        ([0.5, float("nan")], r"row 1 is nan; expected 0 to 1"),
        ([1.5, 0.5], r"row 0 is 1\.5; .*sigmoid"),
        ([0.5], r"got shape \(1,\); expected \(2,\)"),
    ],
)
def test_scores_that_are_no_objectness_are_refused(score: list[float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Proposals(boxes((0, 0, 1, 1), (0, 0, 2, 2)), torch.tensor(score))


def test_boxes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="x0 <= x1"):
        Proposals(boxes((5, 0, 1, 1)))


# ---- a ViLD --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> ViLD:
    torch.manual_seed(0)
    config = ViLDConfig(
        embed_dim=8, widths=(16,) * 4, depths=(1, 1, 1), pyramid_width=16, head_channels=16,
        head_width=16, height=48, proposals=12,
    )  # fmt: skip
    return ViLD(config).eval()


def noise(width: int, height: int) -> Image.Image:
    generator = torch.Generator().manual_seed(0)
    return Image.fromarray(
        torch.randint(0, 256, (height, width, 3), generator=generator).byte().numpy()
    )


@pytest.mark.parametrize("refined", [True, False])
def test_boxes_of_a_large_picture_are_those_of_a_small_one(tiny, refined: bool) -> None:
    small = noise(64, 48)
    large = small.resize((192, 144), Image.Resampling.NEAREST)
    once = vild_proposals(tiny, [small], refined=refined)[0]
    first, second = vild_proposals(tiny, [large, small], refined=refined)
    assert torch.equal(second.boxes_xyxy, once.boxes_xyxy)
    assert len(first) == 12
    assert first.boxes_xyxy.amax(0)[0] > 64
    assert (first.boxes_xyxy.amax(0)[2:] <= torch.tensor([192, 144])).all()
    assert first.objectness.tolist() == sorted(first.objectness.tolist(), reverse=True)


def test_refined_boxes_are_those_that_it_answers_with(tiny) -> None:
    image = noise(64, 48)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    regions = tiny(pixels)
    (given,) = region_proposals(regions)
    (found,) = vild_proposals(tiny, [image])
    (raw,) = vild_proposals(tiny, [image], refined=False)
    torch.testing.assert_close(found.boxes_xyxy, given.inside(image.size).boxes_xyxy)
    torch.testing.assert_close(found.objectness, regions[0].objectness)
    assert not torch.allclose(raw.boxes_xyxy, found.boxes_xyxy, atol=1e-2)


# ---- COCO ----------------------------------------------------------------------------------


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def photo(path: Path, size: tuple[int, int] = (40, 30), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "green")
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def result(image_id: Any, *box: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "bbox": list(box), **more}


def test_a_data_set_without_scores(tmp_path) -> None:
    data = {
        "images": [
            {"id": 7, "file_name": "羊\\1.png"},
            {"id": 9, "file_name": "羊/2.png", "width": 40, "height": 30},
        ],
        # no categories, ids of categories that nobody listed, and none at all
        "annotations": [
            result(9, 1, 2, 3, 4, category_id=77),
            result(7, 0, 0, 10, 10),
            result(9, 5, 5, 5, 5, category_id="羊"),
        ],
    }
    pictures = [photo(tmp_path / "羊" / f"{n}.png") for n in (1, 2, 3)]
    found, remarks = read_proposals(written(tmp_path / "boxes.json", data), pictures)
    assert [p.boxes_xyxy.tolist() for p in found] == [
        [[0, 0, 10, 10]], [[1, 2, 4, 6], [5, 5, 10, 10]], [],
    ]  # fmt: skip
    assert all(p.objectness is None for p in found)
    assert len(remarks) == 1
    assert remarks[0].startswith("pictures without a proposal (1): ")


RESULTS = [
    result(1, 1, 2, 3, 4, score=0.25, category_id=3),
    result(2, 0, 0, 9, 9, score=1),
    result(1, 5, 5, 5, 5, score=0.75),
]


@pytest.mark.parametrize("names", [[1, 2], ["1", "2"], [Path("a/000001.jpg"), Path("b/2.jpg")]])
def test_a_list_of_results_with_scores(tmp_path, names) -> None:
    names = [photo(tmp_path / n) if isinstance(n, Path) else n for n in names]
    found, remarks = read_proposals(written(tmp_path / "r.json", RESULTS), names)
    assert [p.boxes_xyxy.tolist() for p in found] == [
        [[5, 5, 10, 10], [1, 2, 4, 6]], [[0, 0, 9, 9]],
    ]  # fmt: skip
    assert found[0].objectness.tolist() == [0.75, 0.25]
    assert remarks == ()


def test_results_whose_files_a_data_set_tells(tmp_path) -> None:
    data = {"images": [{"id": 1, "file_name": "x.png"}, {"id": 2, "file_name": "1.png"}]}
    pictures = [photo(tmp_path / "1.png"), photo(tmp_path / "x.png")]
    source = written(tmp_path / "r.json", RESULTS)
    found, _ = read_proposals(source, pictures, data_set=written(tmp_path / "d.json", data))
    assert [len(p) for p in found] == [1, 2]  # the name counts, not the number in it
    with pytest.raises(ValueError, match=r"its boxes are of 1, 2; expected some of .*data_set="):
        read_proposals(source, [photo(tmp_path / "y.png")])


def test_boxes_of_unknown_pictures_are_left_out(tmp_path) -> None:
    strays = [result(5, 0, 0, 3, 3, score=0.5), result(None, 0, 0, 3, 3, score=0.5)]
    source = written(tmp_path / "r.json", [*RESULTS, *strays, result([1], 0, 0, 3, 3, score=0.5)])
    found, remarks = read_proposals(source, [2])
    assert [len(p) for p in found] == [1]
    assert remarks == (
        "boxes of other pictures, left out (5): image_id 1, image_id 5, image_id None and 1 more",
    )


def test_rows_that_are_no_use_are_counted(tmp_path) -> None:
    odd = [
        result(2, 1, 2, 3, score=0.5),
        result(2, 1, 2, float("nan"), 4, score=0.5),
        result(2, 1, 2, 0, 4, score=0.5),
        result(2, 1, 2, -3, 4, score=0.5),
        result(2, 1, 2, 3, 4, score=float("nan")),
        result(2, 1, 2, 3, 4, score="high"),
        result(2, 1, 2, 3, 4, score=0.5, iscrowd=1),
    ]
    found, remarks = read_proposals(written(tmp_path / "r.json", [*odd, *RESULTS[1:2]]), [2])
    assert found[0].boxes_xyxy.tolist() == [[0, 0, 9, 9]]
    assert remarks == (
        "rows without four finite numbers in 'bbox', skipped (2): box 0, box 1",
        "boxes without area, skipped (2): box 2, box 3",
        "boxes whose score is no finite number, skipped (2): box 4: nan, box 5: 'high'",
        "boxes of crowds (iscrowd), skipped (1): box 6",
    )


def test_pictures_without_any_box(tmp_path) -> None:
    for empty in ([], {"images": [], "annotations": []}, {"images": [{"id": 1}]}):
        found, remarks = read_proposals(written(tmp_path / "r.json", empty), [1, "2"])
        assert [len(p) for p in found] == [0, 0]
        assert found[0].boxes_xyxy.shape == (0, 4)
        assert remarks == ("pictures without a proposal (2): 1, '2'",)
    assert read_proposals(tmp_path / "r.json", [])[0] == []


def test_boxes_are_turned_and_scaled_with_their_pictures(tmp_path) -> None:
    pictures = [photo(tmp_path / "lying.jpg", (40, 30), 6), photo(tmp_path / "large.png", (80, 60))]
    data = {
        "images": [
            {"id": 1, "file_name": "lying.jpg", "width": 40, "height": 30},
            {"id": 2, "file_name": "large.png", "width": 40, "height": 30},
        ],
        "annotations": [result(1, 0, 0, 10, 5), result(2, 0, 0, 10, 5)],
    }
    found, remarks = read_proposals(written(tmp_path / "d.json", data), pictures)
    assert found[0].boxes_xyxy.tolist() == [[25, 0, 30, 10]]
    assert found[1].boxes_xyxy.tolist() == [[0, 0, 20, 10]]
    assert [r.partition(",")[0] for r in remarks] == [
        "boxes turned with their picture",
        "boxes scaled",
    ]


def test_folders_tell_pictures_of_one_name_apart(tmp_path) -> None:
    pictures = [photo(tmp_path / "a" / "1.png"), photo(tmp_path / "b" / "1.png")]
    told = [{"id": n, "file_name": f"{n}/1.png"} for n in "ab"]
    data = {"images": told, "annotations": [result("b", 0, 0, 3, 3)]}
    found, _ = read_proposals(written(tmp_path / "d.json", data), pictures)
    assert [len(p) for p in found] == [0, 1]
    # a picture that is there by its whole name is not the one of that name in another folder
    data["images"].append({"id": "z", "file_name": "z/1.png"})
    data["annotations"].append(result("z", 0, 0, 9, 9))
    found, remarks = read_proposals(written(tmp_path / "d.json", data), pictures[1:])
    assert found[0].boxes_xyxy.tolist() == [[0, 0, 3, 3]]
    assert remarks == ("boxes of other pictures, left out (1): image_id 'z'",)
    data["annotations"].pop()
    # another root: what is left of the path still tells them apart, or it is refused
    data["images"] = [{"id": "b", "file_name": "photos/1.png"}]
    with pytest.raises(ValueError, match=r"photos/1\.png: may be .*the folders that tell"):
        read_proposals(written(tmp_path / "d.json", data), pictures)
    found, _ = read_proposals(tmp_path / "d.json", pictures[1:])
    assert len(found[0]) == 1
    data["images"] = [{"id": n, "file_name": f"{n}/{n}/1.png"} for n in "xy"]
    data["annotations"] = [result("x", 0, 0, 3, 3), result("y", 0, 0, 3, 3)]
    with pytest.raises(ValueError, match=r"image ids 'x', 'y' all seem to be"):
        read_proposals(written(tmp_path / "d.json", data), pictures[1:])
    with pytest.raises(ValueError, match=r"1: may be 1, 1; .*each picture once"):
        read_proposals(written(tmp_path / "r.json", RESULTS), [1, 1])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "not JSON"),
        ('"羊"', "neither COCO's data set"),
        ([1, 2], "neither COCO's data set"),
        ({"annotations": []}, "neither COCO's data set"),
        ({"images": [], "annotations": [3]}, "neither COCO's data set"),
        ([*RESULTS, result(2, 0, 0, 3, 3)], "3 of 4 boxes have a score; expected all, or none"),
        ([result(2, 0, 0, 3, 3, score=3.5)], r"1 scores are not within 0 to 1, such as 3\.5"),
        ([result(2, 0.1, 0.1, 0.3, 0.3)], r"all boxes lie between 0 and 1.*expected pixels"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(tmp_path, content, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read_proposals(written(tmp_path / "r.json", content), [1, 2])


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        read_proposals(tmp_path / "none.json", [1])


# ---- torchvision ---------------------------------------------------------------------------


def official(name: str) -> Any:
    """A detector with random weights and statistics, as torchvision builds it."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(name, weights=None, weights_backbone=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    return official(SMALL).state_dict()


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """Torch hub's folder of checkpoints, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def published(name: str) -> str:
    from torchvision.models import get_model_weights

    return get_model_weights(name)["COCO_V1"].url.rpartition("/")[2]


def same(found: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    assert len(expected[0]["boxes"])
    torch.testing.assert_close(found[0]["boxes"], expected[0]["boxes"])
    torch.testing.assert_close(found[0]["scores"], expected[0]["scores"])


def test_all_detectors_of_coco_are_known() -> None:
    from torchvision.models import detection, list_models

    known = [n for n in list_models(module=detection) if not n.startswith("keypoint")]
    assert sorted(DETECTORS) == sorted(known)  # keypoints are for people only


def test_weights_come_from_the_hub_folder_or_a_path(small, hub, tmp_path) -> None:
    torch.save(small, hub / published(SMALL))
    torch.save(small, tmp_path / "mine.pth")
    pixels = [torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(0))]
    expected = official(SMALL)(pixels)
    same(coco_detector(SMALL, offline=True)(pixels), expected)
    same(coco_detector(SMALL, weights=tmp_path / "mine.pth")(pixels), expected)


def torchvisions(name: str, tensors: dict[str, Tensor], monkeypatch) -> Any:
    """What torchvision itself makes of these weights when it believes it downloaded them."""
    from torchvision.models import get_model

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: tensors)
    return get_model(name, weights="COCO_V1").eval()


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_published_weights_give_what_torchvision_gives(name: str, tmp_path, monkeypatch) -> None:
    """The older names in the file, frozen statistics, and an epsilon of 0 where it was 0."""
    tensors = {k: v for k, v in official(name).state_dict().items() if "num_batches" not in k}
    for key in [k for k in tensors if k.startswith("rpn.head.conv.0.0.")]:
        tensors[key.replace(".0.0.", ".")] = tensors.pop(key)
    first = next(k for k in tensors if k.endswith("running_var"))
    tensors[first] = tensors[first] * 1e-5  # so that an epsilon shows
    path = tmp_path / "weights.pth"
    torch.save(tensors, path)
    ours, theirs = coco_detector(name, weights=path), torchvisions(name, tensors, monkeypatch)
    features = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = ours.backbone(features), theirs.backbone(features)
        for level, want in expected.items():
            largest = float(want.abs().max())
            torch.testing.assert_close(found[level], want, rtol=0, atol=1e-4 * largest)
        found, expected = (m.rpn.head(list(expected.values()))[0] for m in (ours, theirs))
        torch.testing.assert_close(found, expected)


def test_without_weights_offline_the_file_and_its_place_are_named(hub, monkeypatch) -> None:
    pattern = rf"torchvision:{SMALL}: not on this machine.*offline.*{published(SMALL)}; they belong"
    with pytest.raises(FileNotFoundError, match=pattern) as caught:
        coco_detector(SMALL)  # the tests set $CLIPLAB_OFFLINE
    assert str(hub) in str(caught.value)
    assert f"curl -L -O https://download.pytorch.org/models/{published(SMALL)}" in str(caught.value)
    assert str(caught.value).endswith("or give the path of the file as `weights`")
    monkeypatch.setattr("cliplab.encoders.hub._sign_of_life", lambda url: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", broken)
    with pytest.raises(FileNotFoundError, match="half of it"):
        coco_detector(SMALL, offline=False)
    assert list(hub.iterdir()) == []


def broken(url: str, target: str, digest: str, progress: bool) -> None:
    Path(target).write_bytes(b"half")
    raise RuntimeError(f"half of it {digest}")


def test_a_download_is_kept(small, hub, monkeypatch) -> None:
    asked = []

    def fetch(url: str, target: str, digest: str, progress: bool) -> None:
        asked.append((url, digest))
        torch.save(small, target)

    monkeypatch.setattr("cliplab.encoders.hub._sign_of_life", lambda url: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    coco_detector(SMALL, offline=False)
    coco_detector(SMALL, offline=False)
    assert [digest for _, digest in asked] == ["a79551df"]
    assert [path.name for path in hub.iterdir()] == [published(SMALL)]


class Trap:
    def __reduce__(self):
        return print, ("this must never run",)


def test_other_files_are_refused(small, hub, tmp_path, capsys) -> None:
    with pytest.raises(ValueError, match=r"unknown detector 'yolo'.*valid: fasterrcnn_mobilenet"):
        coco_detector("yolo")
    with pytest.raises(FileNotFoundError, match=rf"no\.pth: no such file.*{published(SMALL)}"):
        coco_detector(SMALL, weights=tmp_path / "no.pth")
    written(hub / published(SMALL), "half a file")
    with pytest.raises(ValueError, match=r"cannot be read as weights"):
        coco_detector(SMALL)
    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match=r"refused because loading them could run code"):
        coco_detector(SMALL, weights=tmp_path / "trap.pth")
    assert "never" not in capsys.readouterr().out
    torch.save(dict(list(small.items())[:9]), tmp_path / "part.pth")
    with pytest.raises(ValueError, match=rf"part\.pth: not the weights of {SMALL} .*Missing key"):
        coco_detector(SMALL, weights=tmp_path / "part.pth")


def test_names_of_a_detector_play_no_part() -> None:
    said = {
        "boxes": boxes((0, 0, 10, 10), (0, 0, 10, 10.5), (20, 20, 30, 30), (5, 0, 15, 10)),
        "scores": torch.tensor([0.6, 0.9, 1.0000001, 0.3]),
        "labels": torch.tensor([19, 20, 21, 20]),  # a horse and a sheep, a cow, a sheep
    }
    shapes = []

    def detector(pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        shapes.append([tuple(p.shape) for p in pictures])
        return [said]

    grey = Image.new("L", (40, 32), 255)
    first, second = coco_detector_proposals(detector, (i for i in (grey, grey)), top=2)
    assert shapes == [[(3, 32, 40)], [(3, 32, 40)]]
    assert first.boxes_xyxy.tolist() == said["boxes"][[2, 1]].tolist()
    assert first.objectness.tolist() == pytest.approx([1.0, 0.9])
    assert torch.equal(first.boxes_xyxy, second.boxes_xyxy)
    assert len(coco_detector_proposals(detector, [grey])[0]) == 3
