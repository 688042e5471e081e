"""Few-shot methods: limits that hold bit by bit, closed forms, settings chosen in their place."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from few_shot_world import NAMES, SCALE, make_shots, zero_shot

from cliplab.classification import few_shot
from cliplab.classification.few_shot import (
    METHODS,
    CacheClassifier,
    Classifier,
    LinearClassifier,
    LinearProbe,
    Shots,
    TemperatureScaling,
    TextProbe,
    TipAdapter,
    TipAdapterF,
    WiseFT,
    ZeroShot,
    fit_temperature,
)
from cliplab.classification.few_shot.methods import _held_out_weights
from cliplab.classification.few_shot.probes import class_multipliers, held_probe
from cliplab.classification.zero_shot import Scores

PLAIN = [name for name in METHODS if name != "coop"]
OTHERS = make_shots(40, split="train", seed=11)  # pictures to ask about; nothing is fitted on them


def fit(method: str, train: Shots, val: Shots | None = None, seed: int = 0) -> Classifier:
    return few_shot.fit(method, train, val, zero_shot=zero_shot(), logit_scale=SCALE, seed=seed)


def accuracy(classifier: Classifier, shots: Shots = OTHERS) -> float:
    return float((classifier.scores(shots.image_emb).prediction == shots.labels).float().mean())


class Given(LinearProbe):
    """The linear probe of one C."""

    def __init__(self, c: float) -> None:
        self.c = c

    def _choose(self, train: Shots, val: Shots | None) -> tuple[float, str]:
        return self.c, "given"


def baseline() -> LinearClassifier:
    return ZeroShot(zero_shot(), SCALE).fit(make_shots())


# ---- limits, bit by bit --------------------------------------------------------------------


def test_zero_shot_is_what_classify_says() -> None:
    scores = baseline().scores(OTHERS.image_emb)
    expected = Scores.from_cosine(NAMES, OTHERS.image_emb @ zero_shot().T, SCALE)
    for name in ("cosine", "logits", "probability"):
        assert torch.equal(getattr(scores, name), getattr(expected, name)), name


@pytest.mark.parametrize(("method", "beta"), [(TipAdapter, 0.5), (TipAdapterF, 20.0)])
def test_tip_with_alpha_0_is_zero_shot(method: type[TipAdapter], beta: float) -> None:
    tip = method(zero_shot(), SCALE, alpha=0.0, beta=beta).fit(make_shots())
    assert torch.equal(tip.logits(OTHERS.image_emb), baseline().logits(OTHERS.image_emb))


def test_tip_f_without_epochs_is_tip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_shot.methods, "EPOCHS", 0)
    tuned = TipAdapterF(zero_shot(), SCALE).fit(make_shots())
    plain = TipAdapter(zero_shot(), SCALE).fit(make_shots())
    assert torch.equal(tuned.logits(OTHERS.image_emb), plain.logits(OTHERS.image_emb))


def test_wise_ends_are_the_zero_shot_and_the_fine_tuned_classifier() -> None:
    train, emb = make_shots(), OTHERS.image_emb
    at_0 = WiseFT(zero_shot(), SCALE, alpha=0.0).fit(train)
    at_1 = WiseFT(zero_shot(), SCALE, alpha=1.0)
    tuned = at_1.fine_tune(train)
    assert torch.equal(at_0.logits(emb), baseline().logits(emb))
    assert torch.equal(at_1.fit(train).logits(emb), tuned.logits(emb))
    assert not torch.equal(tuned.logits(emb), baseline().logits(emb))


def test_wise_interpolates_weights() -> None:
    train = make_shots()
    parts = [WiseFT(zero_shot(), SCALE, alpha=a).fit(train) for a in (0.0, 0.25, 1.0)]
    start, quarter, end = parts
    torch.testing.assert_close(quarter.weight, 0.75 * start.weight + 0.25 * end.weight)
    torch.testing.assert_close(quarter.bias, 0.25 * end.bias)


@pytest.mark.parametrize("method", ["text-probe", "tip-adapter"])
def test_temperature_1_changes_no_bit(method: str) -> None:
    classifier = fit(method, make_shots(), make_shots(split="val", seed=2))
    emb = OTHERS.image_emb
    assert torch.equal(replace(classifier, temperature=1.0).logits(emb), classifier.logits(emb))
    assert not torch.equal(replace(classifier, temperature=1.5).logits(emb), classifier.logits(emb))


def test_a_held_probe_that_is_held_hard_is_zero_shot() -> None:
    hold = torch.full((3,), 1e9)
    weight = held_probe(make_shots(), zero_shot(), logit_scale=SCALE, hold=hold)
    torch.testing.assert_close(weight, zero_shot(), atol=1e-6, rtol=0)


# ---- formulas ------------------------------------------------------------------------------


def test_tip_is_its_formula_shot_by_shot() -> None:
    train, emb = make_shots(3), OTHERS.image_emb[:5]
    logits = TipAdapter(zero_shot(), SCALE, alpha=1.17, beta=5.5).fit(train).logits(emb)
    for i, f in enumerate(emb):
        expected = SCALE * zero_shot() @ f
        for key, label in zip(train.image_emb, train.labels, strict=True):
            expected[label] += 1.17 * math.exp(-5.5 * (1 - float(f @ key)))
        torch.testing.assert_close(logits[i], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_leaving_out_leaves_every_class_its_weight(grouped: bool) -> None:
    train = make_shots(6, grouped=grouped)
    weights = _held_out_weights(train)
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
    shots = make_shots(2)
    logits = torch.zeros(6, 3)
    logits[0, 0] = math.log(2)  # 2 / 4 and 1 / 3 for sheep
    expected = torch.tensor([(1 / 2 + 1 / 3) / 2, 1 / 3, 1 / 3])
    torch.testing.assert_close(class_multipliers(logits, shots), expected)


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


def test_a_probe_of_two_classes_says_what_scikit_learn_says() -> None:
    from sklearn.linear_model import LogisticRegression

    train = make_shots(names=("sheep", "goat"))
    probe = Given(3.0).fit(train)
    model = LogisticRegression(C=3.0, max_iter=5000, tol=1e-6)
    model.fit(train.image_emb.double().numpy(), train.labels.numpy())
    emb = make_shots(30, names=("sheep", "goat"), seed=9).image_emb
    expected = torch.from_numpy(model.predict_proba(emb.double().numpy())).float()
    torch.testing.assert_close(probe.scores(emb).probability, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_a_probe_is_the_same_in_every_unit(scale: float) -> None:
    train = make_shots()
    one, other = (LinearProbe(logit_scale=s).fit(train) for s in (1.0, scale))
    emb = OTHERS.image_emb
    torch.testing.assert_close(one.logits(emb), other.logits(emb), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("true", [0.25, 1.0, 4.0])
def test_a_temperature_that_was_put_in_is_found(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).flatten()
    assert fit_temperature(true * logits, labels) == pytest.approx(true, rel=0.03)


def test_a_temperature_stays_within_its_bounds() -> None:
    labels = torch.tensor([0, 1, 2] * 4)
    right = 5 * F.one_hot(labels, 3).float()
    assert fit_temperature(right, labels) == few_shot.methods.TEMPERATURES[0]
    assert fit_temperature(-right, labels) == few_shot.methods.TEMPERATURES[1]


# ---- learning ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in PLAIN if m not in ("zero-shot", "temperature")])
def test_shots_mend_a_class_that_the_text_misnames(method: str) -> None:
    before = accuracy(baseline())
    assert before < 0.9
    after = accuracy(fit(method, make_shots(8)))
    assert 1 - after < 0.5 * (1 - before)


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("per_class", [1, 2])
def test_one_and_two_shots_per_class_are_enough_to_fit(method: str, per_class: int) -> None:
    classifier = fit(method, make_shots(per_class))
    logits = classifier.logits(OTHERS.image_emb)
    assert logits.shape == (120, 3)
    assert logits.isfinite().all()
    if per_class == 1 and method in ("linear-probe", "tip-adapter", "tip-adapter-f"):
        assert classifier.choices["chosen on"].startswith("default: nothing can be held out")


def test_one_class_with_one_image_leaves_nothing_to_hold_out() -> None:
    train = make_shots(6)
    train = train.subset((train.labels != 1) | (torch.arange(18) == 6))
    assert train.counts.tolist() == [6, 1, 6]
    probe = LinearProbe().fit(train)
    assert probe.choices["C"] == few_shot.probes.DEFAULT_STRENGTH
    tip = TipAdapter(zero_shot(), SCALE).fit(train)
    assert (tip.alpha, tip.beta) == (1.17, 1.0)


def test_groups_are_held_out_whole() -> None:
    """Each picture twice: without groups its twin would judge it, and the loosest C would win."""
    train = make_shots(4, noise=0.6)
    twice = Shots(
        train.image_emb.repeat_interleave(2, 0), train.labels.repeat_interleave(2), NAMES, "train",
        [str(i // 2) for i in range(24)],
    )  # fmt: skip
    alone = replace(twice, groups=None)
    chosen = [LinearProbe().fit(shots).choices["C"] for shots in (twice, alone)]
    assert chosen[0] < chosen[1]
    one_group = replace(twice, groups=["a"] * 24)
    assert "nothing can be held out" in LinearProbe().fit(one_group).choices["chosen on"]


@pytest.mark.parametrize("method", ["linear-probe", "tip-adapter", "wise-ft"])
def test_settings_are_the_best_on_val(method: str) -> None:
    train, val = make_shots(4, noise=0.5), make_shots(12, split="val", seed=2, noise=0.5)
    classifier = fit(method, train, val)
    assert classifier.choices["chosen on"] == "val"
    fixed = {
        "linear-probe": [Given(c) for c in few_shot.probes.STRENGTHS],
        "tip-adapter": [
            TipAdapter(zero_shot(), SCALE, alpha=a * SCALE, beta=b)
            for a in few_shot.methods.ALPHAS[::3] for b in few_shot.methods.BETAS[::4]
        ],
        "wise-ft": [WiseFT(zero_shot(), SCALE, alpha=a) for a in few_shot.probes.WISE_ALPHAS],
    }[method]  # fmt: skip
    assert accuracy(classifier, val) >= max(accuracy(m.fit(train), val) for m in fixed)


def test_val_holds_back_what_learns_from_wrong_labels() -> None:
    train, val = make_shots(4), make_shots(12, split="val", seed=2)
    wrong = replace(train, labels=(train.labels + 1) % 3)
    tip = TipAdapterF(zero_shot(), SCALE, alpha=20.0, beta=5.0)
    assert tip.fit(wrong).choices["epochs"] == 20
    assert tip.fit(wrong, val).choices["epochs"] == 0
    assert TipAdapter(zero_shot(), SCALE).fit(wrong, val).alpha == 0
    assert WiseFT(zero_shot(), SCALE).fit(wrong, val).choices["alpha"] <= 0.1


def test_fine_tuning_the_keys_lowers_the_loss() -> None:
    train = make_shots(5)
    losses = []
    for method in (TipAdapter, TipAdapterF):
        tip = method(zero_shot(), SCALE, alpha=5.0, beta=3.0).fit(train)
        losses.append(float(F.cross_entropy(tip.logits(train.image_emb), train.labels)))
    assert losses[1] < losses[0]


# ---- calibration ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", [ZeroShot, TextProbe, TipAdapter, WiseFT])
def test_a_temperature_calibrates_and_predicts_the_same(method: type) -> None:
    train, val = make_shots(4, noise=0.6), make_shots(30, split="val", seed=2, noise=0.6)
    plain = method(zero_shot(), SCALE).fit(train, val)
    scaled = TemperatureScaling(method(zero_shot(), SCALE)).fit(train, val)
    asked = make_shots(100, seed=12, noise=0.6)
    before, after = plain.scores(asked.image_emb), scaled.scores(asked.image_emb)
    assert torch.equal(before.prediction, after.prediction)
    assert scaled.choices["temperature chosen on"] == "val"
    losses = [float(F.cross_entropy(s.logits, asked.labels)) for s in (before, after)]
    assert losses[1] < losses[0] + 1e-3
    assert scaled.temperature == scaled.choices["temperature"] != 1.0


def test_a_fitted_classifier_is_not_calibrated_on_its_own_shots() -> None:
    with pytest.raises(ValueError, match="expected validation shots"):
        TemperatureScaling(TextProbe(zero_shot(), SCALE)).fit(make_shots())
    scaled = TemperatureScaling(ZeroShot(zero_shot(), SCALE)).fit(make_shots())
    assert scaled.choices["temperature chosen on"] == "train"


# ---- classifiers ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", PLAIN)
def test_same_shots_and_seed_give_the_same_classifier(method: str) -> None:
    train, val = make_shots(), make_shots(split="val", seed=2)
    state = torch.random.get_rng_state()
    one = fit(method, train, val)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    other = fit(method, train, val)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name
    assert one.choices == other.choices


def test_embeddings_of_another_encoder_are_refused() -> None:
    classifier = baseline()
    with pytest.raises(ValueError, match=r"got \(2, 5\); expected a tensor \(N, 8\)"):
        classifier.scores(F.normalize(torch.ones(2, 5), dim=1))
    with pytest.raises(ValueError, match="expected unit rows, all finite"):
        classifier.logits(torch.full((1, 8), math.nan))
    with pytest.raises(ValueError, match="expected unit rows"):
        classifier.logits(torch.ones(1, 8))


def test_scores_have_cosines_only_where_the_classes_are_directions() -> None:
    emb = OTHERS.image_emb
    assert torch.equal(baseline().scores(emb).cosine, emb @ zero_shot().T)
    assert fit("linear-probe", make_shots()).scores(emb).cosine is None
    assert fit("tip-adapter", make_shots()).scores(emb).cosine is None
    assert replace(baseline(), temperature=2.0).scores(emb).logit_scale == SCALE / 2
    assert baseline().scores(torch.zeros(0, 8)).logits.shape == (0, 3)


def test_weights_of_another_shape_are_refused() -> None:
    common = {"class_names": NAMES, "logit_scale": 1.0}
    with pytest.raises(ValueError, match=r"weight: got shape \(2, 8\); expected \(3, 'any'\)"):
        LinearClassifier(**common, weight=torch.ones(2, 8))
    with pytest.raises(ValueError, match=r"bias: got shape \(2,\)"):
        LinearClassifier(**common, weight=torch.ones(3, 8), bias=torch.ones(2))
    with pytest.raises(ValueError, match="weight: has NaN or infinity"):
        LinearClassifier(**common, weight=torch.full((3, 8), math.inf))
    with pytest.raises(ValueError, match=r"keys: got shape \(4, 5\)"):
        CacheClassifier(
            **common, weight=zero_shot(), keys=torch.ones(4, 5), labels=torch.zeros(4).long(),
            alpha=1.0, beta=1.0,
        )  # fmt: skip
