"""A colour for every label: that of the thing itself where it has one, else Okabe and Ito's.

Which colour belongs to which label depends on the labels alone, so that the files, the pages and
the figures of one run agree; those of things of the pasture are the same in all runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cliplab.classification import fold
from cliplab.viz.boxes import BOX_COLOURS, box_colour

NOTHING = "#000000"  # of the background; in pictures it is left bare
RGB = tuple[int, int, int]

# The ground, the sky and what stands there as one expects them, the animals in the colours that
# stand out on them. Okabe and Ito's, or shades of them, kept apart in lightness, too.
_THINGS = {
    "#009E73": ("grass", "meadow", "field", "pasture", "草", "草地", "田野", "牧场"),
    "#56B4E9": ("sky", "天空", "天"),
    "#0072B2": ("water", "pond", "river", "sea", "lake", "水", "水面", "池塘"),
    "#E3EDF5": ("snow", "雪", "雪地"),
    "#004D38": ("tree", "trees", "forest", "树", "大树"),
    "#A3B86C": ("hill", "hills", "mountain", "山", "山丘", "小山"),
    "#8C2D04": ("barn", "house", "building", "谷仓", "房子"),
    "#7A6A5A": ("fence", "栅栏"),
    "#8899AA": ("trough", "水槽"),
    "#EBCFA0": ("hay", "hay bale", "干草", "干草垛"),
    "#D55E00": ("sheep", "羊", "绵羊"),
    "#F0E442": ("goat", "山羊"),
    "#CC79A7": ("cow", "牛", "奶牛"),
    "#E69F00": ("dog", "狗"),
    "#5B2A86": ("horse", "马"),
}
_OF = {fold(word): colour for colour, words in _THINGS.items() for word in words}


def label_colours(
    names: Sequence[str], words: Sequence[Sequence[str]], *, has_background: bool
) -> tuple[str, ...]:
    """K different colours "#rrggbb", black for the background and for nothing else.

    Args:
        names: K, the background first if there is one.
        words: K lists, what stands for each label.
        has_background: whether names[0] is the background.
    """
    taken = {NOTHING}
    found: dict[int, str] = {0: NOTHING} if has_background else {}
    for k, name in enumerate(names):
        own = next((_OF[key] for text in (name, *words[k]) if (key := fold(text)) in _OF), "")
        if k not in found and own and own not in taken:  # a second word for grass takes another
            found[k] = own
            taken.add(own)
    plain = _plain(taken)
    for k in (k for k in range(len(names)) if k not in found):
        found[k] = next(plain)
    return tuple(found[k] for k in range(len(names)))


def _plain(taken: set[str]) -> Iterator[str]:
    """Okabe and Ito's colours and their shades, without those taken; never twice the same."""
    place, given = 0, set(taken)
    while True:
        again = place // (3 * len(BOX_COLOURS))  # shades repeat from there: the next blue of each
        red, green, blue = rgb(box_colour(place))
        colour = hexadecimal((red, green, (blue + again) % 256))
        place += 1
        if colour not in given:
            given.add(colour)
            yield colour


def rgb(colour: str) -> RGB:
    """ "#rrggbb" -> red, green and blue, 0 to 255."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def hexadecimal(values: RGB) -> str:
    """Red, green and blue, 0 to 255 -> "#RRGGBB"."""
    return "#" + "".join(f"{value:02X}" for value in values)


def palette(colours: Sequence[str]) -> list[int]:
    """The 768 numbers of a PNG's palette: colours of the labels, then white, which nobody is."""
    flat = [value for colour in colours for value in rgb(colour)]
    return flat + [255] * (768 - len(flat))
