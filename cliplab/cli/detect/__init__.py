"""`python -m cliplab detect SOURCE --labels ...` or `--phrases ...`: boxes with names, in pictures.

For notebooks: `pictures.read_pictures` and `detectors.load_detector`, then `finding.find` and
`judging.judge`.
"""

from cliplab.cli.detect.arguments import add_arguments
from cliplab.cli.detect.command import run

__all__ = ["add_arguments", "run"]
