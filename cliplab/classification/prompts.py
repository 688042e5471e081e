"""Words: class names, templates and labels checked, filled in, and read as the text tower does.

A text tower never refuses a language it does not know: it answers, and the answer is noise. What
betrays it are the tokens, so they are counted here before anybody believes the scores. Nothing
here needs torch before a text is read.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cliplab.runtime import ArgumentError, data_dir, nearest, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from cliplab.models.tokenizers import Tokenizer

# A text with a smaller share of read tokens is called unread. With OpenAI's byte pairs the sheep of
# scripts it never learnt have shares from 0 (Chinese, Greek, Thai) to 0.6 (Arabic, letter by
# letter), Polish and Vietnamese about 0.4; German with its umlauts has 0.7 and French 1.
READABLE = 2 / 3

# What annotators call that which is nothing.
_NOTHING = ("background", "backgrounds", "__background__", "nothing", "背景")


class UnreadPromptWarning(UserWarning):
    """The text tower cannot read a prompt, or cannot tell two of them apart."""


def is_nothing(name: str) -> bool:
    """Whether a name is one that annotators give to what is nothing, such as background."""
    return fold(name) in {fold(word) for word in _NOTHING}


def is_chinese(text: str) -> bool:
    """Whether there is a Chinese character in it."""
    from cliplab.models.tokenizers import is_cjk

    return any(map(is_cjk, text))


def fill_templates(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """K class names x T templates -> K * T prompts, class-major; other braces are plain text."""
    return [template.replace("{}", name) for name in names for template in templates]


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """The names without outer white space; ValueError unless at least two differ, whatever case."""
    if isinstance(class_names, str):
        what = f"got the text {class_names!r}; expected a list, such as ['sheep', 'goat']"
        raise ArgumentError("class_names", what)
    names = [str(name).strip() for name in class_names]
    if len(names) == 1 and names[0]:
        what = f"got only {names[0]!r}, which would always get 100 %; expected two or more"
        raise ArgumentError("class_names", what)
    if not names or not all(names):
        what = f"got {names or 'none'}; expected texts to choose between"
        raise ArgumentError("class_names", what)
    # Both tokenizers lower-case: "Sheep" and "sheep" would be the same row twice.
    counts = Counter(name.casefold() for name in names)
    if repeated := sorted({name for name in names if counts[name.casefold()] > 1}):
        what = "repeated; expected each once, since duplicates share their probability"
        raise ArgumentError("class_names", f"{', '.join(map(repr, repeated))} {what}")
    return names


def check_templates(templates: Sequence[str]) -> list[str]:
    """The templates as a list; ValueError unless each has {} where the class name goes."""
    if isinstance(templates, str) or not templates:
        raise ArgumentError("templates", f"got {templates!r}; expected a list, such as ['{{}}']")
    for template in templates:
        if "{}" not in template:
            raise ArgumentError(
                "templates",
                f"template {template!r} has no {{}}, so every class would get the same prompt; "
                "write {} where the class name goes, as in 'a photo of a {}.'",
            )
    return list(templates)


def templates(name: str, language: str) -> tuple[str, ...]:
    """The templates of `data/prompts/<name>.json` in one language; its provenance is in the file.

    Raises:
        FileNotFoundError: no such set.
        ValueError: the set has no such language.
    """
    languages = json.loads((data_dir() / "prompts" / f"{name}.json").read_text("utf-8"))
    del languages["provenance"]
    if language not in languages:
        raise ValueError(f"{name}: {unknown_name('language', language, languages)}")
    return tuple(languages[language]["templates"])


# ---- what the text tower reads -----------------------------------------------------------------


@dataclass(frozen=True)
class PromptReader:
    """A tokenizer, and the tokens that its text tower never met in training."""

    tokenizer: Tokenizer
    untrained: frozenset[int] = frozenset()

    @classmethod
    def of(cls, reader: Any) -> PromptReader:
        """The reader of an encoder, or of a tokenizer alone.

        Training without weight decay on rare rows leaves no trace in real checkpoints, but the
        shipped ones hold zeros for all tokens that no caption had, so there it can be told.
        """
        from cliplab.models.tokenizers import Tokenizer

        if isinstance(reader, Tokenizer):
            return cls(reader)
        rows = getattr(getattr(reader, "model", None), "token_embedding", None)
        weight = getattr(rows, "weight", None)  # (V, width)
        if weight is None:
            return cls(reader.tokenizer)
        return cls(reader.tokenizer, frozenset((weight == 0).all(dim=1).nonzero()[:, 0].tolist()))

    def ids(self, text: str) -> tuple[int, ...]:
        """Tokens as the tower can tell them apart: -1 for all that it never met."""
        return tuple(-1 if i in self.untrained else i for i in self.tokenizer.encode(text))

    def coverage(self, text: str) -> float:
        """Share of the tokens that are pieces of writing, and met in training as far as known."""
        if not self.untrained:
            return self.tokenizer.coverage(text)
        pairs = zip(self.tokenizer.pieces(text), self.ids(text), strict=True)
        read = [self.tokenizer.is_read(piece) and token >= 0 for piece, token in pairs]
        return sum(read) / len(read) if read else 1.0


def token_coverage(reader: Any, texts: Sequence[str]) -> pd.DataFrame:
    """How much of each text an encoder or a tokenizer reads, one row per text.

    Returns:
        Indexed by prompt: coverage, the share of the tokens that the tower reads, 0 to 1; pieces,
        the tokens as they can be shown, without start and end.
    """
    import pandas as pd

    reader = PromptReader.of(reader)
    pieces = [" ".join(reader.tokenizer.pieces(text)) for text in texts]
    columns = {"coverage": [reader.coverage(text) for text in texts], "pieces": pieces}
    return pd.DataFrame(columns, index=pd.Index(texts, name="prompt"))


def complain_of_unread(
    encoder: Any, names: Sequence[str], templates: Sequence[str] = ("{}",)
) -> list[str]:
    """What the text tower of an encoder cannot read in names x templates, and the remedy; or [].

    Names and templates are looked at apart, since an English template around a Chinese name hides
    it from any mean; the prompts made of them are not all visited, so 80 templates cost nothing.
    """
    if getattr(encoder, "tokenizer", None) is None:
        return []  # nothing to look at
    reader = PromptReader.of(encoder)
    template = min(templates, key=lambda text: reader.coverage(text.replace("{}", "")))
    texts = [text for name in names for text in (name, template.replace("{}", name))]
    part = min(texts, key=reader.coverage)
    if (share := reader.coverage(part)) < READABLE:
        worst, tokens = names[texts.index(part) // 2], len(reader.ids(part))
        prompt = template.replace("{}", worst)
        where = f"{tokens} token{'s' * (tokens > 1)}"
        where = f"its {where}" if part == prompt else f"the {where} of {part!r}"
        unread = reader.tokenizer.coverage(part) < READABLE
        rest = "are bytes or [UNK]" if unread else "were in no caption it was trained on"
        others = [repr(one) for one in names if one != worst and reader.coverage(one) < READABLE]
        more = f" (nor {', '.join(others[:6])})" if others else ""
        return [
            f"{encoder.name} cannot read the prompt {prompt!r}{more}: it knows {share:.0%} of "
            f"{where}, the rest {rest}, and its scores will be close to noise; "
            f"{_remedy(encoder, part)}"
        ]
    first: dict[tuple[int, ...], str] = {}
    for prompt in (templates[0].replace("{}", name) for name in names):
        other = first.setdefault(reader.ids(prompt), prompt)
        if other != prompt:  # their scores would be equal
            pieces = " ".join(reader.tokenizer.pieces(prompt))
            return [
                f"{encoder.name} cannot tell {other!r} and {prompt!r} apart: both are {pieces!r} "
                f"to it; {_remedy(encoder, prompt)}"
            ]
    return []


_READERS = {  # language of a text -> what to call it, and encoders that read it
    "zh": ("Chinese", "pasture-zh", "modelscope: (Chinese-CLIP)", "hf: with SigLIP 2"),
    "en": ("English", "pasture", "openai:ViT-B/32", "hf: with SigLIP 2"),
    "": ("many languages", "hf: with SigLIP 2", "open_clip: with an XLM-R text tower"),
}


def _remedy(encoder: Any, text: str) -> str:
    """What to do about a text that an encoder cannot read, as far as its letters tell."""
    language = "zh" if is_chinese(text) else "en" if text.isascii() else ""
    own = " or ".join(_READERS.get(code, (code,))[0] for code in encoder.languages)
    words = "use words it knows" if language in encoder.languages else f"write prompts in {own}"
    kind, *others = _READERS[language]
    known = ", ".join(other for other in others if other != encoder.name)
    return f"{words}, or use an encoder of {kind}: {known} (`token_coverage` shows the pieces)"


# ---- labels as people give them: `lying`, or `lying="a sheep lying down"` ------------------------

_COMMAS = re.compile(r"\s*[,，、;；]\s*")
_EQUALS = re.compile("[=＝]")
_LETTER = r"[^\W\u3040-\u9fff]"  # or digit, and not of a script without spaces
_DENIED = re.compile(r"(\b(no|not|never|without)( an?| the)? |[不没无未非](有|是|在)?)$")


@dataclass(frozen=True)
class Classes:
    """K classes to choose between."""

    names: tuple[str, ...]  # K, as reports show them
    prompts: tuple[str, ...]  # K, as templates take them
    note: str = ""  # what was assumed, for the user to check


def split_labels(texts: Sequence[str]) -> list[str]:
    """Labels given one by one, or a single text divided at its commas, Western or Chinese.

    Of several texts none is divided, since prompts may hold commas, unless one begins or ends with
    a comma: then all are parts of one list. A text with = (or ＝) is divided only where every part
    has one.
    """
    one_list = len(texts) == 1 or any(not all(_COMMAS.split(t.strip())) for t in texts if t.strip())
    labels: list[str] = []
    for text in texts:
        parts = [part for part in _COMMAS.split(text.strip()) if part]
        whole = _EQUALS.search(text) and not all(map(_EQUALS.search, parts))
        labels += parts if one_list and not whole else [text.strip()]
    return labels


def resolve_classes(given: Sequence[str] | None, class_names: Sequence[str]) -> Classes:
    """The classes that are meant, in the order given; without `given` those of the source.

    Labels are matched to the class names of a labelled source, whatever case and order: a label is
    a class name, or a prompt with one class name in it, as "a sheep lying down" has lying. More
    labels than classes are welcome ("something else"). A source without labels has no class names.

    Raises:
        ValueError: no labels, labels that fit no class, or fewer of them than classes.
    """
    if given is None and not class_names:
        raise ValueError(
            "no labels: the source has no classes of its own (sub-folders, a label column or "
            'categories); expected some, as "a sheep standing" "a sheep lying"'
        )
    classes = typed_classes(given, class_names)
    check_class_names(classes.names)
    check_class_names(classes.prompts)
    return classes if given is None or not class_names else _matched(classes, class_names)


def typed_classes(given: Sequence[str] | None, class_names: Sequence[str] = ()) -> Classes:
    """The classes as they were typed, unchecked; without `given` those of the source."""
    if given is None:
        pairs = [(name, name.replace("_", " ")) for name in class_names]
    else:
        pairs = [name_and_prompt(label) for label in split_labels(given)]
    return Classes(tuple(name for name, _ in pairs), tuple(prompt for _, prompt in pairs))


def name_and_prompt(label: str) -> tuple[str, str]:
    """Name and prompt of "name=prompt", or of a label that is both."""
    if not _EQUALS.search(label):
        return label, label
    name, prompt = (part.strip() for part in _EQUALS.split(label, maxsplit=1))
    if not (name and prompt):
        raise ValueError(
            f"label {label!r}: expected CLASS=PROMPT with text on both sides, such as "
            'lying="a sheep lying down"'
        )
    return name, prompt


def _matched(classes: Classes, class_names: Sequence[str]) -> Classes:
    """`classes` under the names of the source: each is a name, or a prompt with a name in it."""
    source = {fold(name): name for name in class_names}
    names = [source.get(fold(name), name) for name in classes.names]
    missing = [name for name in class_names if name not in names]
    bare = [prompt for prompt in classes.prompts if prompt in names] if missing else []
    held = {prompt: _names_in(prompt, class_names) for prompt in bare}
    paired = {
        held_by[0]: name
        for name in missing
        if len(held_by := [prompt for prompt in bare if held[prompt] == {name}]) == 1
    }
    if left := [name for name in missing if name not in paired.values()]:
        raise ValueError(_misfit(classes, class_names, left))
    note = ", ".join(f"{name} = {prompt}" for prompt, name in paired.items())
    note = note and f"labels paired with the classes that they name: {note}"
    return Classes(tuple(paired.get(name, name) for name in names), classes.prompts, note)


def _names_in(prompt: str, class_names: Sequence[str]) -> set[str]:
    """Class names that stand in a prompt as words, not denied; "lying down" goes before "lying"."""
    text = _plain_words(prompt)
    by_word = {word: name for name in class_names if (word := _plain_words(name))}
    words = "|".join(
        # Chinese has no spaces: only other letters and digits can be the rest of a longer word.
        f"{f'(?<!{_LETTER})' * bool(re.match(_LETTER, word))}{re.escape(word)}"
        f"{f'(?!{_LETTER})' * bool(re.match(_LETTER, word[-1]))}"
        for word in sorted(by_word, key=len, reverse=True)
    )
    found = re.finditer(words, text)
    return {by_word[one[0]] for one in found if not _DENIED.search(text[: one.start()])}


def _plain_words(text: str) -> str:
    return " ".join(fold(text).replace("-", " ").split())


def _misfit(classes: Classes, class_names: Sequence[str], missing: Sequence[str]) -> str:
    """Why labels cannot be paired with the classes of a source."""
    from cliplab.data import some

    others = [name for name in classes.names if fold(name) not in map(fold, class_names)]
    if close := nearest(missing[0], others, 1, cutoff=0.75):
        what = f"{close[0]!r} is no class; did you mean {missing[0]!r}"
    else:
        what = f"none of the labels is {missing[0]!r}, or names that class and no other"
    return (
        f"{len(classes.names)} labels for {len(class_names)} classes ({some(class_names, 8)}): "
        f'{what}; expected one for each class, as in {missing[0]}="what it looks like"; or take '
        "the source as `unlabelled`, if these are no classes"
    )


def fold(name: str) -> str:
    """`name` as it is compared: whatever case, width, composition of accents, _ or space."""
    return unicodedata.normalize("NFKC", name).casefold().replace("_", " ").strip()
