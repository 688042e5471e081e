"""CoOp through real text towers: CLIP's and BERT's, shipped and tiny, ours and official ones."""

from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_checkpoints import (
    HF_KINDS,
    OPEN_CLIP,
    VIT,
    make_hf,
    make_modelscope,
    make_open_clip,
    make_openai,
)
from torch import Tensor, nn

from cliplab.classification import few_shot
from cliplab.classification.few_shot import CoOp, Shots
from cliplab.classification.few_shot.coop import PromptTower
from cliplab.classification.zero_shot import build_classifier
from cliplab.encoders import Encoder, load_encoder
from cliplab.pasture import SPECIES, class_phrase

WORDS = {"pasture": "a photo of a", "pasture-zh": "图中有"}
LANGUAGE = {"pasture": "en", "pasture-zh": "zh"}


encoder = cache(load_encoder)


def names(spec: str) -> list[str]:
    return [class_phrase(species=s, posture="lying", language=LANGUAGE[spec]) for s in SPECIES[:3]]


def shots_near(rows: Tensor, class_names: list[str], *, per_class: int = 3, split: str = "train",
               seed: int = 0) -> Shots:  # fmt: skip
    """Unit rows around `rows` (K, D), which stand in for images."""
    labels = torch.arange(len(rows)).repeat_interleave(per_class)
    noise = torch.randn(len(labels), rows.shape[1], generator=torch.Generator().manual_seed(seed))
    emb = F.normalize(rows[labels] + 0.5 * F.normalize(noise, dim=1), dim=1)
    return Shots(emb, labels, tuple(class_names), split)


def swapped(spec: str) -> Shots:
    """Shots for which the text is wrong: each class's images lie at the next class's text."""
    rows = build_classifier(encoder(spec), names(spec))
    return shots_near(rows.roll(1, 0), names(spec))


def loss(classifier: few_shot.Classifier, shots: Shots) -> float:
    return float(F.cross_entropy(classifier.logits(shots.image_emb), shots.labels))


def spelt(tower: Encoder, words: str, class_names: list[str]) -> Tensor:
    """Rows (K, D) of prompts whose vectors are the embeddings of these words."""
    prompt, name = map(tower.tokenizer.encode, (f"{words} {class_names[0]}", class_names[0]))
    tokens = torch.tensor(prompt[: -len(name)])  # with the space, where that is a token
    prompted = PromptTower(tower, class_names, len(tokens))
    return prompted(prompted.embedding.weight.detach()[tokens].float()).detach()


@pytest.mark.parametrize("spec", WORDS)
def test_vectors_of_words_are_the_zero_shot_classifier(spec: str) -> None:
    """Up to the rounding of float32 sums in another order: 1e-6 in rows of unit length."""
    expected = build_classifier(encoder(spec), names(spec), [WORDS[spec] + " {}"])
    rows = spelt(encoder(spec), WORDS[spec], names(spec))
    torch.testing.assert_close(rows, expected, atol=1e-6, rtol=0)
    bare = build_classifier(encoder(spec), names(spec))
    assert (bare - expected).abs().max() > 1e-3  # the words do matter to this tower


@pytest.mark.parametrize("context", [1, 4])
@pytest.mark.parametrize("spec", WORDS)
def test_steps_lower_the_loss_and_leave_the_tower_as_it_was(spec: str, context: int) -> None:
    before = encoder(spec).encode_text(names(spec))
    train = swapped(spec)
    start, end = (CoOp(encoder(spec), context=context, steps=n).fit(train) for n in (0, 15))
    assert loss(end, train) < loss(start, train) - 0.01
    assert torch.equal(encoder(spec).encode_text(names(spec)), before)
    assert all(p.grad is None for p in encoder(spec).model.parameters())
    layers = [m for m in encoder(spec).model.modules() if isinstance(m, nn.Embedding)]
    assert not any(layer._forward_hooks for layer in layers)


def test_val_keeps_the_best_step() -> None:
    train = swapped("pasture")
    rows = build_classifier(encoder("pasture"), names("pasture"))
    val = shots_near(rows, names("pasture"), split="val", seed=5)  # here the text is right
    method = CoOp(encoder("pasture"), steps=20, learning_rate=0.5)
    kept, last = method.fit(train, val), method.fit(train)
    assert last.choices == {**kept.choices, "steps": 20, "chosen on": "given"}
    assert kept.choices["steps"] in (0, 10)  # steps this long lead away from what val knows
    assert loss(kept, val) < loss(last, val)


def test_same_seed_same_classifier() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (
        CoOp(encoder("pasture"), steps=2, seed=seed).fit(swapped("pasture")) for seed in (0, 0, 1)
    )
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_coop_needs_the_encoder_and_a_classifier_names_it() -> None:
    train, known = swapped("pasture-zh"), encoder("pasture-zh")
    zero_shot = build_classifier(known, names("pasture-zh"))
    given = {"zero_shot": zero_shot, "logit_scale": known.logit_scale}
    with pytest.raises(ValueError, match="CoOp needs the encoder"):
        few_shot.fit("coop", train, **given)
    probe = few_shot.fit("text-probe", train, **given, encoder=known)
    assert probe.encoder == {"name": "pasture-zh", "fingerprint": known.fingerprint}


# ---- other towers --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::cliplab.classification.prompts.UnreadPromptWarning")
@pytest.mark.parametrize("kind", ["openai", "modelscope", "open_clip", *HF_KINDS])
def test_vectors_stand_where_words_would_and_are_learned(kind: str, tmp_path: Path) -> None:
    if kind in ("openai", "modelscope"):
        make = make_openai if kind == "openai" else make_modelscope
        spec = f"{kind}:{make(tmp_path / 'tiny', VIT)}"
    elif kind == "open_clip":
        spec = f"open_clip:tiny-coop/{make_open_clip(tmp_path, 'tiny-coop', OPEN_CLIP)}"
    else:
        spec = f"hf:{make_hf(tmp_path / kind, kind)}"
    tiny, classes = load_encoder(spec, device="cpu"), ["sheep", "goat lying", "grass"]
    train = shots_near(build_classifier(tiny, classes).roll(1, 0), classes)
    expected = build_classifier(tiny, classes, ["photo {}"])
    torch.testing.assert_close(spelt(tiny, "photo", classes), expected, atol=1e-5, rtol=0)
    plain, tuned = (CoOp(tiny, context=2, steps=n, learning_rate=0.05).fit(train) for n in (0, 8))
    assert loss(tuned, train) < loss(plain, train)


def test_what_cannot_be_prompted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    train = swapped("pasture")
    with pytest.raises(ValueError, match=r"got 99 vectors; expected at most .* pasture has left"):
        CoOp(encoder("pasture"), context=99).fit(train)
    monkeypatch.setattr("cliplab.classification.few_shot.coop.EMBEDDING_NAMES", ())
    with pytest.raises(ValueError, match="has no embedding layer among its modules"):
        CoOp(encoder("pasture")).fit(train)
