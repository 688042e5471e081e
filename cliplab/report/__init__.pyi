from . import (
    classification_page as classification_page,
    detection_page as detection_page,
    provenance as provenance,
    published as published,
    segmentation_page as segmentation_page,
)
from .class_page import write_class as write_class
from .crate import write_crate as write_crate
from .execute import Failure as Failure
from .folder import (
    carry_out as carry_out,
    finish as finish,
    load as load,
    new_run as new_run,
    old_run as old_run,
    put_name as put_name,
    unfinished as unfinished,
)
from .galleries import (
    Heading as Heading,
    choose_pictures as choose_pictures,
    thumbnail as thumbnail,
    write_html as write_html,
)
from .notebook import (
    Job as Job,
    Request as Request,
    find_notebooks as find_notebooks,
    open_inputs as open_inputs,
    plan as plan,
    read_notebook as read_notebook,
    read_parameters as read_parameters,
    with_labs as with_labs,
)
from .page import (
    Difference as Difference,
    compare as compare,
    origin as origin,
    show as show,
    write_page as write_page,
)
from .processes import as_module as as_module, peak_mb as peak_mb
from .slides import write_slides as write_slides
from .touch import beside as beside, touch as touch
