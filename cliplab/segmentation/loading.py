"""A GroupViT in files: where they are, what its card says of it, and which words it can read.

A text tower never refuses a word that it does not know; its scores are noise then. So what it
cannot read, or cannot tell apart, is told before anybody believes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliplab.classification import READABLE, PromptReader, fold, is_chinese
from cliplab.models.groupvit import load_groupvit
from cliplab.models.groupvit.model import WEIGHTS, weights_in
from cliplab.pasture import NOUNS, SPECIES, class_of
from cliplab.runtime import checkpoint_dir, is_offline, read_card, unknown_name, verify_checkpoint
from cliplab.segmentation.segmenter import GroupViTSegmenter
from cliplab.segmentation.settings import BACKGROUND_WORDS, Vocabulary, language_of

# One template for each language that a model with word pieces of its own was trained in.
_TEMPLATES = {"en": ("a photo of a {}.",), "zh": ("一张{}的照片",)}
SHIPPED = "pasture"  # the name of the model that comes with the package
_STEM = "groupvit"  # another, as `train` and its folder call it
_PHOTOGRAPHS = "hf:nvidia/groupvit-gcc-yfcc"
_CONFIG, _EXTRA = "config.json", "preprocessor_config.json"
_TUNED = ("top_words", "templates", "hard", "scales", "flip", "refine", "offsets")  # by a card
WEAK = 0.5  # the IoU of a class below which users are warned of it


# ---- what a model can read -----------------------------------------------------------------


def usual_background(
    segmenter: GroupViTSegmenter, labels: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Words for the background that the model reads, and that mean no label.

    The list of the papers; for models with word pieces of their own, which are of the pasture, also
    its landscape, in the language of the labels. A meadow in the background would take the pixels
    of the label grass, so every word for what a label means is left out.
    """
    given = [word for name, words in labels.items() for word in (name, *words)]
    language = language_of([word for words in labels.values() for word in words])
    taken = set(map(fold, given))
    meant = {class_of(word) for word in taken} - {None}
    landscape = [noun for noun in NOUNS[language] if class_of(noun) not in SPECIES]
    every = [*(landscape if segmenter.model.vocab else ())]
    every += BACKGROUND_WORDS if language == "en" else ()
    free = [w for w in dict.fromkeys(every) if fold(w) not in taken and class_of(w) not in meant]
    reader = reader_of(segmenter)
    return tuple(word for word in free if _is_read(reader, word))


