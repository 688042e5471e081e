"""Nothing of the test split enters a fit, and what does not fit together is refused."""

import dataclasses
import inspect

import pytest
import torch
import torch.nn.functional as F
from few_shot_world import NAMES, SCALE, make_shots, zero_shot

from cliplab.classification import few_shot
from cliplab.classification.few_shot import (
    METHODS,
    CoOp,
    Shots,
    ZeroShot,
    sample_shots,
)

PLAIN = [name for name in METHODS if name != "coop"]  # needs an encoder: test_few_shot_coop.py


def fit(method: str, train: Shots, val: Shots | None = None) -> few_shot.Classifier:
    return few_shot.fit(method, train, val, zero_shot=zero_shot(), logit_scale=SCALE)


# ---- the test split ------------------------------------------------------------------------


@pytest.mark.parametrize("method", PLAIN)
def test_no_method_accepts_the_test_split(method: str) -> None:
    test = make_shots(split="test", seed=3)
    for shots in (test, sample_shots(test, 2, seed=0), test.subset(torch.arange(18) < 15)):
        with pytest.raises(ValueError, match="train: got shots of the test split"):
            fit(method, shots, make_shots(split="val", seed=2))
        with pytest.raises(ValueError, match="val: got shots of the test split"):
            fit(method, make_shots(), shots)


@pytest.mark.parametrize("method", METHODS.values())
def test_fit_takes_a_training_and_a_validation_split_and_nothing_else(method: type) -> None:
    assert list(inspect.signature(method.fit).parameters) == ["self", "train", "val"]
    assert "fit" not in vars(method)  # one door, in Method, for all of them


# ---- splits that overlap -------------------------------------------------------------------


def test_train_is_no_val() -> None:
    train, method = make_shots(), "text-probe"
    with pytest.raises(ValueError, match="shots of the train split; expected 'val'"):
        fit(method, train, make_shots(seed=2))
    with pytest.raises(ValueError, match="train: got shots of the val split"):
        fit(method, make_shots(split="val"))
    with pytest.raises(ValueError, match="18 of 18 rows, first row 0, are also in train"):
        fit(method, train, dataclasses.replace(train, split="val"))


def test_one_shared_row_is_seen() -> None:
    train, val = make_shots(), make_shots(split="val", seed=2)
    emb = val.image_emb.clone()
    emb[4] = train.image_emb[9]
    with pytest.raises(ValueError, match="1 of 18 rows, first row 4"):
        fit("zero-shot", train, Shots(emb, val.labels, NAMES, "val"))


def test_one_shared_group_is_seen() -> None:
    train = make_shots(grouped=True)
    val = make_shots(split="val", seed=2)
    groups = [f"animal {i}" for i in range(17)] + ["train 1 5"]
    with pytest.raises(ValueError, match="groups 'train 1 5' are also in train"):
        fit("zero-shot", train, dataclasses.replace(val, groups=groups))


def test_a_val_of_other_classes_or_dimensions_is_refused() -> None:
    val = make_shots(split="val", seed=2)
    narrow = Shots(F.normalize(val.image_emb[:, :4], dim=1), val.labels, NAMES, "val")
    empty = val.subset(torch.zeros(len(val), dtype=torch.bool))
    for other in (dataclasses.replace(val, class_names=NAMES[::-1]), narrow, empty):
        with pytest.raises(ValueError, match=r"val: got <val shots.*dimensions of train"):
            fit("zero-shot", make_shots(), other)


# ---- shots that are none -------------------------------------------------------------------

