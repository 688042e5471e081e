from . import (
    classification_page as classification_page,
    detection_page as detection_page,
    provenance as provenance,
    published as published,
    segmentation_page as segmentation_page,
)
from .execute import Failure as Failure
from .folder import (
    RESULTS as RESULTS,
    carry_out as carry_out,
    finish as finish,
    load as load,
    new_run as new_run,
    old_run as old_run,
    unfinished as unfinished,
)
from .galleries import thumbnail as thumbnail
from .jobs import Job as Job, Request as Request, jobs_of as jobs_of, plan as plan
from .notebook import (
    find_notebooks as find_notebooks,
    open_inputs as open_inputs,
    read_notebook as read_notebook,
    read_parameters as read_parameters,
    title as title,
)
from .outputs import save as save
from .page import (
    Difference as Difference,
    close as close,
    compare as compare,
    show as show,
    write_page as write_page,
)
