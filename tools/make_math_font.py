"""Cut cliplab/report/fonts/STIXTwoMath-cliplab.woff2 out of STIX Two Math.

    python tools/make_math_font.py STIXTwoMath-Regular.ttf      # needs fonttools and brotli

Keeps what formulas of notebooks use, with the tall variants of brackets, sums and roots.
"""

import argparse
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

FAMILY = "STIX Two Math cliplab"
TARGET = Path(__file__).parents[1] / "cliplab" / "report" / "fonts" / "STIXTwoMath-cliplab.woff2"
RANGES = (
    (0x20, 0x7E),  # ASCII
    (0x391, 0x3A9),  # Greek capitals
    (0x3B1, 0x3C9),  # and small letters
    (0x2061, 0x2064),  # invisible operators
    (0x2190, 0x2195),  # arrows
    (0x1D400, 0x1D433),  # bold
    (0x1D434, 0x1D467),  # italic
    (0x1D468, 0x1D49B),  # bold italic
    (0x1D49C, 0x1D4B5),  # script capitals
    (0x1D538, 0x1D551),  # double-struck capitals
    (0x1D6A4, 0x1D71B),  # bold and italic Greek
    (0x1D7CE, 0x1D7E1),  # bold and double-struck digits
)
SINGLE = (
    "\u00a0§¬°±·×÷ϑϕϖϱϵˆˇ˘˙˚˜¯\u0302\u0303\u0304\u0305\u0307\u0308\u20d7–—‖†…′″‾"
    "ℎℏℑℒℓℛℜℕℙℚℝℤℂℇℋℐℰℱℳℬ↦⇐⇒⇔⟶⟵⟹↪"
    "∀∂∃∅∆∇∈∉∋∏∐∑−∓∗∘∙√∝∞∣∥∧∨∩∪∫∼≃≅≈≔≠≡≤≥≪≫⊂⊃⊆⊇⊕⊗⊙⊤⊥⋅⋮⋯⋱⋀⋃⨁⨂⌈⌉⌊⌋⟨⟩⏞⏟□★⋆✓✗"
)


def main() -> None:
    """Read the font named on the command line and write the subset into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("font", type=Path, help="STIXTwoMath-Regular.ttf, version 2.11")
    font = TTFont(parser.parse_args().font, recalcTimestamp=False)
    options = subset.Options()
    options.hinting, options.layout_features = False, ["ssty", "dtls", "flac"]
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[c for lo, hi in RANGES for c in range(lo, hi + 1)], text=SINGLE)
    cutter.subset(font)
    for record in list(font["name"].names):
        new = {1: FAMILY, 4: FAMILY, 6: "STIXTwoMath-cliplab"}.get(record.nameID)
        if new:
            where = (record.platformID, record.platEncID, record.langID)
            font["name"].setName(new, record.nameID, *where)
    font.flavor = "woff2"
    font.save(TARGET)


if __name__ == "__main__":
    main()
