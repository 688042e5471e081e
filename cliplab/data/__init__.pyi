from .files import (
    UnreadableImage as UnreadableImage,
    is_image_name as is_image_name,
    iter_images as iter_images,
    open_image as open_image,
    shown as shown,
    within as within,
)
from .sample_set import SampleSet as SampleSet
from .samples import (
    SKIPPED as SKIPPED,
    SPLITS as SPLITS,
    UNSAID as UNSAID,
    Ids as Ids,
    Masks as Masks,
    Problem as Problem,
    ProblemKind as ProblemKind,
    Sample as Sample,
    resized as resized,
    some as some,
)
from .source import (
    KINDS as KINDS,
    is_read_of as is_read_of,
    read_photos as read_photos,
    read_pictures as read_pictures,
)
