"""What is said about the landscape of a scene, in English and Chinese, and the nouns of a caption.

`captions.caption` is about animals: it never names hills and seldom the sky. `stuff_caption` is
about what is behind and around them. Both are made of the scene's description, never of its pixels.
"""

import re
from functools import cache

from cliplab.pasture.captions import LANGUAGES, caption, listed, said_in
from cliplab.pasture.drawing import SEMANTIC_CLASSES
from cliplab.pasture.scene import Dice, Scene

# What a scene has -> how it is said. Only names: what it is like is said by `caption`.
_WORDS = {
    "en": {
        "grass": ("grass", "a meadow", "a green field"),
        "snow": ("snow",),
        "sky": ("the sky", "sky"),
        "hill": ("hills", "a hill"),
        "tree": ("a tree",),
        "pine": ("a pine tree", "a tree"),
        "barn": ("a barn", "a red barn"),
        "fence": ("a fence",),
        "trough": ("a trough",),
        "pond": ("a pond", "water"),
        "hay": ("hay", "a hay bale"),
    },
    "zh": {
        "grass": ("草地", "田野"),
        "snow": ("雪地", "雪"),
        "sky": ("天空",),
        "hill": ("山丘", "小山"),
        "tree": ("大树", "树"),
        "pine": ("松树", "树"),
        "barn": ("谷仓",),
        "fence": ("栅栏",),
        "trough": ("水槽",),
        "pond": ("池塘", "水面"),
        "hay": ("干草", "干草垛"),
    },
}
_FRAME = {
    "en": ("{}", "a view of {}", "a landscape with {}", "a photo of {}", "there is {}"),
    "zh": ("{}", "有{}的风景", "一张{}的照片", "图中有{}", "照片里有{}"),
}
_ARTICLE = re.compile(r"^(?:an?|the)\s+")
_SAID = 0.75  # how often a thing that is there is mentioned
_LONGEST = 72  # words and commas, or Chinese characters: models read 75
_STUFF = ("grass", "snow", "sky", "hill", "pond")  # what has no shape of its own

# Nouns of things that can be seen -> all their forms. Words of one class are nouns of their own:
# nobody tells the model that a meadow is of grass. General ones (animal, day) name no thing.
_NAMES = {
    "en": "grass meadow field pasture snow sky hill water pond tree barn fence trough hay "
    "sheep goat cow dog horse",
    "zh": "草地 牧场 田野 雪 天空 山丘 水面 池塘 树 谷仓 栅栏 水槽 干草 羊 山羊 牛 狗 马",
}
_MORE_FORMS = {
    "snow": ("snowy",), "hill": ("hills",), "goat": ("goats",), "cow": ("cows",),
    "dog": ("dogs",), "horse": ("horses",), "雪": ("雪地",), "天空": ("蓝天",), "山丘": ("小山",),
    "树": ("大树", "松树"), "干草": ("干草垛",), "羊": ("绵羊",), "牛": ("奶牛",),
}  # fmt: skip
NOUNS: dict[str, dict[str, tuple[str, ...]]] = {
    language: {noun: (noun, *_MORE_FORMS.get(noun, ())) for noun in names.split()}
    for language, names in _NAMES.items()
}
# The classes in words: the name that one would think of first, then others for the same.
CLASS_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        **{name: (name,) for name in SEMANTIC_CLASSES},
        "grass": ("grass", "meadow", "green field", "pasture"),
        "water": ("water", "pond"),
    },
    "zh": {
        "grass": ("草地", "牧场", "田野"),
        "snow": ("雪地", "雪"),
        "sky": ("天空",),
        "hill": ("山丘", "小山"),
        "water": ("水", "水面", "池塘"),
        "tree": ("树", "大树", "松树"),
        "barn": ("谷仓",),
        "fence": ("栅栏",),
        "trough": ("水槽",),
        "hay": ("干草", "干草垛"),
        "sheep": ("羊", "绵羊"),
        "goat": ("山羊",),
        "cow": ("牛", "奶牛"),
        "dog": ("狗",),
        "horse": ("马",),
    },
}
# Words that hold a noun's letters and mean something else: drinking and falling snow are no things.
_NOT_NOUNS = {"en": ("drinking water", "snow is falling", "falling snow"), "zh": ("飘雪", "下雪天")}
_FORMS = {
    language: {form: noun for noun, forms in table.items() for form in forms}
    for language, table in NOUNS.items()
}


