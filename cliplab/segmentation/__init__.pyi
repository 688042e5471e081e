from .judging import (
    LABELS as LABELS,
    OVERLAY as OVERLAY,
    Judge as Judge,
    LabelRow as LabelRow,
    PictureRow as PictureRow,
    compare_classes as compare_classes,
    label_rows as label_rows,
    percent as percent,
    read_truth as read_truth,
    without_labels as without_labels,
)
from .loading import (
    load_segmenter as load_segmenter,
    own_templates as own_templates,
    reader_of as reader_of,
    tuned_settings as tuned_settings,
    unread_remarks as unread_remarks,
    usual_background as usual_background,
    weak_remarks as weak_remarks,
)
from .outputs import (
    MAX_LABELS as MAX_LABELS,
    Panoptic as Panoptic,
    label_image as label_image,
    overlay_sheet as overlay_sheet,
    panoptic_folder as panoptic_folder,
    save_png as save_png,
)
from .quality import (
    IGNORE as IGNORE,
    Quality as Quality,
    Tally as Tally,
    boundary_counts as boundary_counts,
    confusion as confusion,
    iou_per_class as iou_per_class,
    oracle_labels as oracle_labels,
)
from .scene import (
    REACHES as REACHES,
    Scenes as Scenes,
    Segmentation as Segmentation,
    name_groups as name_groups,
    pixel_maps as pixel_maps,
    read_scenes as read_scenes,
    refine as refine,
    score_groups as score_groups,
)
from .segmenter import (
    Features as Features,
    GroupViTSegmenter as GroupViTSegmenter,
    scaled_side as scaled_side,
    working_size as working_size,
)
from .settings import (
    BACKGROUND as BACKGROUND,
    BACKGROUND_WORDS as BACKGROUND_WORDS,
    Settings as Settings,
    Vocabulary as Vocabulary,
    language_of as language_of,
    read_labels as read_labels,
    vocabulary as vocabulary,
)
