"""Labels as people give them: what is shown, what the text tower reads, and which class is meant.

`lying` is a label and its own prompt; `lying="a sheep lying down"` is a label with a prompt.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cliplab.classification.prompts import check_class_names
from cliplab.runtime import nearest

_COMMAS = re.compile(r"\s*[,，、]\s*")
_EQUALS = re.compile("[=＝]")
_SHOWN = 8  # class names quoted in an error


@dataclass(frozen=True)
class Classes:
    """K classes to choose between."""

    names: tuple[str, ...]  # K, as reports show them
    prompts: tuple[str, ...]  # K, as templates take them
    note: str = ""  # what was assumed, for the user to check


def split_labels(texts: Sequence[str]) -> list[str]:
    """Labels given one by one, or in one text with commas, Western or Chinese.

    A text with = is divided only where every part has one, so that prompts may hold commas. The
    full-width ＝ is the same.
    """
    labels: list[str] = []
    for text in texts:
        parts = [part for part in _COMMAS.split(text.strip()) if part]
        whole = _EQUALS.search(text) and not all(map(_EQUALS.search, parts))
        labels += [text.strip()] if whole else parts
    return labels


def resolve_classes(given: Sequence[str] | None, class_names: Sequence[str]) -> Classes:
    """The classes that are meant, in the order given; without `given` those of the source.

    Labels are matched to the class names of a labelled source by name, whatever case; more labels
    than classes are welcome then ("something else"). Labels none of which is a class name are its
    prompts in the order of the class names, if there are as many.

    Args:
        given: labels; None if there were none.
        class_names: of the source; empty if it is not labelled.

    Raises:
        ValueError: no labels, labels that fit no class, or fewer of them than classes.
    """
    if given is None:
        if not class_names:
            raise ValueError(
                "no labels: the source has no classes of its own (sub-folders, a label column or "
                'categories); expected some, as "a sheep standing" "a sheep lying"'
            )
        names = tuple(class_names)
        return _checked(Classes(names, tuple(name.replace("_", " ") for name in names)))
    pairs = [name_and_prompt(label) for label in split_labels(given)]
    classes = _checked(Classes(tuple(n for n, _ in pairs), tuple(p for _, p in pairs)))
    return _matched(classes, class_names) if class_names else classes


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


def _checked(classes: Classes) -> Classes:
    check_class_names(classes.names)
    check_class_names(classes.prompts)
    return classes


def _matched(classes: Classes, class_names: Sequence[str]) -> Classes:
    """`classes` under the names of the source, by name or else by place."""
    source = {fold(name): name for name in class_names}
    folded = [fold(name) for name in classes.names]
    missing = [name for key, name in source.items() if key not in folded]
    if not missing:
        named = zip(folded, classes.names, strict=True)
        return Classes(tuple(source.get(key, name) for key, name in named), classes.prompts)
    bare = classes.names == classes.prompts
    if bare and len(missing) == len(source) == len(classes.names):
        pairs = zip(class_names, classes.prompts, strict=True)
        note = "labels taken in the order of the classes: "
        note += ", ".join(f"{name} = {prompt}" for name, prompt in pairs)
        return Classes(tuple(class_names), classes.prompts, note)
    raise ValueError(_misfit(classes, class_names, missing))


def _misfit(classes: Classes, class_names: Sequence[str], missing: Sequence[str]) -> str:
    n, m = len(classes.names), len(class_names)
    what = f"{n} labels but {m} class{'es' if m > 1 else ''} ({_listed(class_names)})"
    if n == m:
        what = f"the {n} labels do not fit the classes ({_listed(class_names)})"
    if n == m or len(missing) < m:
        close = nearest(missing[0], classes.names, n=1)
        what += f": none of the labels is {missing[0]!r}"
        what += f", did you mean {close[0]!r}" if close else ""
    return (
        f'{what}; expected one for each class, as in {missing[0]}="what it looks like"; or read '
        "the source as unlabelled, if these are no classes"
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", and {more} more" if more > 0 else "")


def fold(name: str) -> str:
    """`name` as it is compared: whatever case, width, composition of accents, _ or space."""
    return unicodedata.normalize("NFKC", name).casefold().replace("_", " ").strip()
