from .chunks import RunFolder as RunFolder
from .dataset import read_validation as read_validation
from .prompts import read_prompts as read_prompts
from .protocol import compute as compute
from .protocol import default_folder as default_folder
from .protocol import make_plan as make_plan
from .result import as_text as as_text
from .result import summarise as summarise
