"""Cut NotoSansSC-cliplab.otf out of Noto Sans CJK: `python make_subset.py NotoSansCJK-Regular.ttc`.

Needs `fonttools`. Keeps printable ASCII, the punctuation rows of GB 2312, its 3,755 level-1 hanzi
and a handful of level-2 hanzi that name animals; drops hinting, layout tables and other faces.
"""

import argparse
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTCollection, TTFont

FAMILY = "Noto Sans SC cliplab"
ANIMALS = "羚骆驼狍獐麂麋麝驴骡驹犊羔崽獒獾猁猞貂鼬狸鹭鹳鹦鹉鹌鹑鸵鳄鲈鲤鲫鳗蜥蜴蟾蜍"  # level 2


def gb2312_row(lead: int) -> list[str]:
    """The characters of one 94-cell row of GB 2312."""
    cells = (bytes([lead, trail]).decode("gb2312", "ignore") for trail in range(0xA1, 0xFF))
    return [cell for cell in cells if cell]


def wanted_text() -> str:
    """Every character the subset keeps."""
    ascii_text = [chr(code) for code in range(0x20, 0x7F)]
    punctuation = gb2312_row(0xA1) + gb2312_row(0xA3)
    level_1 = [c for lead in range(0xB0, 0xD8) for c in gb2312_row(lead)]
    return "".join([*ascii_text, *punctuation, *level_1, *ANIMALS])


def rename(font: TTFont) -> None:
    """Give the cut font its own name, so that it is never mistaken for the complete one."""
    new = {1: FAMILY, 3: "NotoSansSC-cliplab 2.004", 4: FAMILY, 6: "NotoSansSC-cliplab", 16: FAMILY}
    for record in list(font["name"].names):
        if record.nameID in new:
            where = (record.platformID, record.platEncID, record.langID)
            font["name"].setName(new[record.nameID], record.nameID, *where)
    cff = font["CFF "].cff
    cff.fontNames = ["NotoSansSC-cliplab"]
    cff.topDictIndex[0].FullName = cff.topDictIndex[0].FamilyName = FAMILY


def main() -> None:
    """Read the collection named on the command line, write the subset beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", type=Path, help="NotoSansCJK-Regular.ttc, version 2.004")
    faces = TTCollection(parser.parse_args().collection).fonts
    font = next(f for f in faces if f["name"].getDebugName(1) == "Noto Sans CJK SC")
    options = subset.Options()
    options.hinting, options.layout_features, options.name_languages = False, [], [0x409]
    options.name_IDs = ["*"]
    options.drop_tables += ["BASE", "GPOS", "GSUB", "GDEF", "VORG", "vhea", "vmtx"]
    cutter = subset.Subsetter(options)
    cutter.populate(text=wanted_text())
    cutter.subset(font)
    rename(font)
    font.recalcTimestamp = False  # the same bytes every time
    font.save(Path(__file__).with_name("NotoSansSC-cliplab.otf"))


if __name__ == "__main__":
    main()