def _finder(language: str) -> re.Pattern[str]:
    """Longest first: 山羊 is a goat, and no sheep."""
    words = sorted([*_FORMS[language], *_NOT_NOUNS[language]], key=len, reverse=True)
    edge = r"\b" if language == "en" else ""
    return re.compile(edge + "(" + "|".join(map(re.escape, words)) + ")" + edge)


_FINDERS = {language: _finder(language) for language in LANGUAGES}


def stuff_caption(scene: Scene, language: str = "en", variant: int = 0) -> str:
    """Name what the landscape of a scene is made of, such as "a view of a barn, snow and the sky".

    Mentions each thing that the scene has three times out of four, and at least one, in any order;
    equal variants give equal captions.
    """
    dice = Dice("stuff", language, scene.kind, scene.split, scene.seed, variant)
    there = dice.shuffled(_things(scene))
    said = [thing for thing in there if dice.chance(_SAID)] or there[:1]
    names = list(dict.fromkeys(dice.choice(_WORDS[language][thing]) for thing in said))
    return dice.choice(_FRAME[language]).format(listed(names, language))


def rated_caption(scene: Scene, language: str = "en", variant: int = 0, *, rate: float) -> str:
    """Animals, then what is around them: grass, snow, sky, hills and water as often as `rate`.

    For each of the five it is drawn once for a scene whether its captions say it, so that all of
    them agree, and a higher rate (0 to 1) says the same and more. Things such as a barn are
    mentioned three times out of four. Equal variants give equal captions.
    """
    dice = Dice("stuff is said", scene.kind, scene.split, scene.seed)
    heard = [thing for thing in _STUFF if dice.chance(rate)]
    dice = Dice("rated", language, scene.kind, scene.split, scene.seed, variant)
    there = dice.shuffled(_things(scene))
    said = [t for t in there if (t in heard if t in _STUFF else dice.chance(_SAID))]
    names = list(dict.fromkeys(dice.choice(_WORDS[language][thing]) for thing in said))
    rest = listed(names, language)
    while True:
        animals = caption(scene, language, variant)
        text = (", " if language == "en" else "，").join(filter(None, [animals, rest]))
        length = len(text.replace(",", " ,").split()) if language == "en" else len(text)
        if length <= _LONGEST and not _stuff_words(language).search(animals):
            return text
        variant += 1000


@cache
def _stuff_words(language: str) -> re.Pattern[str]:
    """Any word of `_STUFF`, also where it is no noun, as in "snow is falling"."""
    kinds = {"water" if thing == "pond" else thing for thing in _STUFF}
    nouns = [noun for noun in NOUNS[language] if class_of(noun) in kinds]
    return re.compile("|".join(form for n in nouns for form in NOUNS[language][n]))


def nouns_in(text: str, language: str = "en") -> list[str]:
    """The nouns of a caption, each once, in the order of `NOUNS`."""
    forms = _FORMS[language]
    found = {forms.get(word) for word in _FINDERS[language].findall(text.lower())}
    return [noun for noun in NOUNS[language] if noun in found]


def class_of(word: str) -> str | None:
    """The class of `SEMANTIC_CLASSES` that a word of either language names; None: no such one.

    All that captions call a class counts: of grass, meadow, field and 草地 as well.
    """
    return _classes_by_word().get(_ARTICLE.sub("", word.strip().casefold()))


@cache
def _classes_by_word() -> dict[str, str]:
    """Every word for a class, without its article -> the class."""
    found: dict[str, str] = {}
    for language, table in CLASS_WORDS.items():
        said = _WORDS[language]
        for name, words in table.items():
            every = {*words, *said.get(name, ()), *(said["pine"] if name == "tree" else ())}
            nouns = [n for word in every for n in nouns_in(word, language)]
            every |= {form for noun in nouns for form in (noun, *NOUNS[language][noun])}
            found |= {_ARTICLE.sub("", word): name for word in every}
    return found


def stuff_lexicon(language: str) -> list[str]:
    """Every word that `stuff_caption` can use, as `captions.lexicon` has those of `caption`."""
    return said_in(
        [*_WORDS[language].values(), _FRAME[language], "and" if language == "en" else "和、"]
    )


def _things(scene: Scene) -> list[str]:
    """What the scene has, besides animals."""
    there = [scene.ground]
    if scene.backdrop in ("sky", "hills"):
        there.append("sky")
    if scene.backdrop.startswith("hills"):
        there.append("hill")
    # "grass*", the tuft that an animal bites into, is drawn and labelled as part of the ground.
    props = (prop.kind.rstrip("*") for prop in scene.props if prop.kind != "grass*")
    return list(dict.fromkeys([*there, *props]))