EMB = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(5)), dim=1)
BROKEN = torch.cat([EMB[:3], torch.full((1, 8), float("nan"))])
GOOD = {"image_emb": EMB, "labels": torch.tensor([0, 1, 2, 0]), "class_names": NAMES}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_emb": BROKEN}, "row 3 has length nan; expected unit rows, all finite"),
        ({"image_emb": 3 * EMB}, r"has length 3\.000; expected unit rows"),
        ({"image_emb": EMB[0]}, r"got \(8,\); expected a tensor \(N, D\)"),
        ({"image_emb": "photos"}, "got str; expected a tensor"),
        ({"labels": torch.tensor([0, 1, 3, 0])}, "row 2 has 3; expected 0 to 2"),
        ({"labels": torch.tensor([0, -1, 2, 0])}, "row 1 has -1"),
        ({"labels": torch.tensor([0, 1, 2])}, r"shape \(3,\); expected 4 whole numbers"),
        ({"labels": torch.tensor([0.0, 1, 2, 0])}, "got torch.float32 .* whole numbers"),
        ({"class_names": ("sheep",)}, "only 'sheep'"),
        ({"class_names": ("sheep", "Sheep", "cow")}, "repeated"),
        ({"split": "holdout"}, "got 'holdout'; expected one of train, val, test"),
        ({"groups": ["a", "b"]}, "expected 4 names"),
        ({"groups": "abcd"}, "got 'abcd'; expected 4 names"),
    ],
)
def test_bad_shots_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shots(**{**GOOD, "split": "train", **wrong})


def test_a_class_without_shots_is_named() -> None:
    train = make_shots()
    with pytest.raises(ValueError, match="no image of 'goat'"):
        fit("zero-shot", train.subset(train.labels != 1))


@pytest.mark.parametrize("method", [name for name in PLAIN if name != "linear-probe"])
def test_a_zero_shot_classifier_of_other_shape_is_refused(method: str) -> None:
    for rows, shape in [(zero_shot()[:2], "(2, 8)"), (F.normalize(torch.ones(3, 5)), "(3, 5)")]:
        with pytest.raises(ValueError, match=r"zero_shot: got shape") as error:
            few_shot.fit(method, make_shots(), zero_shot=rows, logit_scale=SCALE)
        assert shape in str(error.value)


def test_a_zero_shot_classifier_must_be_unit_rows() -> None:
    with pytest.raises(ValueError, match="zero_shot: row"):
        ZeroShot(2 * zero_shot(), SCALE)


def test_settings_out_of_range_are_refused() -> None:
    for make, message in [
        (lambda: few_shot.TipAdapter(zero_shot(), SCALE, alpha=1.0), "expected both"),
        (lambda: few_shot.WiseFT(zero_shot(), SCALE, alpha=1.5), "alpha: got 1.5"),
        (lambda: CoOp(None), "encoder: got None"),
        (lambda: few_shot.TipAdapter(zero_shot(), SCALE, alpha=-1, beta=1).fit(make_shots()),
         "alpha >= 0"),
        (lambda: ZeroShot(zero_shot(), 0.0).fit(make_shots()), "logit_scale: got 0"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make()


def test_an_unknown_method_gets_its_neighbours() -> None:
    with pytest.raises(ValueError, match="did you mean 'tip-adapter'"):
        fit("tip-adaptor", make_shots())


# ---- drawing shots -------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_shots_are_drawn_per_class_and_stay_in_their_split(per_class: int) -> None:
    pool, state = make_shots(9, split="val", grouped=True), torch.random.get_rng_state()
    shots = sample_shots(pool, per_class, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert shots.counts.tolist() == [per_class] * 3
    assert (shots.split, shots.class_names) == ("val", NAMES)
    for emb, label, group in zip(shots.image_emb, shots.labels, shots.groups, strict=True):
        row = int((pool.image_emb == emb).all(dim=1).nonzero())
        assert (pool.labels[row], pool.groups[row]) == (label, group)


def test_more_shots_contain_fewer_and_seeds_differ() -> None:
    pool = make_shots(20)
    few, more = sample_shots(pool, 3, seed=0), sample_shots(pool, 7, seed=0)
    keys = {tuple(row.tolist()) for row in more.image_emb}
    assert all(tuple(row.tolist()) in keys for row in few.image_emb)
    other = sample_shots(pool, 3, seed=1)
    assert not torch.equal(few.image_emb, other.image_emb)


def test_too_few_images_are_named() -> None:
    train = make_shots(4)
    with pytest.raises(ValueError, match="class 'cow' has 2 images in train; expected 3"):
        sample_shots(train.subset(torch.arange(10)), 3, seed=0)
    with pytest.raises(ValueError, match="per_class: got 0"):
        sample_shots(train, 0, seed=0)
