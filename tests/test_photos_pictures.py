"""Whole pictures with all that a source knows of them: boxes, and masks of their pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos_world import coco, tree
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from cliplab.data import SKIPPED, UNSAID, Masks, SampleSet, read_pictures, resized
from cliplab.data.samples import IGNORED, run_lengths

SQUARE = [0, 0, 10, 0, 10, 10, 0, 10]  # columns 0 to 9, rows 0 to 9


IMAGES = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
KINDS = [{"id": 1, "name": "sheep"}, {"id": 2, "name": "goat"}]


def herd(root: Path, *annotations: dict[str, Any]) -> Path:
    """a.png with annotations of sheep (1) and goats (2), b.png with none."""
    table = coco(*annotations, images=IMAGES, categories=KINDS)
    return tree(root, {"a.png": "red", "b.png": "blue", "herd.json": table}) / "herd.json"


def told(found: SampleSet) -> dict[str, tuple[list[list[float]], tuple[str | None, ...], bool]]:
    return {one.name: (one.boxes_xyxy.tolist(), one.labels, one.judged) for one in found}


def test_a_source_tells_which_pictures_have_no_box(tmp_path: Path) -> None:
    boxes_of = {"bbox": [1, 2, 3, 4]}, {"bbox": [5, 5, 9, 9], "category_id": 2}
    found = read_pictures(herd(tmp_path, *boxes_of))
    boxes = [[1, 2, 4, 6], [5, 5, 14, 14]]
    assert told(found) == {"a.png": (boxes, ("sheep", "goat"), True), "b.png": ([], (), True)}
    assert (found.class_names, found.problems) == (("goat", "sheep"), ())
    assert [one.size for one in found] == [(40, 20)] * 2
    tree(tmp_path, {"t.csv": "image,label,x1,y1,x2,y2\na.png,,0,0,9,9\nb.png,x,,,,\n"})
    table = {"a.png": ([[0, 0, 9, 9]], (None,), True), "b.png": ([], (), False)}
    assert told(read_pictures(tmp_path / "t.csv")) == table
    assert told(read_pictures(tmp_path / "b.png")) == {"b.png": ([], (), False)}


def test_answers_of_a_model_are_no_truth(tmp_path: Path) -> None:
    found = read_pictures(herd(tmp_path, {"bbox": [1, 2, 3, 4], "score": 0.9}))
    assert found.are_answers
    assert told(found) == {"a.png": ([[1, 2, 4, 6]], (None,), False), "b.png": ([], (), False)}


def test_pictures_whose_boxes_are_all_lost_are_not_taken_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no box left; .*outside their picture"):
        read_pictures(herd(tmp_path, {"bbox": [90, 90, 3, 4]}))


def test_pictures_of_two_cameras_are_called_by_their_paths(tmp_path: Path) -> None:
    names = ("east/1.png", "west/1.png")
    paths = [(tmp_path / name).as_posix() for name in names]
    rows = "\n".join(["image", *paths])
    tree(tmp_path, dict.fromkeys(names, "red") | {"tables/t.csv": rows})
    assert [one.name for one in read_pictures(tmp_path / "tables" / "t.csv")] == paths


# ---- masks ----------------------------------------------------------------------------------


def test_the_smaller_mask_is_on_top_and_a_picture_without_one_shows_none(tmp_path: Path) -> None:
    small = {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "category_id": 2, "iscrowd": 1}
    first, second = read_pictures(herd(tmp_path, small, {"segmentation": [SQUARE]}))
    assert first.masks.names == second.masks.names == ("goat", "sheep")
    drawn = first.masks.draw(first.path)
    assert drawn.shape == (20, 40)
    assert (drawn[:4, :4] == 0).all()
    assert (drawn == 0).sum() == 16
    assert (drawn == 1).sum() == 84
    assert (second.masks.draw(second.path) == UNSAID).all()
    assert (first.masks.draw(first.path, (8, 4)) == resized(drawn, (8, 4))).all()


HALF = np.repeat(np.array([[1] * 20, [0] * 20], np.uint8), 10, axis=0)  # the upper half


@pytest.mark.parametrize(
    "way",
    [
        [[0, 0, 20, 0, 20, 10, 0, 10]],
        {"size": [20, 20], "counts": [0] + [10] * 40},
        {"size": [20, 20], "counts": coco_mask.encode(np.asfortranarray(HALF))["counts"].decode()},
    ],
)
def test_every_way_of_writing_a_mask_is_read(way: Any) -> None:
    assert np.array_equal(coco_mask.decode(run_lengths(way, 20, 20)), HALF)


@pytest.mark.parametrize("mask", ["x", [[1, 2]], [3], {"counts": [1]}, {"size": [9, 9]}, []])
def test_what_is_no_mask_is_refused(mask: Any) -> None:
    with pytest.raises(ValueError, match=r"a segmentation that is neither|a mask of"):
        run_lengths(mask, 20, 20)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("stored", [True, False])
def test_masks_are_turned_with_their_picture(
    tmp_path: Path, orientation: int, stored: bool
) -> None:
    """A label PNG of the stored pixels lies as the picture itself would, upright or not."""
    rng = np.random.default_rng(0)
    numbers = Image.fromarray(rng.integers(0, 9, (20, 40), dtype=np.uint8))
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = orientation
    numbers.save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    (numbers if stored else Image.fromarray(upright)).save(tmp_path / "labels.png")
    assert np.array_equal(Masks((), png=tmp_path / "labels.png").draw(path), upright)


def test_label_pngs_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 1)).save(path)
    Image.fromarray(np.array([[3, IGNORED]], np.uint8)).save(tmp_path / "t.png")
    masks = Masks((), png=tmp_path / "t.png")
    assert masks.draw(path).tolist() == [[3, SKIPPED]]
    assert masks.draw(path, (4, 2)).tolist() == [[3, 3, SKIPPED, SKIPPED]] * 2
    Image.new("RGB", (2, 1)).save(tmp_path / "t.png")
    with pytest.raises(ValueError, match="expected a palette or 8-bit grey"):
        masks.draw(path)
    Image.new("L", (90, 90)).save(tmp_path / "t.png")
    with pytest.raises(ValueError, match="expected the same shape"):
        masks.draw(tree(tmp_path, {"b.png": "red"}) / "b.png")


def test_numbers_at_another_size_are_those_in_the_middle() -> None:
    small = np.array([[0, 1], [2, 3]])
    assert np.array_equal(resized(small, (4, 6)), small.repeat(3, 0).repeat(2, 1))
    assert resized(np.arange(100).reshape(10, 10), (1, 1)).tolist() == [[55]]
