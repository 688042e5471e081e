"""What is said about a scene, in English and Chinese.

A caption mentions a subset of the facts (species always; posture, colour, place and weather
sometimes), in one of many phrasings, and is always true of the picture. Some are bare ("a photo of
a sheep"): a model that only ever read long captions finds bare ones foreign.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from cliplab.pasture.scene import COLOURS, Animal, Dice, Scene

LANGUAGES = ("en", "zh")

_PLURAL = {"sheep": "sheep", "goat": "goats", "cow": "cows", "dog": "dogs", "horse": "horses"}
_COUNT = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

# How each posture is said: after the noun, before it, and as a clause.
_POSTURE = {
    "standing": (("standing", "standing still"), "standing", "that is standing"),
    "eating": (("eating", "grazing", "feeding"), "eating", "that is eating"),
    "lying": (("lying down", "lying", "resting"), "lying", "that is lying down"),
    "drinking": (("drinking", "drinking water"), "drinking", "that is drinking"),
}
_SOURCE = {
    "grass": ("eating grass",),
    "hay": ("eating hay", "feeding on hay"),
    "pond": ("drinking from a pond", "drinking at a pond"),
    "trough": ("drinking from a trough", "drinking at a trough"),
}
_GROUND = {
    "grass": ("on the grass", "in a meadow", "in a green field", "in the pasture"),
    "snow": ("in the snow", "on snowy ground", "on the snow"),
}
_BY = {
    "tree": ("by a tree", "near a tree"),
    "pine": ("by a pine tree", "near a pine tree"),
    "barn": ("by a barn", "near a red barn", "in front of a barn"),
    "fence": ("by a fence", "near a fence", "in front of a fence"),
    "trough": ("near a trough",),
    "pond": ("near a pond",),
    "hay": ("near a hay bale", "by a bale of hay"),
}
_WEATHER = {
    "sunny": ("on a sunny day", "under a blue sky"),
    "cloudy": ("on a cloudy day", "under a grey sky"),
    "rainy": ("in the rain", "on a rainy day"),
    "dusk": ("at dusk", "at sunset"),
    "snowy": ("while snow is falling", "in falling snow"),
}
_FRAME = ("{}", "{}", "a photo of {}", "a picture of {}", "an image of {}", "this is {}",
          "there is {}", "here is {}", "a photo showing {}")  # fmt: skip

_ZH_SPECIES = {"sheep": ("羊", "绵羊"), "goat": ("山羊",), "cow": ("牛", "奶牛"), "dog": ("狗",),
               "horse": ("马",)}  # fmt: skip
_ZH_MEASURE = {"sheep": "只", "goat": "只", "cow": "头", "dog": "只", "horse": "匹"}
_ZH_COLOUR = {"white": ("白色", "白"), "black": ("黑色", "黑"), "brown": ("棕色", "棕"),
              "spotted": ("花斑", "花")}  # fmt: skip
# As an attribute before the noun, and as a predicate after it.
_ZH_POSTURE = {
    "standing": (("站立的", "站着的"), ("站着", "正站着", "站立不动")),
    "eating": (("进食的", "吃饭的", "吃东西的"), ("正在进食", "在吃东西", "正在吃饭")),
    "lying": (("躺着的", "卧着的"), ("躺着", "正躺着休息", "卧在地上")),
    "drinking": (("喝水的", "饮水的"), ("正在喝水", "在饮水", "在喝水")),
}
_ZH_SOURCE = {
    "grass": ("正在吃草", "在吃青草"),
    "hay": ("正在吃干草", "在吃干草"),
    "pond": ("正在池塘边喝水", "在池塘里喝水"),
    "trough": ("正在水槽边喝水", "在水槽里喝水"),
}
_ZH_GROUND = {"grass": ("草地上", "牧场上", "绿色的田野上"), "snow": ("雪地上", "雪地里")}
_ZH_BY = {
    "tree": "大树旁",
    "pine": "松树旁",
    "barn": "谷仓旁",
    "fence": "栅栏旁",
    "trough": "水槽附近",
    "pond": "池塘附近",
    "hay": "干草垛旁",
}
_ZH_WEATHER = {
    "sunny": ("晴天", "蓝天下"),
    "cloudy": ("阴天", "灰色的天空下"),
    "rainy": ("雨中", "下雨天"),
    "dusk": ("黄昏时", "傍晚"),
    "snowy": ("飘雪中", "下雪天"),
}
_ZH_FRAME = ("{}", "{}", "一张{}的照片", "{}的照片", "照片里有{}", "图中有{}", "这是{}", "{}的图片")
_ZH_COUNT = ("零", "一", "两", "三", "四", "五", "六", "七", "八")

# Which facts a caption mentions, and how often. Species is always one of them.
_DETAIL = {
    (): 9,
    ("posture",): 9,
    ("colour",): 5,
    ("colour", "posture"): 17,
    ("colour", "posture", "place"): 16,
    ("posture", "place"): 6,
    ("colour", "posture", "weather"): 12,
    ("colour", "posture", "place", "weather"): 26,
}
FULL = ("colour", "posture", "place", "weather")


def caption(scene: Scene, language: str = "en", variant: int = 0, *, facts: str = "some") -> str:
    """Say what a scene shows.

    Args:
        scene: a portrait or a herd.
        language: "en" or "zh".
        variant: which of its endless captions; equal numbers give equal captions.
        facts: "some" draws which facts to mention, "all" mentions every one.

    Raises:
        ValueError: unknown language.
    """
    check_language(language)
    dice = _dice(scene, language, variant, None)
    if len(scene.animals) > 1:
        return (_herd_en if language == "en" else _herd_zh)(scene, dice)
    detail = FULL if facts == "all" else _facts(dice, alone=False)
    say = _animal_en if language == "en" else _animal_zh
    return say(scene.animals[0], scene, detail, dice)


def animal_caption(scene: Scene, index: int, language: str = "en", variant: int = 0) -> str:
    """Caption of one animal of a herd alone, as of a crop: never its place or the weather."""
    dice = _dice(scene, language, variant, index)
    detail = _facts(dice, alone=True)
    say = _animal_en if language == "en" else _animal_zh
    return say(scene.animals[index], scene, detail, dice)


def mentioned_facts(
    scene: Scene, language: str = "en", variant: int = 0, *, index: int | None = None
) -> tuple[str, ...]:
    """Which facts besides the species `caption` mentions, or `animal_caption` if given an index.

    Of one animal only: -> some of "colour", "posture", "place", "weather".
    """
    return _facts(_dice(scene, language, variant, index), alone=index is not None)


def _dice(scene: Scene, language: str, variant: int, index: int | None) -> Dice:
    if index is None:
        return Dice("caption", language, scene.kind, scene.split, scene.seed, variant)
    return Dice("animal", language, scene.split, scene.seed, index, variant)


def _facts(dice: Dice, *, alone: bool) -> tuple[str, ...]:
    """The first draw of every caption; an animal cut out of its scene has no place or weather."""
    facts = dice.weighted(_DETAIL)
    return tuple(f for f in facts if f in ("colour", "posture")) if alone else facts


def check_language(language: str) -> None:
    """Raise ValueError unless it is one of `LANGUAGES`."""
    if language not in LANGUAGES:
        raise ValueError(f"unknown language {language!r}; expected one of {', '.join(LANGUAGES)}")


def class_phrase(
    *, species: str = "", posture: str = "", colour: str = "", language: str = "en"
) -> str:
    """Name a class by any of its attributes, as a label for zero-shot classification.

    `class_phrase(species="sheep", posture="lying")` is "sheep lying down" ("躺着的羊" in Chinese).

    Raises:
        ValueError: unknown language, or no attribute given.
    """
    if not (species or posture or colour):
        raise ValueError("class_phrase: give at least one of species, posture, colour")
    return noun_phrase(species, posture, colour, language=language)


def noun_phrase(
    species: str, posture: str, colour: str, *, language: str, dice: Dice | None = None
) -> str:
    """An animal by any of its attributes, in one of many wordings; what is "" is not said.

    "sheep lying down", "resting sheep" or "lying sheep" are one phrase to a reader, and so are
    躺着的羊 and 卧着的绵羊. Without `dice` it is the first of them; "animal" if nothing is said.

    Raises:
        ValueError: unknown language.
    """
    check_language(language)
    pick = dice.choice if dice else itemgetter(0)
    if language == "zh":
        noun = pick(_ZH_SPECIES[species]) if species else "动物"
        before = pick(_ZH_POSTURE[posture][0]) if posture else ""
        return before + _tint_zh(colour, noun, bool(posture)) + noun
    noun = " ".join(word for word in (colour, species or "animal") if word)
    if not posture:
        return noun
    after, before, _ = _POSTURE[posture]
    return f"{before} {noun}" if dice and dice.chance(0.25) else f"{noun} {pick(after)}"


def _animal_en(animal: Animal, scene: Scene, detail: Sequence[str], dice: Dice) -> str:
    noun = f"{animal.colour} {animal.species}" if "colour" in detail else animal.species
    frame = dice.choice(_FRAME)
    tail = _tail_en(animal, scene, detail, dice)
    if "posture" not in detail:
        return " ".join([frame.format(f"a {noun}"), *tail])
    after, before, clause = _POSTURE[animal.posture]
    style = dice.weighted({"after": 6, "source": 3, "before": 2, "clause": 2, "sentence": 2})
    verb = dice.choice(after)
    if style == "source" and animal.source:
        verb = dice.choice(_SOURCE[animal.source])
    if style == "sentence":
        return " ".join([f"the {noun} is {verb}", *tail])
    thing = f"a {noun} {clause if style == 'clause' else verb}"
    if style == "before":
        thing = f"{'an' if before[0] in 'aeiou' else 'a'} {before} {noun}"
    return " ".join([frame.format(thing), *tail])


def _tail_en(animal: Animal, scene: Scene, detail: Sequence[str], dice: Dice) -> list[str]:
    tail = []
    if "place" in detail:
        tail.append(dice.choice(_GROUND[scene.ground]))
        kind = _beside(scene, dice)
        if kind:
            tail.append(dice.choice(_BY[kind]))
    if "weather" in detail and _weather_shows(scene):
        tail.append(dice.choice(_WEATHER[scene.weather]))
    return tail


def _beside(scene: Scene, dice: Dice) -> str:
    """One prop to mention, "" when there is none."""
    kinds = [p.kind for p in scene.props if p.kind in _BY]
    return dice.choice(kinds) if kinds else ""


def _weather_shows(scene: Scene) -> bool:
    """Rain, flakes and dusk tint everything; a blue or grey sky shows only where there is sky."""
    return scene.weather in ("rainy", "snowy") or scene.backdrop in ("sky", "hills")


def _herd_en(scene: Scene, dice: Dice) -> str:
    text = dice.choice(_FRAME).format(_group_en(scene, dice))
    tail = []
    if dice.chance(0.6):
        tail.append(dice.choice(_GROUND[scene.ground]))
    kind = _beside(scene, dice)
    if kind and dice.chance(0.3):
        tail.append(dice.choice(_BY[kind]))
    if _weather_shows(scene) and dice.chance(0.25):
        tail.append(dice.choice(_WEATHER[scene.weather]))
    if "there is" in text and not text.startswith("there is a ") and "there is one" not in text:
        text = text.replace("there is", "there are")
    if text.startswith(("this is", "here is")):
        text = text.replace("this is", "these are", 1).replace("here is", "here are", 1)
    return " ".join([text, *tail])


def _group_en(scene: Scene, dice: Dice) -> str:
    if dice.chance(0.15):
        return f"{_COUNT[len(scene.animals)]} animals"
    groups = []
    for (species, colour, posture), n in _kinds(scene, dice).items():
        count, noun = ("a", species) if n == 1 else (_COUNT[n], _PLURAL[species])
        does = _POSTURE[posture][0][0] if posture else ""
        groups.append(" ".join(filter(None, [count, colour, noun, does])))
    return listed(groups, "en")


def _kinds(scene: Scene, dice: Dice) -> Counter[tuple[str, str, str]]:
    """How many there are of each species, colour and posture; "" for what is drawn to be unsaid."""
    use_colour, use_posture = dice.chance(0.4), dice.chance(0.4)
    return Counter(
        (a.species, a.colour if use_colour else "", a.posture if use_posture else "")
        for a in scene.animals
    )


def listed(names: Sequence[str], language: str) -> str:
    """Names as a list of the language: "a, b and c"."""
    comma, last = (", ", " and ") if language == "en" else ("、", "和")
    return last.join(filter(None, [comma.join(names[:-1]), *names[-1:]]))


def _animal_zh(animal: Animal, scene: Scene, detail: Sequence[str], dice: Dice) -> str:
    noun, measure = dice.choice(_ZH_SPECIES[animal.species]), _ZH_MEASURE[animal.species]
    long, short = _ZH_COLOUR[animal.colour]
    tint = "" if "colour" not in detail else short if dice.chance(0.25) else long
    # The particle links a long colour to its noun, unless a posture before it already has one.
    linked = f"{tint}的{noun}" if tint == long else f"{tint}{noun}"
    where = _where_zh(scene, detail, dice)
    attributes, predicates = _ZH_POSTURE[animal.posture]
    style = dice.weighted({"attribute": 5, "predicate": 4, "source": 3})
    if "posture" not in detail:
        thing = linked
    elif style == "attribute":
        # A noun of one character wants a colour of one character.
        thing = f"{dice.choice(attributes)}{tint[: len(noun)]}{noun}"
    else:
        feeds = style == "source" and animal.source
        verb = dice.choice(_ZH_SOURCE[animal.source] if feeds else predicates)
        return f"{where + '，' if where else ''}一{measure}{linked}{verb}"
    if where:
        return f"{where}有一{measure}{thing}"
    return dice.choice(_ZH_FRAME).format(f"一{measure}{thing}" if dice.chance(0.7) else thing)


def _tint_zh(colour: str, noun: str, after_posture: bool) -> str:
    """白羊 and 白色山羊 after a posture, 白色的羊 without one."""
    if not colour:
        return ""
    long, _ = _ZH_COLOUR[colour]
    return long[: len(noun)] if after_posture else f"{long}的"


def _where_zh(scene: Scene, detail: Sequence[str], dice: Dice) -> str:
    words = []
    if "weather" in detail and _weather_shows(scene):
        words.append(dice.choice(_ZH_WEATHER[scene.weather]))
    if "place" in detail:
        kind = _beside(scene, dice)
        words.append((_ZH_BY[kind] + "的" if kind else "") + dice.choice(_ZH_GROUND[scene.ground]))
    return "".join(words)


def _herd_zh(scene: Scene, dice: Dice) -> str:
    if dice.chance(0.15):
        group = f"{_ZH_COUNT[len(scene.animals)]}只动物"
    else:
        phrases = []
        for (species, colour, posture), n in _kinds(scene, dice).items():
            attribute = _ZH_POSTURE[posture][0][0] if posture else ""
            count, noun = f"{_ZH_COUNT[n]}{_ZH_MEASURE[species]}", _ZH_SPECIES[species][0]
            phrases.append(f"{count}{attribute}{_tint_zh(colour, noun, bool(posture))}{noun}")
        group = listed(phrases, "zh")
    if dice.chance(0.6):
        where = dice.choice(_ZH_GROUND[scene.ground])
        return f"{where}有{group}"
    return dice.choice(_ZH_FRAME).format(group)


def lexicon(language: str) -> list[str]:
    """Every word that `caption` and `class_phrase` can use: what a vocabulary must cover."""
    tables = {
        "en": (_POSTURE, _SOURCE, _GROUND, _BY, _WEATHER, _PLURAL, _COUNT, _FRAME, COLOURS,
               "a", "an", "the", "is", "are", "these", "and", "animal", "animals", ","),
        "zh": (_ZH_SPECIES, _ZH_MEASURE, _ZH_COLOUR, _ZH_POSTURE, _ZH_SOURCE, _ZH_GROUND, _ZH_BY,
               _ZH_WEATHER, _ZH_FRAME, _ZH_COUNT, "一只的有动物和、，。旁"),
    }[language]  # fmt: skip
    return said_in(tables)


def said_in(tables: object) -> list[str]:
    """Every text of nested tables without the place of a noun: what a vocabulary must cover."""
    return sorted({word.replace("{}", "").strip() for word in _words(tables)} - {""})


def _words(table: object) -> Iterator[str]:
    """All strings anywhere in nested dicts (their keys too) and sequences."""
    if isinstance(table, str):
        yield table
    elif isinstance(table, dict):
        for key, value in table.items():
            yield from _words(key)
            yield from _words(value)
    elif isinstance(table, Iterable):
        for item in table:
            yield from _words(item)
