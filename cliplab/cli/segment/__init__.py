"""`python -m cliplab segment SOURCE --labels ...`: a label for every pixel.

For notebooks: `words.read_labels` and `words.make_vocabulary`, then `finding.segment_all`,
`overlay.figure` and `judging.Judge`. The model itself is `cliplab.segmentation`.
"""

from cliplab.cli.segment.arguments import add_arguments
from cliplab.cli.segment.command import run

__all__ = ["add_arguments", "run"]
