from . import captions as captions, grounding as grounding, relations as relations
from .captions import (
    LANGUAGES as LANGUAGES,
    animal_caption as animal_caption,
    caption as caption,
    class_phrase as class_phrase,
    lexicon as lexicon,
    mentioned_facts as mentioned_facts,
)
from .dataset import (
    Pictures as Pictures,
    crops as crops,
    portraits as portraits,
)
from .drawing import (
    SEMANTIC_CLASSES as SEMANTIC_CLASSES,
    draw as draw,
    labels as labels,
)
from .grounding import (
    LEVELS as LEVELS,
    PROPS as PROPS,
    Annotations as Annotations,
    Grounded as Grounded,
    Thing as Thing,
    Words as Words,
    annotations_of as annotations_of,
    is_held_out as is_held_out,
    say as say,
    sentence as sentence,
)
from .relations import relation as relation
from .scene import (
    COLOURS as COLOURS,
    COMBOS as COMBOS,
    HELD_OUT_PAIRS as HELD_OUT_PAIRS,
    HELD_OUT_TRIPLES as HELD_OUT_TRIPLES,
    PAIR_COMBOS as PAIR_COMBOS,
    POSTURES as POSTURES,
    SEEN_COMBOS as SEEN_COMBOS,
    SPECIES as SPECIES,
    Combo as Combo,
    Dice as Dice,
    Scene as Scene,
    herd as herd,
    portrait as portrait,
    scenes as scenes,
)
from .stuff import (
    CLASS_WORDS as CLASS_WORDS,
    NOUNS as NOUNS,
    class_of as class_of,
    nouns_in as nouns_in,
    rated_caption as rated_caption,
    stuff_caption as stuff_caption,
    stuff_lexicon as stuff_lexicon,
)