def own_templates(
    segmenter: GroupViTSegmenter, words: Sequence[str], *, best: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The template that the model learned with, in the language of the words; bare if they mix.

    `best`: those that its card says were best on val, for words of one language.
    """
    if not segmenter.model.vocab:
        return _TEMPLATES["en"]
    if len({is_chinese(word) for word in words}) > 1:
        return ("{}",)
    wanted = tuple(best or _TEMPLATES[language_of(words)])
    reader = reader_of(segmenter)
    return wanted if all(_is_read(reader, text.replace("{}", "")) for text in wanted) else ("{}",)


def unread_remarks(segmenter: GroupViTSegmenter, vocabulary: Vocabulary) -> Iterator[str]:
    """What the text tower cannot read, and the remedy."""
    reader = reader_of(segmenter)
    unread = [word for word in vocabulary.words if not _is_read(reader, word)]
    if unread:
        remedy, share = "use words that were in its captions", reader.coverage(unread[0])
        if is_chinese(unread[0]) and not segmenter.model.vocab:
            remedy = "give the label English words, or use a model that reads Chinese: pasture"
        more = f" (nor {len(unread) - 1} more)" if len(unread) > 1 else ""
        yield (
            f"{segmenter.name} cannot read {unread[0]!r}{more}: it knows {share:.0%} of it, and "
            f"its scores will be close to noise; {remedy}"
        )


def reader_of(segmenter: GroupViTSegmenter) -> PromptReader:
    """The tokenizer with the tokens that training never met, whose rows are zeros."""
    rows = segmenter.model.text_encoder.token_embedding.weight  # (V, width)
    untrained = (rows == 0).all(dim=1).nonzero()[:, 0].tolist()
    return PromptReader(segmenter.tokenizer, frozenset(untrained))


def _is_read(reader: PromptReader, text: str) -> bool:
    return reader.coverage(text) >= READABLE


# ---- files ---------------------------------------------------------------------------------


def load_segmenter(
    spec: str = SHIPPED, *, device: str = "auto", offline: bool | None = None
) -> GroupViTSegmenter:
    """The segmenter called `spec`.

    Args:
        spec: "pasture" or "groupvit", the shipped model; a file or folder, see `load_groupvit`; or
            "hf:<repo>[@revision]", such as "hf:nvidia/groupvit-gcc-yfcc", from this machine's
            cache if it is there, else downloaded.
        device: "auto", "cpu", "cuda" or "mps".
        offline: True forbids downloads; None asks $CLIPLAB_OFFLINE and the hub's own variables.

    Raises:
        FileNotFoundError: nothing there, and not to be downloaded; it says what to do.
        ValueError: not a GroupViT, with the missing and unexpected names; or a damaged file.
    """
    path = find_checkpoint(spec, offline=offline)
    return GroupViTSegmenter(load_groupvit(path), device=device, name=spec, path=path)


def find_checkpoint(spec: str = SHIPPED, *, offline: bool | None = None) -> Path:
    """The file of the weights, or the folder that holds them; specs, errors of `load_segmenter`."""
    prefix, colon, where = spec.partition(":")
    if prefix == "hf" and colon:
        from cliplab.encoders import find_folder

        how: dict[str, Any] = {"missing": _lacking, "choose": _wanted}
        return find_folder(where, _PHOTOGRAPHS[3:], **how, offline=is_offline(offline))[0]
    shipped = spec in (SHIPPED, _STEM)
    path = checkpoint_dir(_STEM) if shipped else Path(spec).expanduser()
    weights = weights_in(path)
    if shipped and not weights.is_file():
        raise FileNotFoundError(
            f"{weights.as_posix()}: there is no shipped segmenter; make it with "
            "`python -m cliplab train groupvit`, or restore data/checkpoints/groupvit"
        )
    if not path.exists():
        known = unknown_name("model", spec, [SHIPPED, _STEM, _PHOTOGRAPHS])
        raise FileNotFoundError(f"{known}, or the path of a GroupViT")
    verify_checkpoint(weights.parent, [weights.name])
    return path


def said_of(path: Path | None, language: str) -> dict[str, Any]:
    """What a card says of a reading that gives up no class: "reading", "iou" and more; or {}."""
    card = read_card(weights_in(path).parent) if path else {}
    return dict(card.get("metrics", {}).get(language, {}).get("balanced", {}))


def tuned_settings(path: Path | None, language: str) -> dict[str, Any]:
    """How a model is best read, some fields of `Settings`; see `said_of`."""
    chosen = said_of(path, language).get("reading", {})
    return {name: chosen[name] for name in _TUNED if name in chosen}


def weak_remarks(segmenter: GroupViTSegmenter, vocabulary: Vocabulary) -> Iterator[str]:
    """The labels whose class the model's card calls weak; none if there is no card."""
    pairs = zip(vocabulary.words, vocabulary.label_of, strict=True)
    words = [word for word, k in pairs if k >= vocabulary.has_background]
    ious = said_of(segmenter.path, language_of(words)).get("iou", {})
    weak = {word: ious[name] for word in words if ious.get(name := class_of(word) or "", 1) < WEAK}
    if weak:
        told = ", ".join(f"{word} {iou:.2f}" for word, iou in weak.items())
        yield (
            f"{segmenter.name} is weak in some of the labels (IoU in its card: {told}); look at "
            "their pixels before you count them"
        )


def _lacking(folder: Path) -> list[str]:
    kinds = ((_CONFIG,), WEIGHTS)
    return [" or ".join(k) for k in kinds if not any((folder / name).is_file() for name in k)]


def _wanted(names: list[str]) -> list[str]:  # not the same weights once more
    weights = [name for name in WEIGHTS if name in names][:1]
    return [name for name in names if name in (_CONFIG, _EXTRA)] + weights
