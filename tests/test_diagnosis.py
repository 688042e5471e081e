"""Diagnosis: each cause of a bad answer is found when it is there, and not when it is not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab import pasture
from cliplab.classification import diagnosis, zero_shot
from cliplab.classification.diagnosis import (
    diagnose,
    permuted_label_control,
    prompt_sensitivity,
)
from cliplab.encoders import Encoder, load_encoder
from cliplab.pasture import POSTURES, class_phrase

CHINESE = ["站着的羊", "吃饭的羊", "躺着的羊", "喝水的羊"]  # as the seed notes ask
ENGLISH = [class_phrase(species="sheep", posture=p) for p in POSTURES]
TEMPLATES = zero_shot.templates("pasture", "en")


@pytest.fixture(scope="module")
def english() -> Encoder:
    return load_encoder("pasture", device="cpu")


@pytest.fixture(scope="module")
def flock(english: Encoder) -> tuple[Tensor, Tensor]:
    """Embeddings of 48 sheep in four postures, and the true postures."""
    pictures, true = [], []
    for k, posture in enumerate(POSTURES):
        combos = [c for c in pasture.COMBOS if (c.species, c.posture) == ("sheep", posture)]
        scenes = pasture.scenes("portrait", "test", 720_000 + 100 * k, 12, combos=combos)
        pictures += [pasture.draw(scene, 64) for scene in scenes]
        true += [k] * 12
    return english.encode_image(pictures), torch.tensor(true)


def test_the_notes_answer_was_nearly_flat() -> None:
    printed = torch.tensor([[0.3131486, 0.3174914, 0.08763372, 0.28172636]])
    scores = zero_shot.Scores.from_probability(CHINESE, printed, logit_scale=100)
    # 0.01287 and 93.64 %: what the printed digits give; often quoted as 0.0128 and 93.7 %
    assert float(scores.gap[0]) == pytest.approx(0.01287, abs=5e-6)
    assert float(scores.relative_entropy[0]) == pytest.approx(0.9364, abs=5e-5)


# ---- shuffled labels --------------------------------------------------------------------------


def test_a_good_answer_beats_every_shuffle_and_one_for_all_none() -> None:
    true = np.tile([0, 1, 2, 3], 10)
    control = permuted_label_control(true, true, permutations=200)
    assert control.p_value == pytest.approx(1 / 201)
    assert control.observed.value == 1
    assert control.chance_low <= control.chance_mean <= control.chance_high < 0.6
    assert control.chance_mean == pytest.approx(0.25, abs=0.03)
    assert permuted_label_control(true, true, permutations=200, seed=1) != control
    control = permuted_label_control(np.zeros(40, dtype=int), np.array([0] * 30 + [1] * 10))
    assert control.observed.value == control.chance_mean == 0.75  # sounds well
    assert control.p_value == control.one_answer == 1


def test_p_values_of_guessing_are_even() -> None:
    """A test at 5 % must raise a false alarm about once in twenty."""
    rng = np.random.default_rng(5)
    alarms = [
        permuted_label_control(
            rng.integers(0, 4, 40), rng.integers(0, 4, 40), permutations=99, seed=i
        ).p_value
        <= 0.05
        for i in range(300)
    ]
    assert np.mean(alarms) < 0.09


# ---- wording ----------------------------------------------------------------------------------


def test_sensitivity_counts_what_each_template_says(
    english: Encoder, flock: tuple[Tensor, Tensor]
) -> None:
    emb, true = flock
    found = prompt_sensitivity(english, emb, ENGLISH, TEMPLATES, true)
    for t, template in enumerate(TEMPLATES):
        weights = zero_shot.build_classifier(english, ENGLISH, [template])
        np.testing.assert_array_equal(found.prediction[t], (emb @ weights.T).argmax(1).numpy())
    together = (emb @ zero_shot.build_classifier(english, ENGLISH, TEMPLATES).T).argmax(1)
    np.testing.assert_array_equal(found.together, together.numpy())
    assert found.table()["accuracy"].min() > 0.9


def test_flips_are_pictures_on_which_two_templates_differ() -> None:
    prediction = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1]])
    found = diagnosis.Sensitivity(("a", "b", "c"), prediction, prediction[0], None)
    assert found.flip_rate == 0.5
    assert found.table()["agreement"].tolist() == [1, 0.75, 0.75]
    assert "accuracy" not in found.table()


# ---- the ladder -------------------------------------------------------------------------------


def test_nothing_is_said_where_nothing_is_wrong_and_language_first(
    english: Encoder, flock: tuple[Tensor, Tensor]
) -> None:
    emb, true = flock
    found = diagnose(english, emb, ENGLISH, TEMPLATES, true)
    assert found.remarks == ()
    assert found.control.p_value < 0.01
    assert diagnose(english, emb, ENGLISH, TEMPLATES).control is None
    remarks = diagnose(english, emb, CHINESE, true=true).remarks
    assert "cannot read" in remarks[0]
    assert "pasture-zh" in remarks[0]  # the remedy
    assert any("nearly flat" in r and "mend the language first" in r for r in remarks)


def test_a_class_that_is_called_another_is_named(english: Encoder) -> None:
    combos = [c for c in pasture.PAIR_COMBOS if c.species == "sheep"]
    scenes = pasture.scenes("portrait", "test", 730_000, 16, combos=combos)
    emb = english.encode_image([pasture.draw(scene, 64) for scene in scenes])
    names = [class_phrase(species=s, posture="lying") for s in pasture.SPECIES]
    truth = torch.zeros(16, dtype=torch.long)
    found = diagnose(english, emb, names, TEMPLATES, truth)
    said = " ".join(found.remarks)
    assert "'sheep lying down' is mostly called 'cow lying down'" in said
    assert "a few labelled examples" in said  # the next rung
    assert "another wording (accuracy between" in said
    short = list(pasture.SPECIES)  # as the answers are called, whatever stands in the prompts
    named = diagnose(english, emb, short, TEMPLATES, truth, texts=names)
    assert torch.equal(named.scores.prediction, found.scores.prediction)
    assert "'sheep' is mostly called 'cow'" in " ".join(named.remarks)


def test_luck_swaps_and_too_much_confidence_are_told_apart(
    english: Encoder, flock: tuple[Tensor, Tensor]
) -> None:
    emb, true = flock
    shuffled = true[torch.randperm(len(true), generator=torch.Generator().manual_seed(0))]
    half = torch.where(torch.arange(len(true)) % 2 == 0, true, (true + 1) % 4)  # half are wrong
    luck, low = "shuffled labels give as well", "far below what shuffled labels give"
    for truth, said, unsaid in (
        (shuffled, luck, low),
        ((true + 1) % 4, low, luck),
        (half, "it is too sure: it claims to be right in", luck),
    ):
        remarks = " ".join(diagnose(english, emb, ENGLISH, TEMPLATES, truth).remarks)
        assert said in remarks
        assert unsaid not in remarks
    one = diagnose(english, emb[:1], ENGLISH[:2], TEMPLATES, true[:1])
    assert one.control.p_value == 1
    assert any("too few of them to tell" in remark for remark in one.remarks)
    with pytest.raises(ValueError, match="true: expected class indices from 0 to 3"):
        diagnose(english, emb, ENGLISH, true=true + 1)


def test_flat_answers_to_readable_words_ask_for_description(english: Encoder) -> None:
    rows = zero_shot.build_classifier(english, ENGLISH)  # (4, D)
    noise = torch.randn(20, 128, generator=torch.Generator().manual_seed(0))
    outside = noise - noise @ torch.linalg.pinv(rows) @ rows  # at right angles to every class
    (remark,) = diagnose(english, F.normalize(outside, dim=1), ENGLISH).remarks
    assert "nearly flat" in remark
    assert "describe what is to be seen" in remark
