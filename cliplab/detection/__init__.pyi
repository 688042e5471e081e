from .boxes import (
    Detections as Detections,
    average_precision as average_precision,
    box_recall as box_recall,
    clip_boxes as clip_boxes,
    coco_results as coco_results,
    coco_truth as coco_truth,
    expand_boxes as expand_boxes,
    name_boxes as name_boxes,
    postprocess as postprocess,
)
from .crops import (
    SCALES as SCALES,
    CropsDetector as CropsDetector,
    crop_boxes as crop_boxes,
    crop_scores as crop_scores,
    embed_boxes as embed_boxes,
)
from .finding import (
    Detector as Detector,
    Found as Found,
    annotated as annotated,
    as_coco as as_coco,
    find as find,
    load_detector as load_detector,
    with_boxes as with_boxes,
)
from .glip import (
    GLIPDetector as GLIPDetector,
)
from .judging import (
    Judged as Judged,
    Row as Row,
    Truth as Truth,
    hits as hits,
    judge as judge,
    labels_of as labels_of,
    summarise as summarise,
)
from .phrases import (
    class_prompt as class_prompt,
    read_prompt as read_prompt,
    relating_words as relating_words,
    sentence_prompt as sentence_prompt,
    side_of as side_of,
)
from .settings import (
    MODELS as MODELS,
    PUBLISHED as PUBLISHED,
    Cut as Cut,
    Settings as Settings,
    check_settings as check_settings,
    parse_model as parse_model,
)
from .vild import (
    ViLDDetector as ViLDDetector,
    propose as propose,
    to_pixels as to_pixels,
)
from .words import (
    Query as Query,
    as_classes as as_classes,
    as_prompt as as_prompt,
    match as match,
    phrases_note as phrases_note,
    read_labels as read_labels,
    read_phrases as read_phrases,
    threshold_note as threshold_note,
)
