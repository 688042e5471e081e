"""Fonts that draw Chinese in figures: a shipped subset first, an installed font behind it."""

import dataclasses

from matplotlib import font_manager

from cliplab.runtime import data_dir

SHIPPED_FONT = "NotoSansSC-cliplab.otf"
INSTALLED_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Micro Hei",
    "Noto Sans CJK JP",  # what matplotlib calls the whole Noto CJK collection
)


def cjk_fonts() -> list[str]:
    """Families that can draw Chinese, in the order they are asked: shipped, then installed.

    Without any, Chinese shows as empty boxes.
    """
    # The shipped subset goes first because it is the same file everywhere; an installed font is
    # complete and serves the characters that the subset leaves out.
    shipped = _register_shipped_font()
    known = {font.name for font in font_manager.fontManager.ttflist}
    installed = next((name for name in INSTALLED_FONTS if name in known), None)
    families = [name for name in (shipped, installed) if name]
    for name in families:
        _stand_in_for_bold(name)
    return families


def _register_shipped_font() -> str | None:
    try:
        path = data_dir() / "fonts" / SHIPPED_FONT
        name = font_manager.get_font(str(path)).family_name
    except FileNotFoundError:  # installed without a checkout
        return None
    if name not in {font.name for font in font_manager.fontManager.ttflist}:
        font_manager.fontManager.addfont(str(path))
    return name


def _stand_in_for_bold(family: str) -> None:
    # titles are bold; without a bold face matplotlib would log a complaint into every notebook
    entries = [font for font in font_manager.fontManager.ttflist if font.name == family]
    if entries and not any(font.weight in ("bold", 700) for font in entries):
        bold = dataclasses.replace(entries[0], weight=700)
        font_manager.fontManager.ttflist.append(bold)
