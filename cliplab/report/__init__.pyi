from . import classification_page as classification_page
from . import detection_page as detection_page
from . import folder as folder
