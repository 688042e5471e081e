from . import (
    diagnosis as diagnosis,
    few_shot as few_shot,
    imagenet as imagenet,
    metrics as metrics,
    photos as photos,
    zero_shot as zero_shot,
)
from .answer import (
    FEW_GROUPS as FEW_GROUPS,
    Answer as Answer,
    Assessment as Assessment,
    assess as assess,
    gained as gained,
)
from .metrics import (
    Rate as Rate,
    Reliability as Reliability,
    accuracy as accuracy,
    bootstrap_interval as bootstrap_interval,
    confusion as confusion,
    rate as rate,
    recall_at_k as recall_at_k,
    reliability as reliability,
    wilson_interval as wilson_interval,
)
from .photos import (
    Classifying as Classifying,
    divide as divide,
    true_classes as true_classes,
    unlearned as unlearned,
)
from .prompts import (
    READABLE as READABLE,
    Classes as Classes,
    PromptReader as PromptReader,
    UnreadPromptWarning as UnreadPromptWarning,
    check_class_names as check_class_names,
    check_templates as check_templates,
    complain_of_unread as complain_of_unread,
    fill_templates as fill_templates,
    fold as fold,
    is_chinese as is_chinese,
    is_nothing as is_nothing,
    resolve_classes as resolve_classes,
    split_labels as split_labels,
    templates as templates,
    token_coverage as token_coverage,
    typed_classes as typed_classes,
)
from .zero_shot import (
    Scores as Scores,
    build_classifier as build_classifier,
    classify as classify,
    embed_classes as embed_classes,
)
