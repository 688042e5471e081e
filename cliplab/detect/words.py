"""What is looked for: the labels of the command line, or the classes that the boxes have."""

from collections.abc import Sequence

from cliplab.classify.labels import Classes, _pair, fold, resolve_classes, split_labels

# What annotators call that which is nothing; to a detector with a learned background it is a word.
_NOTHING = ("background", "backgrounds", "__background__", "nothing", "背景")


def read_words(given: Sequence[str] | None, class_names: Sequence[str]) -> Classes:
    """The classes to look for, in the order given; without `given` those of the source's boxes.

    Args:
        given: texts of --labels; None if there were none. A single one is fine here: a detector
            may find nothing, where a classifier has to choose.
        class_names: of the boxes of the source; empty if there are none.

    Raises:
        ValueError: no labels at all, one twice, or a class without its prompt.
    """
    if given is None and not class_names:
        raise ValueError(
            "no labels: the source has no boxes with classes; give --labels, such as "
            '--labels "sheep lying down" "sheep standing" goat'
        )
    texts = split_labels(given) if given is not None else list(class_names)
    if len(texts) != 1:
        return resolve_classes(given, () if given is not None else class_names)
    name, prompt = _pair(texts[0]) if given is not None else (texts[0], texts[0].replace("_", " "))
    return Classes((name,), (prompt,))


def match(classes: Classes, class_names: Sequence[str]) -> dict[str, int]:
    """Class name of a source -> the label that means it, by name or else by prompt."""
    index = {fold(prompt): k for k, prompt in enumerate(classes.prompts)}
    index |= {fold(name): k for k, name in enumerate(classes.names)}
    return {name: index[fold(name)] for name in class_names if fold(name) in index}


def background_note(classes: Classes) -> str:
    """A remark if a label is a word for nothing; "" if none is."""
    words = {fold(word) for word in _NOTHING}
    for name, prompt in zip(classes.names, classes.prompts, strict=True):
        if {fold(name), fold(prompt)} & words:
            return (
                f"{name!r} is a class like the others here, found by its text: a detector's own "
                "background has no word, it was learned, and regions of nothing are dropped "
                "without being asked for; leave the label out unless you want boxes called so"
            )
    return ""
