"""Few-shot methods: limits, closed forms, settings; guarded splits; classifiers as files."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cliplab.classification import few_shot
from cliplab.classification.few_shot import (
    METHODS,
    Classifier,
    LinearProbe,
    Shots,
    TemperatureScaling,
    TextProbe,
    TipAdapter,
    WiseFT,
    ZeroShot,
    load_classifier,
    sample_shots,
    save_classifier,
)
from cliplab.classification.few_shot.methods import (
    best,
    class_multipliers,
    fit_temperature,
    held_out_weights,
    held_probe,
)
from cliplab.classification.zero_shot import Scores

# A small world with known answers: noisy clusters around directions, and texts that lie a bit.
NAMES = ("sheep", "goat", "cow")
SCALE = 20.0


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def directions(classes: int = 3) -> Tensor:
    """Unit rows (K, 8), one per class."""
    return F.normalize(torch.randn(classes, 8, generator=generator(0)), dim=-1)


def zero_shot() -> Tensor:
    """Unit rows (3, 8): goat and cow lie well, sheep lies astray, so that sheep are misnamed."""
    rows = directions()
    astray = F.normalize(torch.randn(8, generator=generator(4)), dim=0)
    return F.normalize(torch.stack([0.3 * rows[0] + astray, rows[1], rows[2]]), dim=-1)


def make_shots(
    per_class: int = 6,
    *,
    split: str = "train",
    seed: int = 1,
    names: tuple[str, ...] = NAMES,
    noise: float = 0.25,
    grouped: bool = False,
) -> Shots:
    """`per_class` images of each class; with `grouped`, two to a group."""
    labels = torch.arange(len(names)).repeat_interleave(per_class)
    rows = directions(len(names))[labels]
    emb = rows + noise * torch.randn(rows.shape, generator=generator(seed))
    groups = [f"{split} {seed} {i // 2}" for i in range(len(labels))] if grouped else None
    return Shots(F.normalize(emb, dim=-1), labels, names, split, groups)


PLAIN = [name for name in METHODS if name != "coop"]  # needs an encoder: test_few_shot_coop.py
OTHERS = make_shots(40, split="train", seed=11)  # pictures to ask about; nothing is fitted on them
EMB = OTHERS.image_emb


def fit(method: str, train: Shots, val: Shots | None = None) -> Classifier:
    return few_shot.fit(method, train, val, zero_shot=zero_shot(), logit_scale=SCALE)


def accuracy(classifier: Classifier, shots: Shots = OTHERS) -> float:
    return float((classifier.scores(shots.image_emb).prediction == shots.labels).float().mean())


class Given(LinearProbe):
    """The linear probe of one C."""

    def __init__(self, c: float) -> None:
        self.c = c

    def _choose(self, train: Shots, val: Shots | None) -> tuple[float, str]:
        return self.c, "given"


def baseline() -> Classifier:
    return ZeroShot(zero_shot(), SCALE).fit(make_shots())


# ---- limits, and formulas ------------------------------------------------------------------


def test_limits_are_the_zero_shot_classifier_bit_by_bit() -> None:
    train, plain = make_shots(), baseline().logits(EMB)
    expected = Scores.from_cosine(NAMES, EMB @ zero_shot().T, SCALE)
    assert torch.equal(plain, expected.logits)
    assert torch.equal(TipAdapter(zero_shot(), SCALE, alpha=0.0, beta=0.5).fit(train).logits(EMB),
                       plain)  # fmt: skip
    parts = [WiseFT(zero_shot(), SCALE, alpha=a).fit(train) for a in (0.0, 0.25, 1.0)]
    assert torch.equal(parts[0].logits(EMB), plain)
    weight, bias = WiseFT(zero_shot(), SCALE).fine_tune(train)
    assert torch.equal(parts[2].weight, weight)
    assert not torch.equal(parts[2].logits(EMB), plain)
    torch.testing.assert_close(parts[1].weight, 0.75 * zero_shot() + 0.25 * weight)
    torch.testing.assert_close(parts[1].bias, 0.25 * bias)
    hold = torch.full((3,), 1e9)
    held = held_probe(train, zero_shot(), logit_scale=SCALE, hold=hold)
    torch.testing.assert_close(held, zero_shot(), atol=1e-6, rtol=0)


def test_tip_is_its_formula_shot_by_shot() -> None:
    train = make_shots(3)
    logits = TipAdapter(zero_shot(), SCALE, alpha=1.17, beta=5.5).fit(train).logits(EMB[:5])
    for i, f in enumerate(EMB[:5]):
        expected = SCALE * zero_shot() @ f
        for key, label in zip(train.image_emb, train.labels, strict=True):
            expected[label] += 1.17 * math.exp(-5.5 * (1 - float(f @ key)))
        torch.testing.assert_close(logits[i], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_leaving_out_leaves_every_class_its_weight(grouped: bool) -> None:
    train = make_shots(6, grouped=grouped)
    weights = held_out_weights(train)
    assert weights is not None
    per_class = weights @ F.one_hot(train.labels).float()  # (N, K)
    torch.testing.assert_close(per_class, torch.full((18, 3), 6.0))
    groups = train.groups or range(18)
    for i, group in enumerate(groups):
        judges = [j for j in range(18) if weights[i, j] > 0]
        assert judges == [j for j in range(18) if groups[j] != group]


def test_no_shot_votes_for_itself_when_alpha_is_chosen() -> None:
    """Pictures that are alike in their class only by a little: each would be its own best vote."""
    labels = torch.arange(3).repeat_interleave(8)
    emb = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    emb[:, :3] = F.one_hot(labels, 3)
    train = Shots(F.normalize(emb, dim=1), labels, NAMES, "train")
    tip = TipAdapter(torch.eye(3, 64), SCALE).fit(train)
    assert tip.choices["chosen on"] == "leave-one-out"
    assert tip.alpha < 0.5 * SCALE


def test_multipliers_are_the_mean_probability_of_the_own_class() -> None:
    logits = torch.zeros(6, 3)
    logits[0, 0] = math.log(2)  # 2 / 4 and 1 / 3 for sheep
    expected = torch.tensor([(1 / 2 + 1 / 3) / 2, 1 / 3, 1 / 3])
    torch.testing.assert_close(class_multipliers(logits, make_shots(2)), expected)


def test_a_held_probe_stands_where_its_gradient_vanishes() -> None:
    train = make_shots()
    probe = TextProbe(zero_shot(), SCALE).fit(train)
    hold = torch.tensor(list(probe.choices["hold"].values()), dtype=torch.float64)
    weight = probe.weight.double().requires_grad_()
    logits = SCALE * train.image_emb.double() @ weight.T
    held = (hold * (weight - zero_shot().double()).square().sum(dim=1)).sum()
    (F.cross_entropy(logits, train.labels) + held).backward()
    assert weight.grad.abs().max() < 1e-5
    assert hold[0] < 0.7 * hold[1:].min()  # sheep, which the text misnames, is held least


def test_a_probe_says_what_scikit_learn_says_in_every_unit() -> None:
    train = make_shots(names=("sheep", "goat"))
    model = LogisticRegression(C=3.0, max_iter=5000, tol=1e-6)
    model.fit(train.image_emb.double().numpy(), train.labels.numpy())
    emb = make_shots(30, names=("sheep", "goat"), seed=9).image_emb
    expected = torch.from_numpy(model.predict_proba(emb.double().numpy())).float()
    told = Given(3.0).fit(train).scores(emb).probability
    torch.testing.assert_close(told, expected, atol=1e-5, rtol=0)
    one, other = (LinearProbe(logit_scale=s).fit(make_shots()).logits(EMB) for s in (1.0, 20.0))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("true", [0.25, 1.0, 4.0])
def test_a_temperature_that_was_put_in_is_found(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).flatten()
    assert fit_temperature(true * logits, labels) == pytest.approx(true, rel=0.03)
    right = 5 * F.one_hot(labels[:12], 4).float()
    bounds = few_shot.methods.TEMPERATURES
    assert (fit_temperature(right, labels[:12]), fit_temperature(-right, labels[:12])) == bounds


# ---- learning ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in PLAIN if m not in ("zero-shot", "temperature")])
def test_shots_mend_a_class_that_the_text_misnames(method: str) -> None:
    before, after = accuracy(baseline()), accuracy(fit(method, make_shots(8)))
    assert before < 0.9
    assert 1 - after < 0.5 * (1 - before)


@pytest.mark.parametrize("method", PLAIN)
def test_one_shot_per_class_is_enough_and_the_same_shots_give_the_same(method: str) -> None:
    logits = fit(method, make_shots(1)).logits(EMB)
    assert logits.shape == (120, 3)
    assert logits.isfinite().all()
    train, val = make_shots(), make_shots(split="val", seed=2)
    state = torch.random.get_rng_state()
    one = fit(method, train, val)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = fit(method, train, val)
    assert one.choices == other.choices
    assert torch.equal(one.logits(EMB), other.logits(EMB))


def test_one_class_with_one_image_leaves_nothing_to_hold_out() -> None:
    train = make_shots(6)
    train = train.subset((train.labels != 1) | (torch.arange(18) == 6))
    assert train.counts.tolist() == [6, 1, 6]
    probe, tip = LinearProbe().fit(train), TipAdapter(zero_shot(), SCALE).fit(train)
    assert probe.choices["C"] == few_shot.methods.DEFAULT_STRENGTH
    assert (tip.alpha, tip.beta) == (1.17, 1.0)
    assert tip.choices["chosen on"] == probe.choices["chosen on"]
    assert "nothing can be held out" in tip.choices["chosen on"]


def test_groups_are_held_out_whole() -> None:
    """Each picture twice: without groups its twin would judge it, and the loosest C would win."""
    train = make_shots(4, noise=0.6)
    labels, groups = train.labels.repeat_interleave(2), [str(i // 2) for i in range(24)]
    twice = Shots(train.image_emb.repeat_interleave(2, 0), labels, NAMES, "train", groups)
    chosen = [LinearProbe().fit(s).choices["C"] for s in (twice, replace(twice, groups=None))]
    assert chosen[0] < chosen[1]
    one_group = replace(twice, groups=["a"] * 24)
    assert "nothing can be held out" in LinearProbe().fit(one_group).choices["chosen on"]


@pytest.mark.parametrize("method", ["linear-probe", "tip-adapter", "wise-ft"])
def test_settings_are_the_best_on_val(method: str) -> None:
    train, val = make_shots(4, noise=0.5), make_shots(12, split="val", seed=2, noise=0.5)
    classifier = fit(method, train, val)
    assert classifier.choices["chosen on"] == "val"
    fixed = {
        "linear-probe": [Given(c) for c in few_shot.methods.STRENGTHS],
        "tip-adapter": [
            TipAdapter(zero_shot(), SCALE, alpha=a * SCALE, beta=b)
            for a in few_shot.methods.ALPHAS[::3] for b in few_shot.methods.BETAS[::4]
        ],
        "wise-ft": [WiseFT(zero_shot(), SCALE, alpha=a) for a in few_shot.methods.WISE_ALPHAS],
    }[method]  # fmt: skip
    assert accuracy(classifier, val) >= max(accuracy(m.fit(train), val) for m in fixed)
    train, val = make_shots(4), make_shots(12, split="val", seed=2)
    wrong = replace(train, labels=(train.labels + 1) % 3)  # val holds back what learns from it
    assert fit(method, wrong, val).choices.get("alpha", 0) <= 0.1


def test_of_settings_as_accurate_the_least_loss_wins_then_the_first() -> None:
    right, labels = torch.eye(2), torch.tensor([0, 1])
    tried = [("", right), ("first", 3 * right), ("second", 3 * right), ("sure", 9 * right.flip(0))]
    assert best(tried, labels) == "first"


@pytest.mark.parametrize("method", [ZeroShot, TextProbe, TipAdapter, WiseFT])
def test_a_temperature_calibrates_and_predicts_the_same(method: type) -> None:
    train, val = make_shots(4, noise=0.6), make_shots(30, split="val", seed=2, noise=0.6)
    plain = method(zero_shot(), SCALE).fit(train, val)
    scaled = TemperatureScaling(method(zero_shot(), SCALE)).fit(train, val)
    asked = make_shots(100, seed=12, noise=0.6)
    before, after = plain.scores(asked.image_emb), scaled.scores(asked.image_emb)
    assert torch.equal(before.prediction, after.prediction)
    assert after.logit_scale == SCALE / scaled.temperature
    assert scaled.choices["temperature chosen on"] == "val"
    losses = [float(F.cross_entropy(s.logits, asked.labels)) for s in (before, after)]
    assert losses[1] < losses[0] + 1e-3
    assert scaled.temperature == scaled.choices["temperature"] != 1.0


def test_a_fitted_classifier_is_not_calibrated_on_its_own_shots() -> None:
    with pytest.raises(ValueError, match="expected validation shots"):
        TemperatureScaling(TextProbe(zero_shot(), SCALE)).fit(make_shots())
    scaled = TemperatureScaling(ZeroShot(zero_shot(), SCALE)).fit(make_shots())
    assert scaled.choices["temperature chosen on"] == "train"


# ---- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("method", PLAIN)
def test_no_method_accepts_the_test_split(method: str) -> None:
    test = make_shots(split="test", seed=3)
    for shots in (test, sample_shots(test, 2, seed=0), test.subset(torch.arange(18) < 15)):
        with pytest.raises(ValueError, match="train: got shots of the test split"):
            fit(method, shots, make_shots(split="val", seed=2))
        with pytest.raises(ValueError, match="val: got shots of the test split"):
            fit(method, make_shots(), shots)


def test_train_and_val_share_nothing() -> None:
    train, val = make_shots(grouped=True), make_shots(split="val", seed=2)
    emb = val.image_emb.clone()
    emb[4] = train.image_emb[9]
    groups = [f"animal {i}" for i in range(17)] + ["train 1 5"]
    for shots, other, message in (
        (train, make_shots(seed=2), "shots of the train split; expected 'val'"),
        (replace(train, split="val"), None, "train: got shots of the val split"),
        (train, replace(train, split="val"), "18 of 18 rows, first row 0, are also in train"),
        (train, replace(val, image_emb=emb), "1 of 18 rows, first row 4"),
        (train, replace(val, groups=groups), "groups 'train 1 5' are also in train"),
        (train, replace(val, class_names=NAMES[::-1]), "val: got the classes cow, goat, sheep"),
        (train.subset(train.labels != 1), None, "no image of 'goat'"),
    ):
        with pytest.raises(ValueError, match=message):
            fit("zero-shot", shots, other)


ROWS = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(5)), dim=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_emb": ROWS * torch.tensor([[1], [1], [1], [math.nan]])}, "lengths from nan"),
        ({"image_emb": 3 * ROWS}, r"to 3\.000; expected \(N, D\) unit rows"),
        ({"image_emb": ROWS[0]}, r"got shape \(8,\)"),
        ({"labels": torch.tensor([0, 1, 3, 0])}, r"values \[0, 1, 3\]; expected 4 from 0 to 2"),
        ({"labels": torch.tensor([0, -1, 2, 0])}, r"values \[-1, 0, 2\]"),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels: got shape \(3,\)"),
        ({"class_names": ("sheep", "Sheep", "cow")}, "repeated"),
        ({"split": "holdout"}, "unknown split 'holdout'"),
        ({"groups": ["a", "b"]}, "groups: got 2; expected 4"),
    ],
)
def test_bad_shots_are_refused(wrong: dict, message: str) -> None:
    good = {"image_emb": ROWS, "labels": torch.tensor([0, 1, 2, 0]), "class_names": NAMES}
    with pytest.raises(ValueError, match=message):
        Shots(**{**good, "split": "train", **wrong})


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="zero_shot: got shape"):
        ZeroShot(2 * zero_shot(), SCALE)
    with pytest.raises(ValueError, match="2 rows for 3 classes"):
        few_shot.fit("zero-shot", make_shots(), zero_shot=zero_shot()[:2], logit_scale=SCALE)
    with pytest.raises(ValueError, match="did you mean 'tip-adapter'"):
        fit("tip-adaptor", make_shots())
    with pytest.raises(ValueError, match="image_emb: got shape"):
        baseline().scores(torch.ones(2, 8))
    with pytest.raises(ValueError, match="weight: has NaN or infinity"):
        replace(baseline(), weight=torch.full((3, 8), math.inf))


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
    more = {tuple(row.tolist()) for row in sample_shots(pool, 7, seed=4).image_emb}
    assert all(tuple(row.tolist()) in more for row in shots.image_emb)
    assert not torch.equal(shots.image_emb, sample_shots(pool, per_class, seed=1).image_emb)
    with pytest.raises(ValueError, match="class 'cow' has 2 images in val; expected 3"):
        sample_shots(pool.subset(torch.arange(20)), 3, seed=0)


# ---- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear-probe", "tip-adapter"])
def test_what_is_read_is_what_was_written(method: str, tmp_path: Path) -> None:
    names, known = (
        ("躺着的羊", "躺着的山羊", "躺着的牛"),
        SimpleNamespace(name="a", fingerprint="ab"),
    )
    before = few_shot.fit(method, make_shots(names=names), zero_shot=zero_shot(),
                          logit_scale=SCALE, encoder=known)  # fmt: skip
    before = replace(before, temperature=1.7, learned=("c0", "d1"))
    save_classifier(before, tmp_path / "分类器.safetensors")
    after = load_classifier(tmp_path / "分类器.safetensors")
    assert torch.equal(after.logits(EMB), before.logits(EMB))
    for name in ("class_names", "logit_scale", "temperature", "choices", "encoder", "learned"):
        assert getattr(after, name) == getattr(before, name), name
    after.check_encoder(SimpleNamespace(name="the same elsewhere", fingerprint="ab"))
    with pytest.raises(ValueError, match=r"made for the encoder a \(ab\.\.\.\); got other \(cd"):
        after.check_encoder(SimpleNamespace(name="other", fingerprint="cd"))
    baseline().check_encoder(known)  # of which nothing is known


DROP = "drop"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "cache"}, None),  # as older files have it
        ({"format": 2}, "no classifier of format 1"),
        ({"shape": "tree"}, "unexpected keyword argument 'shape'"),
        ({"logit_scale": DROP}, "missing 1 required"),
        ({"class_names": ["sheep", "goat"]}, "3 rows for 2 classes"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    changes: dict[str, object], message: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(fit("tip-adapter", make_shots()), path)
    raw = path.read_bytes()
    head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    header = json.loads(head["cliplab classifier"]) | changes
    header = json.dumps({k: v for k, v in header.items() if v != DROP})
    save_file(load_file(path), path, metadata={"cliplab classifier": header})
    if message is None:
        assert load_classifier(path).class_names == NAMES
    else:
        with pytest.raises(ValueError, match=message):
            load_classifier(path)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_files_that_are_none(size: int, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(FileNotFoundError, match=r"c\.safetensors: no such file"):
        load_classifier(path)
    save_classifier(baseline(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="damaged"):
        load_classifier(path)
    save_file({"weight": torch.ones(3, 8)}, path)
    with pytest.raises(ValueError, match="no classifier of format 1"):
        load_classifier(path)
