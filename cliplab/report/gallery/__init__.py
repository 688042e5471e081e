"""A folder's classification as one HTML file: thumbnails with their probabilities, to look through.

The page asks nothing of the network, works without JavaScript (which only filters and sorts), in
light and dark, by mouse and by keyboard. Whatever a file is called is shown, never interpreted.
"""

from cliplab.report.gallery.cards import COLOURS, MAX_BARS, THUMBNAIL, thumbnail
from cliplab.report.gallery.choose import MAX_CARDS, choose_cards, most_wrong
from cliplab.report.gallery.panel import panel_html
from cliplab.report.gallery.write import Heading, gallery_html

__all__ = [
    "COLOURS",
    "MAX_BARS",
    "MAX_CARDS",
    "THUMBNAIL",
    "Heading",
    "choose_cards",
    "gallery_html",
    "most_wrong",
    "panel_html",
    "thumbnail",
]
