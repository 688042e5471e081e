from . import (
    boxes as boxes,
    figures as figures,
    grounding as grounding,
    segmentation as segmentation,
)
from .boxes import (
    BOX_COLOURS as BOX_COLOURS,
    box_colour as box_colour,
    ink_on as ink_on,
    place_tags as place_tags,
    plot_boxes as plot_boxes,
    tag_size as tag_size,
    tag_texts as tag_texts,
)
from .figures import as_array as as_array, as_pixels as as_pixels, use_style as use_style
from .fonts import cjk_fonts as cjk_fonts
from .segmentation import (
    NOTHING as NOTHING,
    class_colours as class_colours,
    label_panels as label_panels,
    paint as paint,
    plot_groups as plot_groups,
    plot_labels as plot_labels,
    plot_spans as plot_spans,
    plot_trainings as plot_trainings,
    plot_tries as plot_tries,
    rgb as rgb,
)
